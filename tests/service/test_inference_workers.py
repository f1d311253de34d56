"""Inference workers that die or take too long, with a worker that does what its images say; and shutdown by signals."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import service_tasks

from paddle_resnet.service import Settings, inference_workers, shutdown
from paddle_resnet.service.batcher import Batcher, WorkerDied
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.request_queue import PendingRequest

pytestmark = pytest.mark.slow

IMAGE = b"an image"


@pytest.fixture(autouse=True)
def obedient_workers(monkeypatch):
    monkeypatch.setattr(inference_workers, "run_worker", service_tasks.obedient_worker)


@asynccontextmanager
async def running(tmp_path, **options):
    found = inference_workers.InferenceWorkers(Settings(model=tmp_path, streams=1, **options), image_size=8, classes=2)
    await asyncio.to_thread(found.wait_until_ready)
    found.ready_after_restart = []
    found.on_replaced = lambda: found.ready_after_restart.append(found.ready)
    await found.connect(lambda: found.on_replaced())
    yield found
    await found.close()
    assert multiprocessing.active_children() == []


async def predicts(found):
    (result,) = await found.run([IMAGE])
    return np.array_equal(result.scores, [0.5, 0.5])


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_worker_that_takes_too_long_is_replaced(tmp_path):
    async def scenario():
        async with running(tmp_path, response_timeout=0.5) as found:
            with pytest.raises(WorkerDied) as died:
                await found.run([b"slow"])
            assert died.value.computing
            await until(lambda: found.ready)
            assert await predicts(found)
            assert found.ready_after_restart == [1]

    asyncio.run(scenario())


def test_batches_of_a_dead_worker_are_computed_again(tmp_path):
    """The image that kills workers is refused after two deaths; all others get their scores."""

    async def scenario():
        async with running(tmp_path) as found:
            settings = Settings(model=tmp_path, max_batch=2, max_wait=0, queue=9)
            batcher = Batcher(found.run, settings, lambda: found.ready, Metrics())
            found.on_replaced = batcher.start_batches
            requests = [PendingRequest(str(number)) for number in range(4)]
            for request, image in zip(requests, (b"die", IMAGE, IMAGE, IMAGE), strict=True):
                batcher.admit(request, 1)
                batcher.put(request, [image])
            ended = await asyncio.gather(*(request.scores for request in requests), return_exceptions=True)
            assert ended[0].code == "deadly_image"
            assert all(np.array_equal(scores, [[0.5, 0.5]]) for scores in ended[1:])
            await until(lambda: found.ready)
            assert found.healthy

    asyncio.run(scenario())


def test_an_idle_worker_that_dies_is_replaced_at_once(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            (process,) = multiprocessing.active_children()
            process.kill()
            await until(lambda: found.ready_after_restart)
            assert await predicts(found)

    asyncio.run(scenario())


def test_a_failed_replacement_is_tried_again(tmp_path, monkeypatch, caplog):
    """With growing delays, and a log line for each new reason."""
    reasons = iter(["Cannot allocate memory"] * 3 + ["Too many open files"])
    delays, states = [], []

    async def scenario():
        async with running(tmp_path) as found:
            (worker,) = found._workers
            start = worker._start

            def fail():
                if reason := next(reasons, None):
                    raise OSError(12, reason)
                start()

            async def sleep(seconds):
                delays.append(seconds)
                states.append((found.ready, found.healthy, found.usable))

            monkeypatch.setattr(worker, "_start", fail)
            monkeypatch.setattr(worker, "_sleep", sleep)
            multiprocessing.active_children()[0].kill()
            await until(lambda: found.ready_after_restart)
            assert delays == [0, 1, 2, 4, 8]
            assert states == [(0, True, True)] + [(0, False, False)] * 4
            assert found.usable and found.healthy
            assert await predicts(found)

    with caplog.at_level(logging.ERROR, "paddle_resnet.service"):
        asyncio.run(scenario())
    reasons_logged = [
        record.fields["reason"] for record in caplog.records if "cannot be replaced" in record.getMessage()
    ]
    assert reasons_logged == ["[Errno 12] Cannot allocate memory", "[Errno 12] Too many open files"]


def test_the_restart_delay_is_bounded_and_reset(tmp_path, monkeypatch):
    async def scenario():
        async with running(tmp_path) as found:
            (worker,) = found._workers
            worker._tries = 5000
            delays = []

            async def sleep(seconds):
                delays.append(seconds)

            monkeypatch.setattr(worker, "_sleep", sleep)
            multiprocessing.active_children()[0].kill()
            await until(lambda: found.ready_after_restart)
            assert delays == [inference_workers.MAX_RESTART_DELAY]
            assert await predicts(found)
            assert worker._tries == 0

    asyncio.run(scenario())


def test_close_kills_a_worker_that_does_not_end(tmp_path):
    async def scenario():
        async with running(tmp_path, response_timeout=1) as found:
            process = found._workers[0]._process
            asking = asyncio.create_task(found.run([b"slow"]))
            await asyncio.sleep(0.2)
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(WorkerDied):
            await asking

    asyncio.run(scenario())


@pytest.fixture
def handlers():
    """Handlers in the server's place; what they receive. The old ones come back after the test."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    calls = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: calls.append(received))
    yield calls
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_drains_and_a_second_ends_at_once(handlers, monkeypatch):
    ended = []
    monkeypatch.setattr(shutdown, "end_at_once", ended.append)

    async def scenario(first, second):
        found = shutdown.GracefulShutdown(0.01)
        found.install()
        signal.raise_signal(first)
        assert found.draining
        signal.raise_signal(second)  # together with the first: a service manager sends several
        await asyncio.sleep(0.05)
        assert ended == []
        monkeypatch.setattr(shutdown, "SIGNAL_BURST_SECONDS", -1.0)
        signal.raise_signal(second)
        await asyncio.sleep(0.01)
        assert ended == [second]

    asyncio.run(scenario(signal.SIGHUP, signal.SIGTERM))
    assert handlers == [signal.SIGTERM]


def test_a_worker_ignores_signals_of_the_terminal(handlers):
    async def scenario():
        found = shutdown.GracefulShutdown(0, worker=True)
        found.install()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert not found.draining
        signal.raise_signal(signal.SIGTERM)
        assert found.draining
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert handlers == [signal.SIGTERM]


def test_an_ignored_sighup_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def scenario():
        found = shutdown.GracefulShutdown(0)
        found.install()
        signal.raise_signal(signal.SIGHUP)
        assert not found.draining

    asyncio.run(scenario())
