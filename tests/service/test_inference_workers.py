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
import uvicorn

from paddle_resnet.errors import RunFailure
from paddle_resnet.service import Settings, inference_workers, server
from paddle_resnet.service.batcher import Batcher, PendingRequest
from paddle_resnet.service.inference_workers import WorkerDied
from paddle_resnet.service.telemetry import Metrics
from paddle_resnet.service.worker_process import Batch

pytestmark = pytest.mark.slow

IMAGE = b"an image"


@pytest.fixture(autouse=True)
def obedient_workers(monkeypatch):
    monkeypatch.setattr(inference_workers, "make_worker", service_tasks.make_obedient_worker)


@asynccontextmanager
async def running(tmp_path, **options):
    settings = Settings(model=tmp_path, streams=1, **{"max_batch": 2, **options})
    found = inference_workers.InferenceWorkers(settings, "digest", image_size=8)
    await asyncio.to_thread(found.wait_until_ready)
    found.on_idle, found.replaced = [], []
    found.connect(lambda: [call() for call in found.on_idle], lambda: found.replaced.append(found.ready))
    yield found
    await found.close()
    assert multiprocessing.active_children() == []


async def run(found, image):
    await until(lambda: found.idle)
    return await found.run(Batch([image]))


async def predicts(found):
    (result,) = await run(found, IMAGE)
    return np.array_equal(result.scores, [0.5, 0.5])


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_worker_that_takes_too_long_is_replaced(tmp_path, monkeypatch):
    """The time is over at once while the slow image is computed, and never for others."""

    async def scenario():
        async with running(tmp_path, response_timeout=3600, max_batch=1) as found:
            loop = asyncio.get_running_loop()
            with monkeypatch.context() as patch:
                later = loop.call_later
                patch.setattr(loop, "call_later", lambda delay, *call: later(delay if delay < 3600 else 0.01, *call))
                with pytest.raises(WorkerDied):
                    await run(found, b"slow")
            assert await predicts(found)
            assert found.replaced == [1]

    asyncio.run(scenario())


def test_batches_of_a_dead_worker_are_computed_again(tmp_path):
    """The image that kills workers is refused after two deaths; all others get their scores."""

    async def scenario():
        async with running(tmp_path) as found:
            settings = Settings(model=tmp_path, max_batch=4, max_wait=0, queue=9)
            batcher = Batcher(found, settings, Metrics())
            found.on_idle.append(batcher.start_batches)
            await until(lambda: found.idle)
            requests = [PendingRequest(str(number)) for number in range(4)]
            for request, image in zip(requests, (b"die", IMAGE, IMAGE, IMAGE), strict=True):
                batcher.admit(request, 1)
                batcher.put(request, [image])
            ended = await asyncio.gather(*(request.results for request in requests), return_exceptions=True)
            assert ended[0].code == "deadly_image"
            assert all(np.array_equal(results[0].scores, [0.5, 0.5]) for results in ended[1:])
            await until(lambda: found.ready)
            assert found.usable

    asyncio.run(scenario())


