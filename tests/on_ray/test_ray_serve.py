"""The service on a Ray cluster of two nodes, against a predictor in this process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from paddle_resnet.inference import Predictor

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.posix]
CLIENTS = 8


class Service(NamedTuple):
    """The running command, and where it serves."""

    command: subprocess.Popen
    url: str


@pytest.fixture(scope="module")
def service(cluster, run, project, tmp_path_factory):
    from ray import serve

    from paddle_resnet.on_ray.cluster import connect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connect(cluster.address)
    # Two nodes of one machine would share the port, and no load balancer would leave out the lost one.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    command = [sys.executable, project / "tools" / "serve.py", run.path, "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("service") / "log"
    with log.open("w") as written:
        command = subprocess.Popen([*command, "--engine", "ray", "--address", cluster.address], stderr=written)
    end = time.monotonic() + 120
    try:
        while '"event": "ready"' not in log.read_text():
            assert command.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield Service(command, f"http://127.0.0.1:{port}")
    finally:
        command.kill()
        serve.shutdown()


@pytest.fixture
def url(service):
    return service.url


@pytest.fixture(scope="module")
def expected(run, pictures):
    """The picture files, and what this process predicts of each."""
    files = sorted(pictures.rglob("*.png"))
    with Predictor(run.path, device="cpu", threads=1) as predictor:
        return dict(zip(files, predictor.predict(files, top_k=2), strict=True))


@pytest.fixture(scope="module")
def large(run, tmp_path_factory):
    """A picture that takes long to decode, and its prediction: each replica is busy with some of these for a while."""
    file = tmp_path_factory.mktemp("large") / "large.png"
    Image.fromarray(np.random.default_rng(0).choice([0, 255], (3000, 3000)).astype(np.uint8)).save(file)
    with Predictor(run.path, device="cpu", threads=1) as predictor:
        return {file: predictor.predict(file, top_k=2)[0]}


def statuses():
    """Return the status of each deployment of the service."""
    from ray import serve

    return [each for application in serve.status().applications.values() for each in application.deployments.values()]


def fetch(url, data=None):
    """Return the status and the JSON of a response; `data` is the image to post."""
    request = urllib.request.Request(url, data, {"Content-Type": "image/png"} if data else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def assert_predicted(response, prediction):
    status, found = response
    assert status == 200, found
    top = found["predictions"][0]["top"]
    assert [each["class"] for each in top] == [each.label for each in prediction.top]
    assert [each["probability"] for each in top] == pytest.approx([each[1] for each in prediction.top], abs=1e-5)


def test_served_predictions_are_the_predictors(url, expected):
    with ThreadPoolExecutor(CLIENTS) as clients:
        responses = clients.map(lambda file: fetch(f"{url}/predict?top=2", file.read_bytes()), expected)
        for response, prediction in zip(responses, expected.values(), strict=True):
            assert_predicted(response, prediction)


def test_routes_and_errors_are_those_of_the_local_service(url, run):
    status, model = fetch(f"{url}/model")
    assert (status, model["run"], model["explain"]) == (200, run.path.name, False)
    assert fetch(f"{url}/v2/models/{model['model']}/ready") == (200, {"ready": True})
    status, error = fetch(f"{url}/predict", b"no picture")
    assert (status, error["error"]["code"]) == (422, "unreadable_image")
    status, error = fetch(f"{url}/nowhere")
    assert (status, error["error"]["code"]) == (404, "not_found")


def test_lost_node_loses_no_request(url, expected, large, lose_node):
    assert [each.replica_states for each in statuses()] == [{"RUNNING": 2}] * 2
    expected = expected | large
    sent = [*large] * CLIENTS + list(islice(cycle(expected), 200))
    with ThreadPoolExecutor(CLIENTS) as clients:
        responses = [clients.submit(fetch, f"{url}/predict?top=2", file.read_bytes()) for file in sent]
        wait(responses, return_when=FIRST_COMPLETED)
        lose_node()
        for file, response in zip(sent, responses, strict=True):
            assert_predicted(response.result(), expected[file])


@pytest.mark.parametrize("other_port", [False, True])
def test_second_service_on_the_cluster_is_refused(url, cluster, run, tool, other_port):
    port = int(url.rpartition(":")[2]) + other_port
    ended = tool("serve", run.path, "--port", port, "--engine", "ray", "--address", cluster.address)
    assert ended.exit_code == 2
    assert "Ray Serve runs on this cluster already" in ended.stderr
    assert ("--port" in ended.stderr) == other_port


def test_signal_ends_the_service_when_accepted_requests_are_answered(service, large):
    ((file, prediction),) = large.items()
    with ThreadPoolExecutor(CLIENTS) as clients:
        responses = [clients.submit(fetch, f"{service.url}/predict?top=2", file.read_bytes()) for _ in range(CLIENTS)]
        wait(responses, return_when=FIRST_COMPLETED)
        service.command.send_signal(signal.SIGTERM)
        for response in responses:
            assert_predicted(response.result(), prediction)
    assert service.command.wait(60) == 0
    assert not statuses()
