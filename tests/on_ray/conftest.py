"""A Ray cluster of two nodes, each with one CPU, on this machine; a model and pictures for it."""

from __future__ import annotations

import secrets
import time

import pytest
from tiny_run import make_pictures, make_run

from paddle_resnet.exporting import export


@pytest.fixture(scope="session")
def second_folder(tmp_path_factory):
    """The folder for temporary files of the second node's workers."""
    return tmp_path_factory.mktemp("second")


@pytest.fixture(scope="session")
def cluster(project, second_folder):
    """Two nodes of one CPU each on this machine; the head is the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray would write one to the home folder
        patch.setenv("RAY_worker_niceness", "0")  # 15 starves them beside other programs
        patch.setenv("PYTHONPATH", str(project))
        import ray  # reads the variables
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        add_second(cluster, second_folder)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def add_second(cluster, folder):
    cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(folder)})


@pytest.fixture
def lose_node(cluster, second_folder):
    """Return a function that kills the second node at once, or as soon as it loads a model.

    After the test another one takes its place.
    """

    earlier = set(second_folder.iterdir())

    def lose(*, loading=False):
        end = time.monotonic() + 100
        while loading and earlier.issuperset(second_folder.iterdir()) and time.monotonic() < end:
            time.sleep(0.01)
        assert time.monotonic() < end, "the second node has loaded no model"
        cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)

    yield lose
    add_second(cluster, second_folder)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("ray"))
    export(run)
    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """60 pictures, one that is damaged, a film and a text."""
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), {"some": 20})
    for name in ("bad.jpg", "labels.txt", "film.mov"):
        (folder / "some" / name).write_text("no picture")
    return folder
