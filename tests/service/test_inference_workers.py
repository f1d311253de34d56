"""The service's processes when they die or take too long, with one that does as it is told in the network's place."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="FastAPI (requirements/serve.txt) is not installed")
import service_tasks

from paddle_resnet.service import Settings, inference_workers, shutdown
from paddle_resnet.service.batcher import Batcher, Work, WorkerDied

pytestmark = pytest.mark.slow

PICTURE = b"a picture"


@pytest.fixture(autouse=True)
def told_what_to_do(monkeypatch):
    monkeypatch.setattr(inference_workers, "_compute", service_tasks.answering_process)


@asynccontextmanager
async def running(tmp_path, **options):
    found = inference_workers.Network(Settings(model=tmp_path, streams=1, **options), image_size=8, classes=2)
    await asyncio.to_thread(found.wait_until_ready)
    found.changes, found.restarts = [], []
    await found.open(lambda: found.changes.append(found.live), lambda: found.restarts.append(1))
    yield found
    await found.close()
    assert multiprocessing.active_children() == []


async def answers(found):
    (result,) = await found.answer([PICTURE])
    return np.array_equal(result.scores, [0.5, 0.5])


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_process_that_computes_too_long_is_killed_and_replaced(tmp_path):
    async def scenario():
        async with running(tmp_path, answer_seconds=0.5) as found:
            with pytest.raises(WorkerDied) as died:
                await found.answer([b"slow"])
            assert died.value.computing
            await until(lambda: found.live)
            assert await answers(found)
            assert found.restarts == [1] and found.changes == [1]

    asyncio.run(scenario())


def test_what_a_dead_process_had_in_its_hands_is_answered_by_the_next(tmp_path):
    """Through the queue: the picture that kills is refused after two deaths, all others have their answers."""

    async def scenario():
        async with running(tmp_path) as found:
            queue = Batcher(found.answer, max_batch=2, max_wait=0, capacity=9, streams=lambda: found.live)
            found._computers[0]._changed = queue.start_batches
            works = [Work(str(number)) for number in range(4)]
            for work, picture in zip(works, (b"die", PICTURE, PICTURE, PICTURE), strict=True):
                queue.admit(work, 1)
                queue.put(work, [picture])
            ended = await asyncio.gather(*(work.answer for work in works), return_exceptions=True)
            assert ended[0].code == "deadly_image"
            assert all(np.array_equal(scores, [[0.5, 0.5]]) for scores in ended[1:])
            await until(lambda: found.live)
            assert found.whole

    asyncio.run(scenario())


def test_a_process_that_dies_idle_is_replaced_before_anybody_asks(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            (process,) = multiprocessing.active_children()
            process.kill()
            await until(lambda: found.restarts)
            assert await answers(found)

    asyncio.run(scenario())


def test_a_process_that_cannot_be_replaced_is_tried_again(tmp_path, monkeypatch, caplog):
    """Ever less often, with a line for each reason, until it works."""
    reasons = iter(["Cannot allocate memory"] * 3 + ["Too many open files"])
    delays, states = [], []

    async def scenario():
        async with running(tmp_path) as found:
            (computer,) = found._computers
            make = computer._make

            def fail():
                if reason := next(reasons, None):
                    raise OSError(12, reason)
                return make()

            async def sleep(seconds):
                delays.append(seconds)
                states.append((found.live, found.whole, found.alive))

            monkeypatch.setattr(computer, "_make", fail)
            monkeypatch.setattr(computer, "_sleep", sleep)
            multiprocessing.active_children()[0].kill()
            await until(lambda: found.restarts)
            assert delays == [0, 1, 2, 4, 8]
            assert states == [(0, True, True)] + [(0, False, False)] * 4
            assert found.alive and found.whole
            assert await answers(found)

    with caplog.at_level(logging.ERROR, "paddle_resnet.service"):
        asyncio.run(scenario())
    said = [record.fields["reason"] for record in caplog.records if "cannot be replaced" in record.getMessage()]
    assert said == ["[Errno 12] Cannot allocate memory", "[Errno 12] Too many open files"]


def test_the_delay_is_bounded_and_begins_anew_when_a_process_has_answered(tmp_path, monkeypatch):
    async def scenario():
        async with running(tmp_path) as found:
            (computer,) = found._computers
            computer._tries = 50
            delays = []

            async def sleep(seconds):
                delays.append(seconds)

            monkeypatch.setattr(computer, "_sleep", sleep)
            multiprocessing.active_children()[0].kill()
            await until(lambda: found.restarts)
            assert delays == [inference_workers.LONGEST_DELAY]
            assert await answers(found)
            assert computer._tries == 0

    asyncio.run(scenario())


def test_closing_does_not_wait_for_a_process_that_never_ends(tmp_path):
    async def scenario():
        async with running(tmp_path, answer_seconds=1) as found:
            process = found._computers[0].process._process
            asking = asyncio.create_task(found.answer([b"slow"]))
            await asyncio.sleep(0.2)
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(WorkerDied):
            await asking

    asyncio.run(scenario())


@pytest.fixture
def handlers():
    """The server's own handler of signals, and the test's in its place afterwards."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    calls = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: calls.append(received))
    yield calls
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_each_signal_drains_and_a_second_ends_at_once(handlers, monkeypatch):
    ended = []
    monkeypatch.setattr(shutdown, "end_at_once", ended.append)

    async def scenario(first, second):
        found = shutdown.Lifetime(0.01)
        found.watch()
        signal.raise_signal(first)
        assert found.draining
        signal.raise_signal(second)  # together with the first: a service manager sends several
        await asyncio.sleep(0.05)
        assert ended == []
        monkeypatch.setattr(shutdown, "TOGETHER_SECONDS", -1.0)
        signal.raise_signal(second)
        await asyncio.sleep(0.01)
        assert ended == [second]

    asyncio.run(scenario(signal.SIGHUP, signal.SIGTERM))
    assert handlers == [signal.SIGTERM]


def test_a_worker_leaves_what_a_terminal_sends_to_its_parent(handlers):
    async def scenario():
        found = shutdown.Lifetime(0, worker=True)
        found.watch()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert not found.draining
        signal.raise_signal(signal.SIGTERM)
        assert found.draining
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert handlers == [signal.SIGTERM]


def test_nohup_stays(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def scenario():
        found = shutdown.Lifetime(0)
        found.watch()
        signal.raise_signal(signal.SIGHUP)
        assert not found.draining

    asyncio.run(scenario())
