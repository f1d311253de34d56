"""The number of threads: what is measured, what is taken, and that oneDNN follows a change."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import paddle
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


def test_a_busy_program_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            others = threads.OtherPrograms()
            time.sleep(1)
            assert others.cores() > 0.2
        finally:
            process.kill()


@pytest.fixture
def restored():
    before = threads.count()
    yield
    threads.use(before)


def measure(monkeypatch, seconds: dict[int, float]) -> tuple[int, dict[int, float]]:
    """Measure work that takes these seconds by the number of threads, on a clock that only the work moves."""
    now = 0.0

    def work() -> None:
        nonlocal now
        now += seconds[threads.count()]

    monkeypatch.setattr(threads, "perf_counter", lambda: now)
    return threads.fastest(work, list(seconds))


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({2: 0.05, 1: 0.09}, 2), ({2: 0.5, 1: 0.09}, 1), ({2: 0.100, 1: 0.099}, 2), ({2: 4.0, 1: 3.0}, 1)],
    ids=["idle", "beside a busy program", "within the noise", "slow steps"],
)
def test_the_fastest_number_is_taken(monkeypatch, restored, seconds, best):
    if not threads.can_change():
        pytest.skip("this Paddle has no OpenMP")
    chosen, means = measure(monkeypatch, seconds)
    assert chosen == best == threads.count()
    assert means == pytest.approx(seconds)


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
