"""Many pictures on a Ray cluster of two nodes, against this process."""

from __future__ import annotations

import csv
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paddle_resnet.inference import Predictor
from paddle_resnet.inference.find_pictures import find_pictures

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.posix]


@pytest.fixture(scope="module")
def local(run, pictures):
    """What this process predicts of them."""
    with Predictor(run.path, device="cpu", threads=1, batch_size=2) as predictor:
        return predictor.predict_files(list(find_pictures([pictures])), top_k=2)


def assert_alike(results, expected):
    assert [getattr(each, "reason", None) for each in results] == [getattr(each, "reason", None) for each in expected]
    results, expected = ([each for each in some if hasattr(each, "top")] for some in (results, expected))
    assert [each.name for each in results] == [each.name for each in expected]
    assert [each.label for each in results] == [each.label for each in expected]
    values = [[[best.probability for best in each.top] for each in some] for some in (results, expected)]
    np.testing.assert_allclose(*values, atol=1e-6)


def predict_on(cluster, run, pictures):
    from paddle_resnet.on_ray.predict import ray_tasks  # takes seconds, also where these tests are left out

    results, skipped = [], Counter()
    options = {"device": "cpu", "batch_size": 1, "threshold": None, "precision": None, "backend": None}
    with ray_tasks(run.path / "inference", cluster.address, 1, 2, skipped, **options) as predict:
        for some in predict([[str(pictures)]]):
            results += some
    assert skipped == {".mov": 1}
    return results


def test_nodes_predict_each_picture_as_this_process(cluster, run, pictures, local):
    assert_alike(predict_on(cluster, run, pictures), local)


def test_lost_node_loses_and_repeats_no_picture(cluster, run, pictures, local, lose_node_in_task):
    with ThreadPoolExecutor(1) as thread:
        losing = thread.submit(lose_node_in_task)
        assert_alike(predict_on(cluster, run, pictures), local)
        losing.result()


def test_command_writes_what_the_local_engine_writes(cluster, run, pictures, tool, tmp_path, monkeypatch):
    from pyarrow import parquet

    monkeypatch.chdir(pictures)
    ended = {}
    for engine, options in {"local": (), "ray": ("--engine", "ray", "--address", cluster.address)}.items():
        files = [f"--{kind}={tmp_path / engine}.{kind}" for kind in ("csv", "json-lines", "parquet")]
        ended[engine] = tool("predict", run.path, "some", "--threads", 1, "--quiet", "--top-k", 2, *files, *options)
    assert (ended["local"].exit_code, ended["ray"].exit_code) == (1, 1)
    for line in ("some/bad.jpg: ", "1 of 61 pictures could not be read", "1 file is left out by suffix: 1 .mov"):
        assert line in ended["local"].stderr and line in ended["ray"].stderr
    expected, found = (list(csv.reader((tmp_path / f"{engine}.csv").open())) for engine in ended)
    tables = [parquet.read_table(tmp_path / f"{engine}.parquet").to_pydict() for engine in ended]
    lines = [json.loads(line) for line in (tmp_path / "ray.json-lines").read_text().splitlines()]
    from_json = [[line["file"], *(value for best in line["top"] for value in best.values())] for line in lines]
    from_parquet = ([[*table], *zip(*table.values(), strict=True)] for table in tables)
    for rows in (found, [expected[0], *from_json], *from_parquet):
        assert rows[0] == expected[0] == ["file", "class", "probability", "class_2", "probability_2"]
        for row, expected_row in zip(rows[1:], expected[1:], strict=True):
            assert [row[0], row[1], row[3]] == [expected_row[0], expected_row[1], expected_row[3]]
            assert [float(row[2]), float(row[4])] == pytest.approx([*map(float, expected_row[2::2])], abs=2e-6)


def test_errors_of_a_node_are_those_of_this_machine(cluster, run, pictures, tool):
    common = ("predict", run.path, pictures, "--quiet", "--device", "cpu", "--backend", "onnxruntime")
    here, there = tool(*common), tool(*common, "--engine", "ray", "--address", cluster.address)
    assert (here.exit_code, there.exit_code) == (2, 2)
    told = ": holds no ONNX model of fp32; export the run again with --onnx"
    assert told in here.stderr and told in there.stderr


def test_more_threads_than_a_node_has_are_refused(cluster, run, pictures, tool):
    ended = tool("predict", run.path, pictures, "--threads", 2, "--engine", "ray", "--address", cluster.address)
    assert ended.exit_code == 2 and "no node of the cluster has 2 CPU" in ended.stderr


def test_command_without_a_cluster_says_how_to_start_one(run, pictures, tool):
    import ray

    ray.shutdown()
    ended = tool("predict", run.path, pictures, "--engine", "ray", "--address", "127.0.0.1:1")
    assert ended.exit_code == 2
    assert "--address 127.0.0.1:1: no Ray cluster" in ended.stderr and "ray start --head" in ended.stderr


def test_ray_that_does_not_start_is_one_line(run, pictures, tool, monkeypatch):
    import ray

    def start(**options):
        raise Exception("The current node timed out during startup.\nA second line.")

    ray.shutdown()
    monkeypatch.setattr(ray, "init", start)
    ended = tool("predict", run.path, pictures, "--engine", "ray")
    assert ended.exit_code == 1
    assert "Ray did not start (The current node timed out during startup.)" in ended.stderr
    assert "a fault of the program" not in ended.stderr and "second line" not in ended.stderr
