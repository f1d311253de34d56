"""Some hundred hostile requests to a service with small limits: no 5xx, no hang, and it still works afterwards."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from service_fuzz import faults, fuzz, hostile_request
from service_parts import picture, running

pytestmark = pytest.mark.slow

REQUESTS = 200


def test_hostile_requests_neither_break_nor_stop_the_service(monkeypatch, tmp_path):
    limits = {"max_body": 300_000, "max_pixels": 1_000_000, "max_images": 20, "body_timeout": 1.0}
    with running(monkeypatch, tmp_path, **limits) as service:
        ends = fuzz("127.0.0.1", service.port, range(REQUESTS))
        assert faults(ends) == {}
        assert {200, 400, 413, 422} <= ends.keys()  # the requests reach every depth
        response = httpx.post(f"{service.url}/predict", content=picture(), headers={"Content-Type": "image/png"})
        assert response.status_code == 200
        assert "\npaddle_resnet_queue_images 0.0\n" in httpx.get(f"{service.url}/metrics").text
    assert [line.getMessage() for line in service.lines if line.levelname == "ERROR"] == []


def test_requests_are_the_same_in_every_run():
    assert hostile_request(7) == hostile_request(7) != hostile_request(8)
