"""The service's processes when they die or take too long, with one that does as it is told in the network's place."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="FastAPI (requirements/serve.txt) is not installed")
import service_tasks

from paddle_resnet.errors import RunFailure
from paddle_resnet.service import Settings, network

PICTURE = b"a picture"


@pytest.fixture(autouse=True)
def told_what_to_do(monkeypatch):
    monkeypatch.setattr(network, "_compute", service_tasks.answering_process)


@asynccontextmanager
async def running(tmp_path, **options):
    found = network.Network(Settings(model=tmp_path, streams=1, **options), image_size=8, classes=2)
    await asyncio.to_thread(found.wait_until_ready)
    await found.open()
    yield found
    await found.close()
    assert multiprocessing.active_children() == []


async def answers(found):
    (scores,) = await found.answer([PICTURE])
    return np.array_equal(scores, [0.5, 0.5])


def test_a_process_that_computes_too_long_is_killed_and_replaced(tmp_path):
    async def scenario():
        async with running(tmp_path, answer_seconds=0.5) as found:
            with pytest.raises(RunFailure, match="died"):
                await found.answer([b"slow"])
            assert await answers(found)

    asyncio.run(scenario())


def test_only_what_a_dying_process_was_computing_fails(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            dying, *others = await asyncio.gather(
                found.answer([b"die"]), answers(found), answers(found), return_exceptions=True
            )
            assert isinstance(dying, RunFailure)
            assert others == [True, True]
            assert found.alive

    asyncio.run(scenario())


def test_a_process_that_dies_idle_is_replaced_before_anybody_asks(tmp_path):
    async def scenario():
        async with running(tmp_path) as found:
            (process,) = multiprocessing.active_children()
            process.kill()
            deadline = time.monotonic() + 60
            while [each.pid for each in multiprocessing.active_children()] in ([], [process.pid]):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert await answers(found)

    asyncio.run(scenario())


def test_a_service_whose_process_cannot_be_replaced_says_so(tmp_path, monkeypatch):
    def no_memory(*_):
        raise OSError(12, "Cannot allocate memory")

    async def scenario():
        async with running(tmp_path) as found:
            monkeypatch.setattr(found._computers[0], "_make", no_memory)
            with pytest.raises(RunFailure, match="died"):
                await found.answer([b"die"])
            with pytest.raises(RunFailure, match="Cannot allocate memory"):
                await found.answer([PICTURE])
            assert not found.alive

    asyncio.run(scenario())


def test_closing_does_not_wait_for_a_process_that_never_ends(tmp_path):
    async def scenario():
        async with running(tmp_path, answer_seconds=1) as found:
            process = found._computers[0].process._process
            asking = asyncio.create_task(found.answer([b"slow"]))
            await asyncio.sleep(0.2)
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(RunFailure):
            await asking

    asyncio.run(scenario())
