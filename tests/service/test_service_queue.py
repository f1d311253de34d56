"""The queue and the batcher: turns, budgets, costly images, done requests, and images that kill workers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
from paddle_resnet.service import Settings
from paddle_resnet.service.batcher import Batcher, FairQueue, PendingRequest
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.inference_workers import WorkerDied
from paddle_resnet.service.predict import client_of
from paddle_resnet.service.telemetry import Metrics
from paddle_resnet.service.worker_process import ImageResult, ImageStatus, run_batch

OK = ImageResult(ImageStatus.OK, np.zeros(2, np.float32))


RETRY = (503, "unavailable", {"Retry-After": "1"})


def queued(queue, *names):
    """Queue images such as "a1.0": of client a its request a1, image 0. Return the requests by name."""
    requests = {}
    for name in names:
        request_name = name.partition(".")[0]
        request = requests.setdefault(request_name, Request(request_name[0], request_name))
        queue.put(SimpleNamespace(request=request, name=name))
    return requests


class Request:
    done = False

    def __init__(self, client, name):
        self.client, self.name = client, name


def names(queue):
    return [image.name for image in queue.take(len(queue))]


def test_clients_and_their_requests_take_turns():
    queue = FairQueue()
    queued(queue, "a1.0", "a1.1", "a1.2", "a2.0", "b1.0", "c1.0", "c1.1")
    assert names(queue) == ["a1.0", "b1.0", "c1.0", "a2.0", "c1.1", "a1.1", "a1.2"]
    assert len(queue) == 0


def test_requeued_images_are_first_and_requests_can_be_dropped():
    queue = FairQueue()
    requests = queued(queue, "a1.0", "a1.1", "b1.0", "b2.0")
    queue.put(SimpleNamespace(request=requests["b2"], name="again"), first=True)
    queue.drop(requests["a1"])
    queue.drop(requests["a1"])
    assert len(queue) == 3
    assert names(queue) == ["again", "b1.0", "b2.0"]


class ManualBatcher(Batcher):
    """A batcher whose batches end when `step` says so; `calls` are the images of each batch, and whether costly."""

    def __init__(self, workers=1, **settings):
        self.calls = []
        self.ready = self.idle = workers
        self.usable = True
        self.under_way = asyncio.Queue()
        settings = {"max_batch": 4, "queue": 100, **settings}
        super().__init__(self, Settings(model="none", max_wait=0, **settings), Metrics())

    def run(self, batch):
        """Take the place of the workers."""
        self.idle -= 1
        self.calls.append((b" ".join(batch.images).decode(), batch.costly))
        results = asyncio.get_running_loop().create_future()
        self.under_way.put_nowait((batch, results))
        return results

    async def step(self, error=None):
        """End the batch that was started first."""
        batch, results = await asyncio.wait_for(self.under_way.get(), 10)
        self.idle += 1
        if error is not None:
            results.set_exception(error)
        else:
            results.set_result([self.result_of(*each, batch.costly) for each in enumerate(batch.images)])
        await settled()

    def result_of(self, index, image, costly):
        return self.result(image, costly)

    def result(self, image, costly):
        if image.startswith(b"costly") and not costly:
            return ImageResult(ImageStatus.COSTLY)
        return OK

    def ask(self, client, *images, explain=None):
        request = PendingRequest(client, explain)
        self.admit(request, len(images))
        self.put(request, [image.encode() for image in images])
        return request

    async def finish(self):
        while self.under_way.qsize():
            await self.step()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_cheap_images_do_not_wait_for_costly_ones():
    async def scenario():
        batcher = ManualBatcher(max_batch=16)
        attack = batcher.ask("a", *[f"costly{i}" for i in range(6)])
        await settled()
        while not batcher.calls[-1][1]:  # they are found to be costly, and the first is being decoded
            await batcher.step()
        same, other = batcher.ask("a", "cheap"), batcher.ask("b", "cheap")
        while not (same.done and other.done):
            await batcher.step()
        assert [costly for _, costly in batcher.calls].count(True) <= 2 and not attack.done
        await batcher.finish()
        assert len(attack.results.result()) == 6
        assert all(" " not in images for images, costly in batcher.calls if costly)

    asyncio.run(scenario())


def test_costly_images_leave_a_worker_to_the_others():
    async def scenario():
        batcher = ManualBatcher(workers=2)
        batcher.ask("a", *[f"costly{i}" for i in range(8)])
        await settled()
        while not batcher.calls[-1][1]:
            await batcher.step()
        await settled()
        assert [costly for _, costly in batcher.calls].count(True) == 1
        await batcher.finish()

    asyncio.run(scenario())


def test_explanations_take_turns_with_predictions():
    """One by one, and never on all workers: a burst of them would take the places of predictions."""

    async def scenario():
        batcher = ManualBatcher(workers=2)
        explained = [batcher.ask("a", f"explain{i}", explain="") for i in range(3)]
        predicted = batcher.ask("b", "cheap")
        await settled()
        assert batcher.calls == [("explain0", True), ("cheap", False)]
        await batcher.finish()
        assert [each.results.result() for each in (*explained, predicted)] == [[OK]] * 4

    asyncio.run(scenario())


def test_images_of_done_requests_are_not_computed():
    async def scenario():
        batcher = ManualBatcher()
        requests = [batcher.ask("a", f"{i}.0", f"{i}.1", f"{i}.2", f"{i}.3") for i in range(4)]
        await settled()
        requests[2].time_out()
        batcher.release(requests[3])
        await batcher.finish()
        computed = " ".join(images for images, _ in batcher.calls)
        assert {each[0] for each in computed.split()} == {"0", "1"}

    asyncio.run(scenario())


def test_a_request_that_nobody_awaits_any_more_leaves_no_message():
    """It timed out while its body was split, and the body was wrong: the client is told of the body."""
    messages = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: messages.append(context["message"]))
        pending = PendingRequest()
        pending.time_out()
        with pytest.raises(ServiceError):
            await asyncio.shield(pending.results)
        del pending
        PendingRequest().time_out()  # collected at once

    asyncio.run(scenario())
    assert messages == []


def test_images_that_were_not_begun_are_next():
    async def scenario():
        batcher = ManualBatcher(max_batch=8)
        turns = iter([False, True])
        batcher.result = lambda image, costly: (
            ImageResult(ImageStatus.NOT_BEGUN) if image == b"last" and not next(turns) else OK
        )
        request = batcher.ask("a", "first", "last")
        await settled()
        await batcher.finish()
        assert request.results.result() == [OK, OK]
        assert batcher.calls == [("first last", False), ("last", False)]

    asyncio.run(scenario())


def test_images_that_were_not_begun_keep_their_order():
    """Or the images in the middle would wait for ever."""
    begun = []

    def result_of(index, image, costly):
        if index > 1:
            return ImageResult(ImageStatus.NOT_BEGUN)
        begun.append(image.decode())
        return OK

    async def scenario():
        batcher = ManualBatcher(max_batch=16)
        batcher.result_of = result_of
        requests = [batcher.ask(client, client + "0", client + "1") for client in "zabcde"]
        await settled()
        await batcher.finish()
        assert all(request.done for request in requests)
        assert begun == ["z0", "z1", "a0", "b0", "c0", "d0", "e0", "a1", "b1", "c1", "d1", "e1"]

    asyncio.run(scenario())


def test_only_an_image_that_kills_two_workers_is_refused():
    async def scenario():
        batcher = ManualBatcher()
        before = [batcher.ask("a", "x")]
        good, bad, more = batcher.ask("a", "good"), batcher.ask("b", "bad"), batcher.ask("c", "more")
        await settled()
        while batcher.under_way.qsize():
            batch, _ = batcher.under_way._queue[0]
            await batcher.step(WorkerDied() if b"bad" in batch.images else None)
        error = bad.results.exception()
        assert (error.status, error.code, error.image) == (422, "deadly_image", 0)
        assert all(request.results.result() == [OK] for request in (*before, good, more))
        assert ("good bad more", False) in batcher.calls
        assert [call for call in batcher.calls if "bad" in call[0]] == [("good bad more", False), ("bad", True)]

    asyncio.run(scenario())


def test_without_a_worker_a_request_is_refused_at_once():
    async def scenario():
        batcher = ManualBatcher()
        batcher.check_capacity("a")
        batcher.usable = False
        with pytest.raises(ServiceError) as refused:
            batcher.check_capacity("a")
        assert (refused.value.status, refused.value.code, refused.value.headers) == RETRY

    asyncio.run(scenario())


def test_in_a_full_queue_the_largest_client_makes_room():
    async def scenario():
        batcher = ManualBatcher(queue=8, workers=0)
        first, last = batcher.ask("a", *"1234"), batcher.ask("a", *"5678")
        with pytest.raises(ServiceError, match="too many"):
            batcher.check_capacity("a")
        batcher.check_capacity("b")
        honest = batcher.ask("b", "9")
        assert last.results.exception().status == 429 and not first.done and not honest.done
        assert batcher.admitted == 5
        with pytest.raises(ServiceError):
            batcher.ask("b", *"12345")  # would have more than the others
        filling = batcher.ask("c", *"123")
        with pytest.raises(ServiceError):
            batcher.ask("b", *"123")  # would have as many as the largest
        more = batcher.ask("b", "1")
        assert first.results.exception().status == 429 and not (filling.done or more.done)
        for request in (first, last, honest, filling, more):
            batcher.release(request)
        assert batcher.admitted == 0

    asyncio.run(scenario())


def test_a_slow_batch_runs_without_its_last_images():
    now = iter([0.0, 0.1, 0.2, 0.4, 0.5])
    decoded = []

    def decode_one(data):
        decoded.append(data)
        return np.zeros((1, 1, 3), np.uint8)

    results = run_batch([b"a", b"b", b"c", b"d"], decode_one, lambda batch: batch[:, 0, 0, :2], map, now.__next__)
    assert decoded == [b"a", b"b", b"c"]
    assert [each.status for each in results] == [ImageStatus.OK] * 3 + [ImageStatus.NOT_BEGUN]
    assert results[3].scores is None and results[0].scores.shape == (2,)


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
def test_a_client_is_an_address_or_an_ipv6_network(address, client):
    assert client_of(address) == client
