"""A predictor's number of threads: it follows the load of the machine, and the model is held once."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import ClassVar

import numpy as np
import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.inference import backends
from paddle_resnet.inference.backends import AdaptiveBackend
from paddle_resnet.system import threads


class Model:
    """Returns its number of threads as its scores."""

    alive: ClassVar[weakref.WeakSet[Model]] = weakref.WeakSet()
    most_alive = 0
    is_lost = False

    def __init__(self, number: int) -> None:
        if Model.is_lost:
            raise UsageError("model.onnx: no such file")
        self._number = number
        Model.alive.add(self)
        Model.most_alive = max(Model.most_alive, len(Model.alive))

    def run(self, batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), 1), self._number, np.float32)


class Machine:
    """The load of other programs, in cores, and the number of threads that is fastest beside it."""

    def __init__(self) -> None:
        self.load, self.fastest = 0.0, 4

    def measure(self, works):
        for number, work in works.items():
            assert work().tolist() == [[number]] * 3
        seconds = {number: 1.0 + abs(number - self.fastest) for number in works}
        return min(works, key=seconds.__getitem__), seconds


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(threads.OtherPrograms, "cores", lambda others: machine.load)
    monkeypatch.setattr(backends, "fastest", machine.measure)
    for seconds in ("LOOK_SECONDS", "LOOK_CALLS"):
        monkeypatch.setattr(backends, seconds, 0)
    for share in ("SHARE", "SHARE_OF_CHANGE"):
        monkeypatch.setattr(threads, share, 0)
    monkeypatch.setattr(Model, "is_lost", False)
    monkeypatch.setattr(Model, "most_alive", 0)
    return machine


def number_in_use(backend: AdaptiveBackend) -> int:
    batch = np.zeros((3, 1, 1, 3), np.uint8)
    backend.run(batch)  # it looks at the load after a run
    (number,) = {*backend.run(batch)[:, 0].tolist()}
    return int(number)


def test_the_fastest_number_follows_the_load(machine, caplog):
    caplog.set_level(logging.INFO, logger="paddle_resnet")
    backend = AdaptiveBackend(Model, [4, 3, 2, 1])
    assert number_in_use(backend) == 4
    for machine.fastest in (1, 3, 4, 2):
        machine.load = 1.0
        assert number_in_use(backend) == machine.fastest
    machine.load = 0.0
    assert number_in_use(backend) == 4
    gc.collect()
    assert len(Model.alive) == 1
    assert Model.most_alive == 2
    assert "threads: 4 instead of 2 (other programs use 0.00 cores)" in caplog.text


def test_a_lost_model_leaves_the_number_as_it_is(machine, caplog):
    backend = AdaptiveBackend(Model, [4, 1])
    Model.is_lost, machine.load, machine.fastest = True, 1.0, 1
    assert number_in_use(backend) == 4
    assert "threads stay 4, as the model cannot be loaded again: model.onnx: no such file" in caplog.text
    caplog.clear()
    Model.is_lost = False  # too late: it is said once, and not tried again
    assert number_in_use(backend) == 4
    assert caplog.text == ""