def test_an_unexpected_error_is_no_death(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            with pytest.raises(RunFailure, match="a traceback"):
                await run(found, b"fail")
            assert await predicts(found)
            assert found.replaced == []

    asyncio.run(scenario())


def kill_the_process():
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()


def test_an_idle_worker_that_dies_is_replaced(tmp_path):
    """No batch goes to the dead process meanwhile: its image would be taken for what killed it."""

    async def scenario():
        async with running(tmp_path) as found:
            await until(lambda: found.idle)
            kill_the_process()
            assert (found.idle, found.ready, found.usable) == (0, 0, True)
            assert await predicts(found)
            assert found.replaced == [1]

    asyncio.run(scenario())


def test_a_worker_that_dies_again_and_again_comes_back(tmp_path, monkeypatch, caplog):
    """While it loads too. Until then the service says that it cannot answer."""
    monkeypatch.setattr(inference_workers, "RETRY_SECONDS", (0.01,))

    async def scenario():
        async with running(tmp_path) as found:
            for deaths in (0, 2):
                for number in range(deaths):
                    (tmp_path / f"die{number}").touch()
                await until(lambda: found.idle)
                kill_the_process()
                assert await predicts(found)
                assert found.usable and len(found.replaced) == 1 + (deaths > 0)

    with caplog.at_level(logging.ERROR, "paddle_resnet.service"):
        asyncio.run(scenario())
    reasons = [record.fields["reason"] for record in caplog.records if "cannot be replaced" in record.getMessage()]
    assert len(reasons) == 2 and all("a worker process ended (code 9)" in reason for reason in reasons)


def test_a_worker_that_hangs_while_it_loads_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(inference_workers, "RETRY_SECONDS", (0.01,))

    async def scenario():
        async with running(tmp_path) as found:
            (tmp_path / "hang").touch()
            monkeypatch.setattr(inference_workers, "LOAD_SECONDS", 0.1)
            kill_the_process()
            await until(lambda: not found.usable)
            (tmp_path / "hang").unlink()
            monkeypatch.undo()
            monkeypatch.setattr(inference_workers, "make_worker", service_tasks.make_obedient_worker)
            assert await predicts(found)
            assert found.usable and found.replaced == [1]

    asyncio.run(scenario())


def test_a_failed_replacement_is_tried_again(tmp_path, monkeypatch):
    states = []
    errors = [OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread")]
    monkeypatch.setattr(inference_workers, "RETRY_SECONDS", (0.01,))

    async def scenario():
        async with running(tmp_path) as found:
            (worker,) = found._workers
            start = worker._start

            def fail_twice():
                states.append(found.usable)
                if errors:
                    raise errors.pop()
                start()

            monkeypatch.setattr(worker, "_start", fail_twice)
            kill_the_process()
            await until(lambda: found.replaced)
            assert states == [True, False, False]  # it was not known to fail at the first try
            assert found.usable
            assert await predicts(found)

    asyncio.run(scenario())


def test_close_kills_a_worker_that_does_not_end(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            await until(lambda: found.idle)
            (process,) = multiprocessing.active_children()
            asking = asyncio.create_task(run(found, b"slow"))
            await until((tmp_path / "slow").exists)
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(WorkerDied):
            await asking

    asyncio.run(scenario())


class FakeApplication:
    draining = reloads = 0

    def reload(self):
        self.reloads += 1


@pytest.fixture
def draining_server(tmp_path):
    return server.DrainingServer(FakeApplication(), Settings(model=tmp_path, drain_seconds=0.2))


def test_a_signal_drains_before_the_server_stops(draining_server, monkeypatch):
    ticks = []

    async def on_tick(self, counter):
        ticks.append(self.application.draining)
        return self.should_exit

    monkeypatch.setattr(uvicorn.Server, "on_tick", on_tick)
    draining_server.handle_exit(signal.SIGTERM, None)
    asyncio.run(draining_server.main_loop())
    assert ticks == [False, True, True]
    draining_server.handle_exit(signal.SIGINT, None)  # the second one: no more waiting
    asyncio.run(draining_server.main_loop())
    assert len(ticks) == 4 and draining_server.force_exit


@pytest.mark.parametrize(("terminal_after", "reloads"), [(True, 1), (False, 0)])
def test_sighup_reloads_unless_the_terminal_was_closed(draining_server, monkeypatch, terminal_after, reloads):
    hang_up_when_started(draining_server, monkeypatch, [True, terminal_after])
    assert draining_server.application.reloads == reloads
    assert draining_server.should_exit is not terminal_after


def test_an_ignored_sighup_stays_ignored(draining_server, monkeypatch):
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hang_up_when_started(draining_server, monkeypatch, [False, False])
    finally:
        signal.signal(signal.SIGHUP, earlier)
    assert not draining_server.application.reloads and not draining_server.should_exit


def hang_up_when_started(draining_server, monkeypatch, terminals):
    async def nothing(self, sockets=None):
        pass

    async def scenario():
        await draining_server.startup()
        signal.raise_signal(signal.SIGHUP)
        for _ in range(5):
            await asyncio.sleep(0.01)

    monkeypatch.setattr(uvicorn.Server, "startup", nothing)
    monkeypatch.setattr(server, "has_terminal", iter(terminals).__next__)
    asyncio.run(scenario())
