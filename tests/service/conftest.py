"""What the service's tests share."""

from __future__ import annotations

import multiprocessing
from functools import partial
from importlib.util import find_spec

import pytest

from paddle_resnet.worker_pool import PROCESS_NAME


@pytest.fixture(autouse=True)
def children_without_pools(monkeypatch):
    """Leave out the processes of pools, such as those that decode for all loaders of this process."""
    active = multiprocessing.active_children
    monkeypatch.setattr(
        multiprocessing, "active_children", lambda: [each for each in active() if each.name != PROCESS_NAME]
    )


@pytest.fixture(autouse=True)
def patient_clients(monkeypatch):
    """Let the functions of httpx wait for longer than 5 s, its default, which a loaded machine may take."""
    if find_spec("httpx") is not None:
        import httpx

        for name in ("get", "head", "options", "post", "request"):
            monkeypatch.setattr(httpx, name, partial(getattr(httpx, name), timeout=60))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with small limits around a classifier in closed form."""
    from service_parts import MAX_BODY, running

    limits = {"max_body": MAX_BODY, "max_images": 30, "max_pixels": 10_000, "queue": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_resnet.service.protocol.UNWANTED_SECONDS", 0.2)
        with running(patch, tmp_path_factory.mktemp("none"), max_batch=8, **limits) as service:
            yield service


@pytest.fixture(scope="module")
def client(service):
    """A client of `service`."""
    import httpx

    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client
