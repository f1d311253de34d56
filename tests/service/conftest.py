"""What the service's tests share."""

from __future__ import annotations

import multiprocessing

import pytest

from paddle_resnet.worker_pool import PROCESS_NAME


@pytest.fixture(autouse=True)
def children_without_pools(monkeypatch):
    """Leave out the processes of pools, such as those that decode for all loaders of this process."""
    active = multiprocessing.active_children
    monkeypatch.setattr(
        multiprocessing, "active_children", lambda: [each for each in active() if each.name != PROCESS_NAME]
    )
