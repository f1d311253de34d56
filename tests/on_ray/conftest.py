"""A Ray cluster of two nodes, each with one CPU, on this machine; a model and pictures for it."""

from __future__ import annotations

import secrets
import time
from functools import partial

import pytest
from tiny_run import make_pictures


@pytest.fixture(scope="session")
def cluster(project):
    """Two nodes of one CPU each on this machine; the head is the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray would write one to the home folder
        patch.setenv("RAY_worker_niceness", "0")  # 15 starves them beside other programs
        patch.setenv("RAY_health_check_period_ms", "500")  # a lost node is noticed after 5 of them
        patch.setenv("PYTHONPATH", str(project))
        import ray  # reads the variables
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def lose_node(cluster):
    """Return a function that kills the second node; after the test another one takes its place."""
    yield partial(kill_second, cluster)
    cluster.add_node(num_cpus=1)


@pytest.fixture
def lose_node_in_task(cluster, tmp_path):
    """Return a function that kills the second node, a new one, while it loads the model for its first task."""
    kill_second(cluster)
    cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(tmp_path)})

    def lose():
        end = time.monotonic() + 100
        while not any(tmp_path.iterdir()):
            assert time.monotonic() < end, "the second node has loaded no model"
            time.sleep(0.01)
        kill_second(cluster)
        # The model's files, which a process removes when it has loaded them.
        assert any(tmp_path.iterdir()), "the second node was killed too late"

    yield lose
    cluster.add_node(num_cpus=1)


def kill_second(cluster):
    cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)


@pytest.fixture(scope="session")
def run(exported_run):
    return exported_run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """60 pictures, one that is damaged, a film and a text."""
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), {"some": 20})
    for name in ("bad.jpg", "labels.txt", "film.mov"):
        (folder / "some" / name).write_text("no picture")
    return folder
