"""The service over real connections, with a classifier in closed form: predictions, documents, log lines, metrics."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from service_parts import CLASSES, FORM, IMAGE, SIZE, form, picture, running, shares, wait_until

import paddle_resnet
from paddle_resnet.service.telemetry import JsonFormatter

pytestmark = pytest.mark.slow


def expected(colour):
    """Return the ranked classes of a picture of one colour."""
    scores = shares(np.full((1, SIZE, SIZE, 3), colour, np.uint8))[0]
    return sorted(zip(CLASSES, scores.tolist(), strict=True), key=lambda each: -each[1])


def assert_is(prediction, colour):
    found = [(each["class"], each["probability"]) for each in prediction["top"]]
    for (name, share), (its_name, its_share) in zip(found, expected(colour), strict=True):
        assert name == its_name and share == pytest.approx(its_share, abs=2e-6)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_an_image_as_the_body(client, kind):
    body = picture((10, 60, 220), kind=kind, **({"lossless": True} if kind == "WEBP" else {}))
    response = client.post("/predict", content=body, headers={"Content-Type": "image/unknown"})
    assert response.status_code == 200
    (prediction,) = response.json()["predictions"]
    assert_is(prediction, (10, 60, 220))


def test_a_doubtful_image_is_of_an_unknown_class(client):
    """The shares of (90, 80, 85) are 0.353 and less, those of (10, 60, 220) up to 0.759; the threshold is 0.4."""
    for colour, label in (((90, 80, 85), "unknown"), ((10, 60, 220), "blue")):
        (prediction,) = client.post("/predict", content=picture(colour), headers=IMAGE).json()["predictions"]
        assert prediction["class"] == label
        assert_is(prediction, colour)
        text = base64.b64encode(picture(colour)).decode()
        tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
        outputs = client.post("/v2/models/colours/infer", json={"inputs": [tensor]}).json()["outputs"]
        assert {"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]} in outputs
    assert client.get("/model").json()["threshold"] == 0.4


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_no_coding_is_no_compression(client, coding):
    response = client.post("/predict", content=picture(), headers={**IMAGE, "Content-Encoding": coding})
    assert response.status_code == 200


def test_images_of_a_form_keep_their_order(client):
    colours = [(10 * i, 255 - 8 * i, 100) for i in range(25)]
    files = [("images", (f"{i}.png", picture(colour))) for i, colour in enumerate(colours)]
    response = client.post("/predict", files=files).json()
    assert response["model"] == "colours"
    assert [each["image"] for each in response["predictions"]] == list(range(25))
    for prediction, colour in zip(response["predictions"], colours, strict=True):
        assert_is(prediction, colour)


def test_images_as_base64_in_json(client):
    colours = [(250, 3, 3), (3, 3, 250)]
    images = [base64.b64encode(picture(colour)).decode() for colour in colours]
    response = client.post("/predict", json={"images": images})
    for prediction, colour in zip(response.json()["predictions"], colours, strict=True):
        assert_is(prediction, colour)


def test_top_is_how_many_classes_are_ranked(client):
    for top, ranked in ((1, 1), (2, 2), (9, 3)):
        response = client.post(f"/predict?top={top}", content=form([picture()]), headers=FORM)
        assert len(response.json()["predictions"][0]["top"]) == ranked
    response = client.post("/predict?top=0", content=form([picture()]), headers=FORM)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("query", ["top=2", "top=2&other=1", "other=1&top=2", "top=%32", "top=02"])
def test_queries_may_be_written_in_many_ways(client, query):
    response = client.post(f"/predict?{query}", content=picture((10, 60, 220)), headers=IMAGE)
    usual = client.post("/predict", content=picture((10, 60, 220)), headers=IMAGE)
    assert response.json()["predictions"][0]["top"] == usual.json()["predictions"][0]["top"][:2]
    assert response.headers.keys() == usual.headers.keys()
    bad = client.post(f"/predict?{query}", content=b"text", headers=IMAGE)
    assert (bad.status_code, bad.json()) == (422, client.post("/predict", content=b"text", headers=IMAGE).json())


def test_concurrent_requests_share_batches(service):
    service.predictor.gate.clear()
    del service.predictor.batches[:]
    colours = [(i, 100, 255 - i) for i in range(0, 240, 10)]

    def ask(colour):
        return httpx.post(f"{service.url}/predict", content=picture(colour), headers={"Content-Type": "image/png"})

    with ThreadPoolExecutor(len(colours)) as threads, contextlib.ExitStack() as finally_:
        finally_.callback(service.predictor.gate.set)
        asked = [threads.submit(ask, colour) for colour in colours]
        wait_until(lambda: b"paddle_resnet_queue_images 24.0" in httpx.get(f"{service.url}/metrics").content)
        service.predictor.gate.set()
        for response, colour in zip(asked, colours, strict=True):
            assert_is(response.result().json()["predictions"][0], colour)
    assert sum(service.predictor.batches) == 24 and max(service.predictor.batches) == 8


@pytest.mark.parametrize("address", ["/", "/docs", "/static/index.js"])
@pytest.mark.parametrize("asked", ["bytes=0-5", "bytes=9-2", "bytes=99999999-", "bytes=x", "x"])
def test_pages_are_sent_whole(client, address, asked):
    response = client.get(address, headers={"Range": asked})
    assert (response.status_code, response.content) == (200, client.get(address).content)


def test_every_documented_address_takes_its_method(client):
    document = client.get("/openapi.json").json()
    assert {"/predict", "/explain", "/model", "/healthz", "/readyz", "/metrics", "/v2"} <= document["paths"].keys()
    assert document["info"]["version"] == paddle_resnet.__version__
    for path, methods in document["paths"].items():
        for method in methods:
            response = client.request(method, path.format(name="colours"))
            assert response.status_code not in (404, 405, 500) or path == "/explain"


def test_every_address_documents_its_refusals(client):
    """Of those of the Open Inference Protocol, an error is a text."""
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, details in methods.items():
            response = client.request(method, path.format(name="colours"), headers={"Host": "example.org"})
            documented = details["responses"].get(str(response.status_code), details["responses"]["default"])
            name = documented["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            error = document["components"]["schemas"][name]["properties"]["error"]
            assert response.status_code == 403
            assert isinstance(response.json()["error"], str) is (error.get("type") == "string"), path


@pytest.mark.parametrize(("sent", "kept"), [("order-7.A_b", True), ("a b", False), ("x" * 65, False), ("é", False)])
def test_request_ids(client, sent, kept):
    found = client.get("/healthz", headers={"X-Request-ID": sent.encode("latin-1")}).headers["X-Request-ID"]
    assert (found == sent) if kept else (len(found) == 32 and found != sent)


def test_security_headers(client):
    headers = client.post("/predict", content=picture(), headers=IMAGE).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "server" not in headers and "access-control-allow-origin" not in headers


def test_each_request_is_logged(service, client):
    client.post("/predict", content=form([picture()] * 3), headers={**FORM, "X-Request-ID": "three"})
    client.post("/predict", content=b"text", headers={**IMAGE, "X-Request-ID": "none"})
    client.get("/healthz", headers={"X-Request-ID": "quiet"})
    wait_until(lambda: any("none" in str(getattr(line, "fields", "")) for line in service.lines))
    lines = [json.loads(JsonFormatter().format(line)) for line in service.lines if line.levelno == logging.INFO]
    by_id = {line.get("request_id"): line for line in lines}
    common = {"event": "request", "level": "info", "method": "POST", "route": "/predict"}
    assert {**common, "status": 200, "images": 3}.items() <= by_id["three"].items()
    assert {**common, "status": 422, "code": "unreadable_image"}.items() <= by_id["none"].items()
    assert "quiet" not in by_id


def test_metrics_count_requests_and_images(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, max_batch=4) as service:
        httpx.post(f"{service.url}/predict", content=form([picture()] * 6), headers=FORM)
        httpx.post(f"{service.url}/predict", content=b"text", headers=IMAGE)
        httpx.get(f"{service.url}/a/path/of/the/client")
        text = httpx.get(f"{service.url}/metrics").text
    assert "\npaddle_resnet_images_total 6.0\n" in text
    assert '\npaddle_resnet_requests_total{route="/predict",status="200"} 1.0\n' in text
    assert '\npaddle_resnet_requests_total{route="other",status="404"} 1.0\n' in text
    assert "of/the/client" not in text
    assert "\npaddle_resnet_batch_images_sum 7.0\n" in text  # the unreadable one was in a batch, but has no prediction


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/v2/health/ready", "/v2/health/ready"),
        ("GET", "/v2/models/colours/ready", "/v2/models/{name}/ready"),
        ("GET", "/v2/models/other/versions/1/ready", "/v2/models/{name}/versions/{version}/ready"),
        ("POST", "/v2/models/colours/infer", "/v2/models/{name}/infer"),
        ("GET", "/predict", "/predict"),  # 405
        ("GET", "/static/index.js", "/static"),
        ("GET", "/static/a/path/of/the/client", "/static"),
        ("GET", "/v2/health/ready/", "other"),
    ],
)
def test_the_route_of_a_request_is_the_one_that_matched(service, client, method, path, route):
    counted = partial(service.application.metrics.registry.get_sample_value, "paddle_resnet_requests_total")
    labels = {"route": route, "status": str(client.request(method, path).status_code)}
    wait_until(lambda: counted(labels) is not None)
    before = counted(labels)
    client.request(method, path)
    wait_until(lambda: counted(labels) > before)


def test_probes_of_kserve_are_not_logged(service, client):
    client.get("/v2/health/ready", headers={"X-Request-ID": "probe"})
    client.get("/v2", headers={"X-Request-ID": "after"})
    logged = lambda name: any(getattr(line, "fields", {}).get("request_id") == name for line in service.lines)  # noqa: E731
    wait_until(lambda: logged("after"))
    assert not logged("probe")
