"""The service over real connections, with a classifier in closed form: predictions, errors, limits, faults."""

from __future__ import annotations

import base64
import contextlib
import gc
import io
import json
import logging
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from service_parts import CLASSES, FORM, SIZE, form, picture, running, shares

import paddle_resnet
from paddle_resnet.service import predict, protocol
from paddle_resnet.service.batcher import PendingRequest
from paddle_resnet.service.telemetry import JsonFormatter
from paddle_resnet.service.worker_process import BoundedDecoder, ImageResult, ImageStatus

pytestmark = pytest.mark.slow

MAX_BODY = 100_000


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def service(patch, tmp_path_factory):
    patch.setattr(protocol, "UNWANTED_SECONDS", 0.2)
    limits = {"max_body": MAX_BODY, "max_images": 30, "max_pixels": 10_000, "queue": 64}
    with running(patch, tmp_path_factory.mktemp("none"), max_batch=8, **limits) as service:
        yield service


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def expected(colour):
    """Return the ranked classes of a picture of one colour."""
    scores = shares(np.full((1, SIZE, SIZE, 3), colour, np.uint8))[0]
    return sorted(zip(CLASSES, scores.tolist(), strict=True), key=lambda each: -each[1])


def assert_is(prediction, colour):
    found = [(each["class"], each["probability"]) for each in prediction["top"]]
    for (name, share), (its_name, its_share) in zip(found, expected(colour), strict=True):
        assert name == its_name and share == pytest.approx(its_share, abs=2e-6)


IMAGE = {"Content-Type": "image/png"}

# --- predictions


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


@pytest.mark.parametrize("top", ["0", "-1", "1.5", "%C2%B2", "five", "", "9" * 5000])
def test_a_wrong_top_is_refused(client, top):
    response = client.post(f"/predict?top={top}", content=picture(), headers=IMAGE)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_parameter")


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


# --- errors


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra):
    """A PNG that says its size, and has no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JSON = {"Content-Type": "application/json"}
DEEP = b'{"images": ' + 20_000 * b"[" + 20_000 * b"]" + b"}"
TEXT_BOMB = png(9, 9, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000), 9)))

ERRORS = {
    "no type": ({}, b"abc", 415, "unsupported_type"),
    "a form of fields": ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415, "unsupported_type"),
    "compressed": ({**IMAGE, "Content-Encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_type"),
    "nothing": (IMAGE, b"", 422, "unreadable_image"),
    "a text": (IMAGE, b"a text", 422, "unreadable_image"),
    "half a picture": (IMAGE, picture(size=(90, 90))[:90], 422, "unreadable_image"),
    "a format of no browser": (IMAGE, picture(kind="TIFF"), 422, "unreadable_image"),
    "PostScript": (IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "unreadable_image"),
    "too many pixels": (IMAGE, picture(size=(101, 100)), 422, "image_too_large"),
    "a bomb": (IMAGE, png(60_000, 60_000), 422, "image_too_large"),
    "a zip bomb in a text": (IMAGE, TEXT_BOMB, 422, "unreadable_image"),
    "no parts": (FORM, b"--x7--\r\n", 400, "no_image"),
    "no boundary": ({"Content-Type": "multipart/form-data"}, form([picture()]), 400, "malformed_body"),
    "another boundary": (FORM, form([picture()], boundary=b"y8"), 400, "malformed_body"),
    "a form cut short": (FORM, form([picture()])[:-9], 400, "malformed_body"),
    "too many parts": (FORM, form([b""] * 31), 413, "too_many_images"),
    "one part is no picture": (FORM, form([picture(), b"text"]), 422, "unreadable_image"),
    "no JSON": (JSON, b"{", 400, "malformed_body"),
    "deep JSON": (JSON, DEEP, 400, "malformed_body"),
    "JSON that is no object": (JSON, b'["YQ=="]', 400, "malformed_body"),
    "other JSON": (JSON, b'{"images": [1]}', 400, "malformed_body"),
    "unknown keys": (JSON, b'{"images": ["YQ=="], "path": "/etc/passwd"}', 400, "malformed_body"),
    "no base64": (JSON, b'{"images": ["***"]}', 400, "malformed_body"),
    "too many in JSON": (JSON, json.dumps({"images": ["YQ=="] * 31}).encode(), 413, "too_many_images"),
    "announced too large": (IMAGE, bytes(MAX_BODY + 1), 413, "body_too_large"),
}


@pytest.mark.parametrize(("headers", "body", "status", "code"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_its_code(client, headers, body, status, code):
    response = client.post("/predict", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    message = response.json()["error"]["message"]
    for known in ("multipart/form-data", "application/json", "/docs"):
        message = message.replace(known, "")
    assert "/" not in message
    assert client.post("/predict", content=picture(), headers=IMAGE).status_code == 200


def test_the_bad_image_is_numbered(client):
    error = client.post("/predict", content=form([picture(), picture(), b"text"]), headers=FORM).json()["error"]
    assert error["image"] == 2


@pytest.fixture
def clock_at_rest(monkeypatch):
    """Processor time that does not pass: an image is refused for what its header predicts alone."""
    monkeypatch.setattr("paddle_resnet.service.worker_process.time.thread_time", lambda: 0.0)


def test_a_jpeg_of_many_scans_is_refused(clock_at_rest):
    """Each scan of a progressive one goes over all pixels, and an empty one takes 31 bytes."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.rindex(b"\xff\xda") : data.rindex(b"\xff\xd9")]
    repeated = data[: data.rindex(b"\xff\xd9")] + 100 * scan + b"\xff\xd9"
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000, max_seconds=1e-3)
    assert decoder.decode(data).shape == (8, 8, 3)
    assert decoder.decode(repeated).status is ImageStatus.TOO_SLOW
    with_a_film = data + 150 * b"\xff\xda\x00\x00"  # behind the picture, as a telephone's
    assert decoder.decode(with_a_film).shape == (8, 8, 3)


