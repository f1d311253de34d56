"""Limits of the service: full queues, slow and absent clients, bodies and heads."""

from __future__ import annotations

import gc
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from service_parts import FORM, IMAGE, form, picture, running, wait_until

from paddle_resnet.service import predict, protocol
from paddle_resnet.service.batcher import PendingRequest

pytestmark = pytest.mark.slow


def test_a_full_queue_refuses_with_retry_after(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, max_batch=2, queue=4) as service, ThreadPoolExecutor(4) as threads:
        service.predictor.gate.clear()

        def ask(images=1):
            return httpx.post(f"{service.url}/predict", content=form([picture()] * images), headers=FORM)

        asked = [threads.submit(ask) for _ in range(3)]
        wait_until(lambda: b"paddle_resnet_queue_images 3.0" in httpx.get(f"{service.url}/metrics").content)
        assert ask(images=2).status_code == 429  # the queue holds one more image
        assert ask(images=5).status_code == 413  # the whole queue holds fewer than five
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
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with running(monkeypatch, tmp_path, max_body=1000, max_buffered=1500) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(head + bytes(999))
            # Until the service has read that, it waits for the rest of this one.
            wait_until(lambda: service.application._pipeline._body_limiter._buffered == 999)
            assert service.talk(head + bytes(900)).startswith(b"HTTP/1.1 429 ")
        wait_until(lambda: service.application._pipeline._body_limiter._buffered == 0)
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE).status_code == 200


def test_a_body_of_the_largest_size_is_read(monkeypatch, tmp_path):
    body = picture(size=(40, 40), kind="BMP")
    with running(monkeypatch, tmp_path, max_body=len(body), max_buffered=1000) as service:
        assert len(body) > 1000
        assert httpx.post(f"{service.url}/predict", content=body, headers=IMAGE).status_code == 200
        assert httpx.post(f"{service.url}/predict", content=body + b"0", headers=IMAGE).status_code == 413


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
