"""A service in this process: the real application and server around a classifier in closed form."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import uvicorn
from PIL import Image

from paddle_resnet.service import Settings, predict, server
from paddle_resnet.service.app import Application
from paddle_resnet.service.worker_process import BoundedDecoder, explanation, run_batch

CLASSES = ("red", "green", "blue")
SIZE = 8
MAX_BODY = 100_000


class ColourPredictor:
    """Answers with the shares of red, green and blue in a picture. `gate` holds it up; `fault` makes it fail."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.fault = None
        self.batches = []

    def scores(self, batch):
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        self.batches.append(len(batch))
        return shares(batch)


class ColourWorkers:
    """In place of `InferenceWorkers`: decodes as they do, and asks the predictor, in a thread."""

    def __init__(self, predictor, max_pixels):
        self.usable = True
        self.ready = self.idle = 1
        self._predictor = predictor
        self._decoder = BoundedDecoder(resize=SIZE, image_size=SIZE, max_pixels=max_pixels, max_seconds=60)

    def wait_until_ready(self):
        pass

    def kill(self):
        pass

    def connect(self, on_idle, on_replaced):
        pass

    def run(self, batch):
        self.idle = 0
        return self._compute(batch)

    async def _compute(self, batch):
        decode = functools.partial(self._decoder.decode, cheap_only=not batch.costly)
        try:
            results = await asyncio.to_thread(run_batch, batch.images, decode, self._predictor.scores)
        finally:
            self.idle = 1
        if batch.explain is not None and results[0].scores is not None:
            heat = np.zeros((224, 224), np.float32)
            heat[:112] = 1  # the upper half speaks for any class
            results[0] = results[0]._replace(explanation=explanation("any", 0.5, decode(batch.images[0]), heat))
        return results

    async def close(self):
        pass


def shares(batch):
    """The closed form: of each picture the share of each channel in the sum of all."""
    sums = batch.astype(np.float64).sum((1, 2)) + 1
    return (sums / sums.sum(1, keepdims=True)).astype(np.float32)


class Service:
    """A running service: its address, its predictor, and what it logged."""

    def __init__(self, port, predictor, lines, application):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.predictor = predictor
        self.lines = lines
        self.application = application

    def wait_for_images(self, number):
        """Wait until so many images are admitted and not answered."""
        registry = self.application.metrics.registry
        wait_until(lambda: registry.get_sample_value("paddle_resnet_queue_images") == number)

    def talk(self, *pieces, pause=0.0):
        """Send bytes on a new connection; return what the service sends until it closes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            received = b""
            with contextlib.suppress(ConnectionError):
                while data := connection.recv(65536):
                    received += data
        return received


@contextlib.contextmanager
def running(monkeypatch, folder, **settings):
    """Run a service around a `ColourPredictor` in a thread."""
    predictor = ColourPredictor()
    config = SimpleNamespace(
        folder=folder / "inference",
        model="colours",
        classes=CLASSES,
        threshold=0.4,
        input=SimpleNamespace(image_size=SIZE),
        digest=lambda: 64 * "0",
    )
    monkeypatch.setattr(predict, "InferenceConfig", SimpleNamespace(load=lambda model_dir: config))
    make = lambda settings, *_: ColourWorkers(predictor, settings.max_pixels)  # noqa: E731
    monkeypatch.setattr(predict, "InferenceWorkers", make)
    settings = {"max_wait": 0.001, "explain": False, **settings}
    with serve_in_thread(Settings(model=folder, **settings)) as (port, application, lines):
        try:
            yield Service(port, predictor, lines, application)
        finally:
            predictor.gate.set()


@contextlib.contextmanager
def serve_in_thread(settings):
    """Run the application of `settings` on a free port; give the port, the application and its log records."""
    lines = []
    handler = logging.Handler()
    handler.emit = lines.append
    logger = logging.getLogger("paddle_resnet.service")
    logger.addHandler(handler)
    listener = socket.create_server(("127.0.0.1", 0))
    application = Application(settings)
    running_server = uvicorn.Server(server.DrainingServer(application, settings).config)
    thread = threading.Thread(target=running_server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not running_server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listener.getsockname()[1], application, lines
    finally:
        running_server.should_exit = True
        thread.join()
        logger.removeHandler(handler)


def picture(colour=(200, 40, 10), size=(12, 10), kind="PNG", **options):
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **options)
    return file.getvalue()


def form(pictures, boundary=b"x7", name=b"images", filename=b"a.png"):
    """A multipart body."""
    head = b'Content-Disposition: form-data; name="%s"; filename="%s"' % (name, filename)
    parts = [b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, head, each) for each in pictures]
    return b"".join([*parts, b"--%s--\r\n" % boundary])


FORM = {"Content-Type": "multipart/form-data; boundary=x7"}
IMAGE = {"Content-Type": "image/png"}


def wait_until(condition):
    """Wait until a condition is true; fail after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)