def test_an_image_with_damaged_metadata_is_read(client):
    """EXIF that is none, and a text beyond Pillow's limits."""
    exif = b"\xff\xe1\x00\x10Exif\0\0nonsense"
    text = b"key\0\0" + zlib.compress(bytes(2 << 20))
    text = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    jpeg, png = picture(kind="JPEG"), picture(kind="PNG")
    damaged = [jpeg[:20] + exif + jpeg[20:], png[:33] + text + png[33:]]
    assert client.post("/predict", content=form(damaged), headers=FORM).status_code == 200


def test_decoding_stops_at_its_time_limit(monkeypatch):
    """Each look at the clock takes 10 ms: a file of thousands of little blocks has many."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("paddle_resnet.service.worker_process.time.thread_time", lambda: 0.01 * next(ticks))
    data = picture(kind="GIF")
    comments = data[:13] + data[13 : data.index(b",")] + 5000 * b"!\xfe\x01a\0" + data[data.index(b",") :]
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000, max_seconds=1.5)
    assert decoder.decode(data).shape == (8, 8, 3)
    assert decoder.decode(comments).status is ImageStatus.TOO_SLOW
    assert decoder.decode(comments, cheap_only=True) == ImageResult(ImageStatus.COSTLY)


def test_a_slow_image_is_costly(clock_at_rest):
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000_000, max_seconds=1.5)
    large = picture(size=(2000, 2000))
    result = decoder.decode(large, cheap_only=True)
    assert result.status is ImageStatus.COSTLY
    assert decoder.decode(large).shape == (8, 8, 3)
    assert decoder.decode(picture(size=(2000, 2000), kind="JPEG"), cheap_only=True).shape == (8, 8, 3)


def test_names_are_not_echoed(client):
    hostile = b"../../etc/passwd<script>"
    response = client.post("/predict", content=form([b"text"], filename=hostile, name=hostile), headers=FORM)
    assert response.status_code == 422
    assert b"passwd" not in response.content and b"script" not in response.content


def test_a_large_chunked_body_is_refused_early(service):
    """Without a Content-Length: the response comes before the body is complete."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    response = service.talk(head, *[piece] * 7)
    assert response.startswith(b"HTTP/1.1 413 ") and b"body_too_large" in response


