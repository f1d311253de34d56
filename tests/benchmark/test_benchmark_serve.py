"""The load on a service: the address that it is sent to, and a service that refuses everything."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

pytest.importorskip("httptools", reason="httptools (requirements/serve.txt) is not installed")

from paddle_resnet.benchmark.serve.load import Target
from paddle_resnet.benchmark.serve.report import LoadCase, benchmark_service, http_requests
from paddle_resnet.errors import RunFailure

pytestmark = pytest.mark.slow


class RefusingService(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hosts: ClassVar[set[str | None]] = set()

    def respond(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.respond(200, json.dumps({"model": "resnet8", "image_size": 8}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.hosts.add(self.headers["Host"])
        self.respond(429, b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_a_service_without_any_success_is_no_measurement(monkeypatch):
    """It is found although a proxy is set, which the load does not use."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusingService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(RunFailure, match=rf"{url}: no request got a 200 response, but \d+ x 429, lost -"):
            benchmark_service(url, [LoadCase(1, 1)], rounds=1, seconds=0.2)
    finally:
        server.shutdown()
        server.server_close()
    assert RefusingService.hosts == {f"127.0.0.1:{server.server_port}"}


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (Target("::1", 8000), b"[::1]:8000"),
        (Target("::1", 80), b"[::1]"),
        (Target("example.org", 80), b"example.org"),
        (Target("example.org", 8000), b"example.org:8000"),
    ],
)
def test_the_host_of_a_request_is_that_of_rfc_9110(target, host):
    (request,) = http_requests(target, [b"picture"], 1)
    assert f"\r\nHost: {host.decode()}\r\n".encode() in request
