"""The number of threads: what is measured, what is taken, and that oneDNN follows a change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from functools import partial

import numpy as np
import paddle
import psutil
import pytest
from paddle import nn

from paddle_resnet import onednn
from paddle_resnet.onednn.layers import Convolution
from paddle_resnet.system import threads


@pytest.mark.parametrize(("cores", "expected"), [(1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (8, [8, 7, 4, 1])])
def test_candidates(cores, expected):
    assert threads.candidates(cores) == expected


def test_the_load_of_other_programs(monkeypatch):
    """In ten seconds on two processors, this process computed for 8 and others for 6."""
    readings = [(0.0, 100.0, 1.0), (10.0, 114.0, 9.0), (12.0, 116.0, 11.0)]
    monkeypatch.setattr(threads.OtherPrograms, "_read", staticmethod(lambda: readings.pop(0)))
    others = threads.OtherPrograms()
    assert others.cores() == pytest.approx(0.6)
    assert others.cores() == 0


def test_the_load_is_seen_at_once_though_systems_count_in_steps(monkeypatch):
    """A program is busy, and one asks 2 ms after the first look. Linux counts in steps of 10 ms, Windows of 16."""
    clock = [0.002]

    def advance(seconds):
        clock[0] += seconds

    monkeypatch.setattr(threads, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(threads, "sleep", advance)
    for step in (0.01, 0.0156):
        monkeypatch.setattr(
            threads.OtherPrograms, "_read", staticmethod(lambda step=step: (clock[0], clock[0] // step * step, 0.0))
        )
        others = threads.OtherPrograms()
        advance(0.002)
        assert others.cores() == pytest.approx(1, abs=0.1)
        before = clock[0]
        assert others.cores() == pytest.approx(1, abs=0.1)
        assert clock[0] == before, "only the first look waits"


def test_own_processes_are_no_other_programs(monkeypatch):
    """Of 30 busy seconds in ten, this process computed for 4, a running child for 9, one that has ended for 5."""
    seconds = {"self": [(1.0, 0.5, 0.0, 0.0), (4.0, 1.5, 4.0, 1.0)], "child": [(2.0, 0.0, 0, 0), (9.0, 1.0, 1.0, 0)]}
    clock, busy = iter([0.0, 10.0, 10.0]), iter([100.0, 130.0])

    class Process:
        def __init__(self, pid=None, name="self"):
            self._name = name

        def cpu_times(self):
            return (*seconds[self._name].pop(0), 0.0)

        def children(self, recursive):
            assert recursive
            return [Process(name="child"), Ended()]

    class Ended(Process):
        def cpu_times(self):
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "cpu_times", lambda: psutil_times(user=next(busy), idle=50.0))
    monkeypatch.setattr(threads, "perf_counter", lambda: next(clock))
    assert threads.OtherPrograms().cores() == pytest.approx((30 - 4 - 9 - 5) / 10)


def psutil_times(**seconds):
    return namedtuple("scputimes", seconds)(**seconds)


@pytest.mark.slow
@pytest.mark.posix
def test_a_busy_program_is_seen():
    """Its shell has ended, so that it is not one of this process."""
    shell = f"{sys.executable} -c 'while True: pass' > {os.devnull} 2>&1 & echo $!"
    program = int(subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout)
    try:
        others = threads.OtherPrograms()
        time.sleep(1)
        assert others.cores() > 0.2
    finally:
        os.kill(program, signal.SIGKILL)


@pytest.fixture
def restored():
    before = threads.count()
    yield
    threads.use(before)


class Clock:
    """A clock that only work moves, of these seconds by the number of threads."""

    def __init__(self, monkeypatch, seconds: dict[int, float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        monkeypatch.setattr(threads, "perf_counter", lambda: self.now)

    def measure(self) -> tuple[int, dict[int, float]]:
        return threads.fastest({number: partial(self._work, number) for number in self.seconds})

    def _work(self, number: int) -> None:
        self.now += self.seconds[number]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({2: 0.05, 1: 0.09}, 2), ({2: 0.5, 1: 0.09}, 1), ({2: 0.100, 1: 0.09}, 2), ({2: 4.0, 1: 3.0}, 1)],
    ids=["idle", "beside a busy program", "within the noise", "slow steps"],
)
def test_the_fastest_number_is_taken(monkeypatch, seconds, best):
    chosen, means = Clock(monkeypatch, seconds).measure()
    assert chosen == best
    assert means == pytest.approx(seconds)


def test_the_number_follows_the_load(monkeypatch):
    """Measured when other programs come, seldom while they stay, and not when they are gone."""
    load, measured = 0.0, []
    monkeypatch.setattr(threads.OtherPrograms, "cores", lambda others: load)
    clock = Clock(monkeypatch, {2: 0.5, 1: 0.1})
    chooser = threads.ThreadChooser([2, 1])

    def choose(at: float) -> str:
        return chooser.choose(at, lambda first: measured.append(at) or clock.measure())

    assert choose(0) == ""
    load = 1.0
    assert choose(10) == "threads: 1 instead of 2 (relative speeds 1: 1.00, 2: 0.20)"
    cost = clock.now  # of the measurement
    assert 1 < cost < 3
    for at in (10 + 9 * cost, 10 + 49 * cost):
        assert choose(at) == ""
    assert measured == [10]
    assert choose(10 + 51 * cost) == ""
    assert measured == [10, 10 + 51 * cost]
    load = 2.0  # another program: earlier
    begins = clock.now
    assert choose(10 + 75 * cost) == ""
    assert len(measured) == 3
    assert clock.now > begins
    load = 0.05
    assert choose(10 + 76 * cost) == "threads: 2 instead of 1 (other programs use 0.05 cores)"
    assert len(measured) == 3
    load = 2.0  # it has come back
    assert choose(10 + 80 * cost) == ""
    assert choose(10 + 88 * cost).startswith("threads: 1 instead of 2")


@pytest.mark.parametrize(
    ("load", "first"), [(0.2, 8), (0.9, 7), (1.6, 4), (3.0, 4), (3.7, 4), (5.0, 1), (20.0, 1)], ids=str
)
def test_what_leaves_others_their_cores_is_tried_first(monkeypatch, load, first):
    """Of 8, 7, 4 and 1 threads on 8 cores: measurements are short, and the others' threads are not seen in all."""
    monkeypatch.setattr(threads.OtherPrograms, "cores", lambda others: load)
    tried = []
    threads.ThreadChooser(threads.candidates(8)).choose(0, lambda number: tried.append(number) or (number, {number: 1}))
    assert tried == [first]


def test_onednn_follows_a_change_of_the_number(restored):
    if onednn.unavailable_reason("cpu") or not threads.can_change():
        pytest.skip("no oneDNN")
    paddle.seed(0)
    plain = nn.Conv2D(8, 16, 3, padding=1, bias_attr=False, data_format="NHWC")
    layer = Convolution(8, 16, 3, padding=1, bias_attr=False)
    layer.weight.set_value(plain.weight)
    images = paddle.rand([4, 12, 12, 8])
    results = {}
    for turn, number in enumerate((1, 2, 1, 2)):
        threads.use(number)
        results[turn] = layer(images).numpy()
        np.testing.assert_allclose(results[turn], plain(images).numpy(), atol=1e-5)
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])