@pytest.mark.parametrize("announced", [b"50", b"-5", b"1" * 400, b"abc"])
def test_a_wrong_content_length(monkeypatch, tmp_path, announced):
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %s\r\n\r\nabc"
        % announced
    )
    with running(monkeypatch, tmp_path, max_body=MAX_BODY, body_timeout=0.3) as service:
        response = service.talk(head)
    assert response.split(b" ")[1] in (b"400", b"408", b"413")


@pytest.mark.parametrize("address", ["/", "/docs", "/static/index.js"])
@pytest.mark.parametrize("asked", ["bytes=0-5", "bytes=9-2", "bytes=99999999-", "bytes=x", "x"])
def test_pages_are_sent_whole(client, address, asked):
    response = client.get(address, headers={"Range": asked})
    assert (response.status_code, response.content) == (200, client.get(address).content)


def test_a_malformed_form_has_no_other_log_line_than_its_request(project):
    program = (
        "import json\nfrom paddle_resnet.service import request_body, telemetry\ntelemetry.configure_logging()\n"
        "try:\n    request_body.split_body(b'hello', 'multipart/form-data; boundary=x', 3)\n"
        "except request_body.ServiceError as error:\n    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("malformed_body\n", "")


def test_unknown_addresses_and_methods(client):
    assert client.get("/nowhere").json()["error"]["code"] == "not_found"
    response = client.get("/predict")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert client.get("/model").json()["explain"] is False
    response = client.post("/explain", content=picture(), headers=IMAGE)
    assert response.status_code == 404 and "--no-explain or on Ray" in response.json()["error"]["message"]


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


# --- limits


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def test_a_full_queue_refuses_with_retry_after(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, max_batch=2, queue=4) as service, ThreadPoolExecutor(4) as threads:
        service.predictor.gate.clear()

        def ask(images=1):
            return httpx.post(f"{service.url}/predict", content=form([picture()] * images), headers=FORM)

        asked = [threads.submit(ask) for _ in range(3)]
        wait_until(lambda: b"paddle_resnet_queue_images 3.0" in httpx.get(f"{service.url}/metrics").content)
        assert ask(images=2).status_code == 429  # there is room for one
        assert ask(images=5).status_code == 413  # there never is room for five
        asked.append(threads.submit(ask))
        wait_until(lambda: b"paddle_resnet_queue_images 4.0" in httpx.get(f"{service.url}/metrics").content)
        refused = ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        service.predictor.gate.set()
        assert [each.result().status_code for each in asked] == [200] * 4
        assert ask(images=4).status_code == 200


def test_the_bytes_of_all_bodies_are_bounded(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, max_buffered=1000) as service:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 2000\r\n\r\n"
        response = service.talk(head + bytes(1500))
        assert response.startswith(b"HTTP/1.1 429 ")
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE).status_code == 200


def test_a_slow_response_times_out(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, response_timeout=0.2) as service:
        service.predictor.gate.clear()
        response = httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        assert response.headers["Retry-After"] == "1"
        service.predictor.gate.set()
        wait_until(lambda: b"paddle_resnet_queue_images 0.0" in httpx.get(f"{service.url}/metrics").content)
        ask = partial(httpx.post, f"{service.url}/predict", content=picture(), headers=IMAGE)
        wait_until(lambda: ask().status_code == 200)


@pytest.mark.parametrize("requests", [1, 3])
def test_requests_of_a_client_that_left_are_dropped(monkeypatch, tmp_path, requests):
    monkeypatch.setattr(predict, "DISCONNECT_CHECK_SECONDS", 0.02)
    with running(monkeypatch, tmp_path, max_batch=2) as service:
        service.predictor.gate.clear()
        body = form([picture()] * 20)
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(requests * (head % (FORM["Content-Type"].encode(), len(body)) + body))
            wait_until(lambda: b"paddle_resnet_queue_images 20.0" in httpx.get(f"{service.url}/metrics").content)
            # Reset: a client that closes in order may have closed one side, and wait for its response.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: b"paddle_resnet_queue_images 0.0" in httpx.get(f"{service.url}/metrics").content)
        service.predictor.gate.set()
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE).status_code == 200
        assert sum(service.predictor.batches) <= 5  # the two batches that were under way, and its own
        assert b'paddle_resnet_refusals_total{code="gone"} 1.0' in httpx.get(f"{service.url}/metrics").content
    assert [line.getMessage() for line in service.lines if line.levelname == "ERROR"] == []


