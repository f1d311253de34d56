"""The service on a Ray cluster of two nodes, against a predictor in this process."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import pytest

from paddle_resnet.inference import Predictor

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.posix]
CLIENTS = 8


@pytest.fixture(scope="module")
def url(cluster, run):
    from ray import serve

    from paddle_resnet.on_ray.cluster import connect
    from paddle_resnet.on_ray.serve import deploy
    from paddle_resnet.service.settings import Settings

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connect(cluster.address)
    # Two nodes of one machine would share the port, and no load balancer would leave out the lost one.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    deploy(Settings(model=run.path, port=port, device="cpu", explain=False))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def expected(run, pictures):
    """The picture files, and what this process predicts of each."""
    files = sorted(pictures.rglob("*.png"))
    with Predictor(run.path, device="cpu", threads=1) as predictor:
        return dict(zip(files, predictor.predict(files, top_k=2), strict=True))


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


def test_lost_node_loses_no_request(url, expected, lose_node):
    sent = list(islice(cycle(expected), 600))
    with ThreadPoolExecutor(CLIENTS + 1) as clients:
        responses = [clients.submit(fetch, f"{url}/predict?top=2", file.read_bytes()) for file in sent]
        responses[100].result()
        lose_node()
        for file, response in zip(sent, responses, strict=True):
            assert_predicted(response.result(), expected[file])
