"""Whose picture is next: turns, budgets, costly pictures, what is over, and pictures that processes die of."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="FastAPI (requirements/serve.txt) is not installed")
from paddle_resnet.service import batcher, inference_workers
from paddle_resnet.service.batcher import Batcher, Work, WorkerDied
from paddle_resnet.service.errors import Refusal
from paddle_resnet.service.fair_queue import ClientBudgets, FairQueue
from paddle_resnet.service.pictures import Result, Verdict
from paddle_resnet.service.predict import client_of

READ = Result(Verdict.READ, np.zeros(2, np.float32))


def queued(queue, *names):
    """Items such as "a1.0": of client a its request a1, picture 0."""
    works = {}
    for name in names:
        request = name.partition(".")[0]
        work = works.setdefault(request, Request(request[0], request))
        queue.put(SimpleNamespace(work=work, name=name))
    return works


class Request:
    def __init__(self, client, name):
        self.client, self.name = client, name


def names(queue):
    return [queue.pop().name for _ in range(len(queue))]


def test_clients_and_their_requests_take_turns():
    queue = FairQueue()
    queued(queue, "a1.0", "a1.1", "a1.2", "a2.0", "b1.0", "c1.0", "c1.1")
    assert names(queue) == ["a1.0", "b1.0", "c1.0", "a2.0", "c1.1", "a1.1", "a1.2"]
    assert len(queue) == 0


def test_what_has_had_its_turn_is_first_and_a_request_can_be_dropped():
    queue = FairQueue()
    works = queued(queue, "a1.0", "a1.1", "b1.0", "b2.0")
    queue.put(SimpleNamespace(work=works["b2"], name="again"), first=True)
    queue.drop(works["a1"])
    queue.drop(works["a1"])
    assert len(queue) == 3
    assert names(queue) == ["again", "b1.0", "b2.0"]


def test_a_clients_budget_comes_back_with_time():
    now = [0.0]
    budgets = ClientBudgets(10, 0.5, lambda: now[0])
    assert [budgets.take("a", 4) for _ in range(2)] == [0, 0]
    assert budgets.take("a", 4) == pytest.approx(4)
    assert budgets.take("b", 4) == 0
    now[0] = 4
    assert budgets.take("a", 4) == 0
    assert budgets.take("a", 1) > 0
    now[0] = 1000
    assert budgets.take("a", 25) == 0  # more than there ever is: it is taken from what comes
    assert budgets.take("a", 1) == pytest.approx(32)


class Network:
    """Answers when `step` says so; `calls` are the pictures of each call."""

    def __init__(self, **options):
        self.calls = []
        self.under_way = asyncio.Queue()
        self.queue = Batcher(self.answer, max_wait=0, **{"max_batch": 4, "capacity": 100, **options})

    async def answer(self, pictures, costly):
        self.calls.append((b" ".join(pictures).decode(), costly))
        answer = asyncio.get_running_loop().create_future()
        self.under_way.put_nowait((pictures, costly, answer))
        return await answer

    async def step(self, fate=None):
        """Answer the call that has waited longest."""
        pictures, costly, answer = await asyncio.wait_for(self.under_way.get(), 10)
        if not answer.done():
            if fate is not None:
                answer.set_exception(fate)
            else:
                answer.set_result([self.result_of(place, picture, costly) for place, picture in enumerate(pictures)])
        for _ in range(5):
            await asyncio.sleep(0)

    def result_of(self, place, picture, costly):
        return self.result(picture, costly)

    def result(self, picture, costly):
        if picture.startswith(b"costly") and not costly:
            return Result(Verdict.COSTLY, seconds=1.0)
        return READ

    def ask(self, client, *pictures):
        work = Work(client)
        self.queue.admit(work, len(pictures))
        self.queue.put(work, [picture.encode() for picture in pictures])
        return work

    async def finish(self):
        while self.under_way.qsize():
            await self.step()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_cheap_pictures_do_not_wait_for_costly_ones():
    async def scenario():
        net = Network(max_batch=16)
        attack = net.ask("a", *[f"costly{i}" for i in range(6)])
        await settled()
        while not net.calls[-1][1]:  # they are found to be costly, and the first is being decoded
            await net.step()
        same, other = net.ask("a", "cheap"), net.ask("b", "cheap")
        while not (same.over and other.over):
            await net.step()
        assert [costly for _, costly in net.calls].count(True) <= 2 and not attack.over
        await net.finish()
        assert attack.answer.result().shape == (6, 2)
        assert all(" " not in pictures for pictures, costly in net.calls if costly)

    asyncio.run(scenario())


def test_costly_pictures_leave_a_stream_to_the_others():
    async def scenario():
        net = Network(streams=lambda: 2)
        net.ask("a", *[f"costly{i}" for i in range(8)])
        await settled()
        while not net.calls[-1][1]:
            await net.step()
        await settled()
        assert [costly for _, costly in net.calls].count(True) == 1
        await net.finish()

    asyncio.run(scenario())


def test_a_request_and_a_client_have_a_budget():
    async def scenario():
        net = Network(request_seconds=3, budgets=ClientBudgets(4, 0.5, lambda: 0.0))
        much = net.ask("a", *[f"costly{i}" for i in range(4)])
        await settled()
        await net.finish()
        assert (much.answer.exception().status, much.answer.exception().code) == (413, "slow_request")
        right = net.ask("a", "costly", "costly")
        await settled()
        await net.finish()
        refusal = right.answer.exception()
        assert (refusal.status, refusal.code, refusal.retry_after) == (429, "busy", 2)
        for work in (much, right):
            net.queue.leave(work)
        other = net.ask("b", "costly", "costly")
        await settled()
        await net.finish()
        assert other.answer.result().shape == (2, 2)
        net.queue.leave(other)
        assert net.queue.admitted == 0

    asyncio.run(scenario())


def test_what_nobody_waits_for_is_not_computed():
    async def scenario():
        net = Network()
        works = [net.ask("a", f"{i}.0", f"{i}.1", f"{i}.2", f"{i}.3") for i in range(4)]
        await settled()
        works[2].give_up()
        net.queue.leave(works[3])
        await net.finish()
        computed = " ".join(pictures for pictures, _ in net.calls)
        assert {each[0] for each in computed.split()} == {"0", "1"}

    asyncio.run(scenario())


def test_what_was_not_begun_is_next():
    async def scenario():
        net = Network(max_batch=8)
        turns = iter([False, True])
        net.result = lambda picture, costly: Result(Verdict.LATER) if picture == b"last" and not next(turns) else READ
        work = net.ask("a", "first", "last")
        await settled()
        await net.finish()
        assert work.answer.result().shape == (2, 2)
        assert net.calls == [("first last", False), ("last", False)]

    asyncio.run(scenario())


def test_what_was_not_begun_keeps_its_order(monkeypatch):
    """Or who stands in the middle would wait for ever."""
    monkeypatch.setattr(batcher, "AT_ONCE", 1)
    begun = []

    def result_of(place, picture, costly):
        if place > 1:
            return Result(Verdict.LATER)
        begun.append(picture.decode())
        return READ

    async def scenario():
        net = Network(max_batch=16)
        net.result_of = result_of
        works = [net.ask(client, client + "0", client + "1") for client in "zabcde"]
        await settled()
        await net.finish()
        assert all(work.over for work in works)
        assert begun == ["z0", "z1", "a0", "b0", "c0", "d0", "e0", "a1", "b1", "c1", "d1", "e1"]

    asyncio.run(scenario())


def test_a_picture_that_two_processes_die_of_is_refused_and_its_neighbours_are_answered():
    async def scenario():
        net = Network()
        before = [net.ask("a", "x"), net.ask("a", "y")]
        good, bad, more = net.ask("a", "good"), net.ask("b", "bad"), net.ask("c", "more")
        await settled()
        while net.under_way.qsize():
            (pictures, _, _) = net.under_way._queue[0]
            await net.step(WorkerDied(computing=True) if b"bad" in pictures else None)
        refusal = bad.answer.exception()
        assert (refusal.status, refusal.code, refusal.image) == (422, "deadly_image", 0)
        assert all(work.answer.result().shape == (1, 2) for work in (*before, good, more))
        assert ("good bad more", False) in net.calls
        assert [call for call in net.calls if "bad" in call[0]] == [("good bad more", False), ("bad", True)]

    asyncio.run(scenario())


def test_what_a_dead_process_had_not_begun_is_no_suspect():
    async def scenario():
        net = Network()
        work = net.ask("a", "picture")
        await settled()
        for _ in range(5):
            await net.step(WorkerDied(computing=False))
        await net.step()
        assert work.answer.result().shape == (1, 2)

    asyncio.run(scenario())


def test_in_a_full_queue_the_client_with_most_makes_room():
    async def scenario():
        net = Network(capacity=8, streams=lambda: 0)
        first, last = net.ask("a", *"1234"), net.ask("a", *"5678")
        net.queue.check_room("a")  # a small request would have its place
        net.queue.check_room("b")
        with pytest.raises(Refusal, match="too many"):
            net.ask("a", *"9999")  # as large as the others of its client
        honest = net.ask("b", "9")
        assert last.answer.exception().status == 429 and not first.over and not honest.over
        assert net.queue.admitted == 5
        with pytest.raises(Refusal):
            net.ask("b", *"12345")  # would have more than the others
        small, full = net.ask("a", "s"), net.ask("a", "ss", "t")
        one = net.ask("a", "one")
        assert first.answer.exception().status == 429 and not (small.over or full.over or one.over)
        for work in (first, last, honest, small, full, one):
            net.queue.leave(work)
        assert net.queue.admitted == 0

    asyncio.run(scenario())


def test_a_batch_is_computed_without_what_it_has_no_time_for():
    now = iter([0.0, 0.1, 0.2, 0.4, 0.5])
    decoded = []

    def decode_one(data):
        decoded.append(data)
        return Result(Verdict.READ, pixels=np.zeros((1, 1, 3), np.uint8))

    results = inference_workers.compute(
        [b"a", b"b", b"c", b"d"], decode_one, lambda batch: batch[:, 0, 0, :2], map, now.__next__
    )
    assert decoded == [b"a", b"b", b"c"]
    assert [each.verdict for each in results] == [Verdict.READ] * 3 + [Verdict.LATER]
    assert results[3].scores is None and results[0].scores.shape == (2,)


@pytest.mark.parametrize("costly", [False, True])
def test_results_pass_through_a_socket(costly):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    sent = [Result(Verdict.COSTLY, seconds=0.5), Result(Verdict.READ, np.float32([1, 2, 3]), pixels)]
    first, second = inference_workers.unpack_results(inference_workers.pack_results(sent, costly), 2, 2, 3, costly)
    assert (first.verdict, first.seconds, first.scores) == (Verdict.COSTLY, 0.5, None)
    assert second.scores.tolist() == [1, 2, 3]
    assert np.array_equal(second.pixels, pixels) if costly else second.pixels is None


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2::1", "20010db800010002"),
        ("2001:db8:1:2:9::", "20010db800010002"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_them(address, client):
    assert client_of(SimpleNamespace(client=SimpleNamespace(host=address))) == client