@pytest.mark.parametrize("body", [b"text", picture()])
def test_a_body_is_freed_with_its_response(service, client, body):
    """Without the garbage collector, which may never run for it."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            client.post("/predict", content=body, headers=IMAGE)
        wait_until(lambda: not [each for each in gc.get_objects() if isinstance(each, PendingRequest)])
    finally:
        gc.enable()


def test_a_slow_body_times_out(monkeypatch, tmp_path):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 50\r\n\r\n"
    with running(monkeypatch, tmp_path, body_timeout=0.3) as service:
        response = service.talk(head, b"a", b"b", pause=0.05)
    assert response.startswith(b"HTTP/1.1 408 ") and b"slow_body" in response


def test_slow_and_large_heads_are_refused(service, monkeypatch):
    large = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: " + bytes([97]) * 40_000
    assert service.talk(large, b"a" * 40_000, pause=0.05).startswith(b"HTTP/1.1 431 ")
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "HEAD_SECONDS", 0.3)
        assert service.talk(b"GET /healthz HTTP/1.1\r\nX: ") == b""
        assert service.talk() == b""
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert service.talk(whole).startswith(b"HTTP/1.1 200 ")


def test_an_unread_body_does_not_hold_a_connection(service, monkeypatch):
    monkeypatch.setattr(protocol, "UNWANTED_SECONDS", 0.3)
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    assert service.talk(head, b"a").startswith(b"HTTP/1.1 404 ")  # `talk` returns once the connection is closed


# --- headers, log, metrics


@pytest.mark.parametrize(("sent", "kept"), [("order-7.A_b", True), ("a b", False), ("x" * 65, False), ("é", False)])
def test_request_ids(client, sent, kept):
    found = client.get("/healthz", headers={"X-Request-ID": sent.encode("latin-1")}).headers["X-Request-ID"]
    assert (found == sent) if kept else (len(found) == 32 and found != sent)


def test_security_headers(client):
    headers = client.post("/predict", content=picture(), headers=IMAGE).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "server" not in headers and "access-control-allow-origin" not in headers


def test_an_internal_error_is_logged_and_does_not_leak(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path) as service:
        service.predictor.fault = RuntimeError("secret of /home/somebody")
        response = httpx.post(f"{service.url}/predict", content=picture(), headers={**IMAGE, "X-Request-ID": "abc"})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in response.text and "Traceback" not in response.text
        service.predictor.fault = None
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE).status_code == 200
    (line,) = [line for line in service.lines if line.getMessage() == "internal error"]
    written = json.loads(JsonFormatter().format(line))
    assert written["request_id"] == "abc" and "secret of /home/somebody" in written["traceback"]


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
        httpx.get(f"{service.url}/a/path/of/the/client")
        text = httpx.get(f"{service.url}/metrics").text
    assert "\npaddle_resnet_images_total 6.0\n" in text
    assert '\npaddle_resnet_requests_total{route="/predict",status="200"} 1.0\n' in text
    assert '\npaddle_resnet_requests_total{route="other",status="404"} 1.0\n' in text
    assert "of/the/client" not in text
    assert "\npaddle_resnet_batch_images_sum 6.0\n" in text


def test_a_draining_service_is_not_ready_and_closes_connections(service, client, monkeypatch):
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(service.application, "draining", True)
    response = client.get("/readyz")
    assert (response.status_code, response.json(), response.headers["Connection"]) == (
        503,
        {"status": "draining"},
        "close",
    )
    assert client.post("/predict", content=picture(), headers=IMAGE).status_code == 200
