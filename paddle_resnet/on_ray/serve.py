"""The service on a Ray cluster: Ray Serve runs its application, and batches the images for replicas of the model.

Two deployments. `HTTP` is the application of `app.Application`, with its routes, bounds and errors, once on each node.
`MODEL` decodes and computes; Ray batches, scales, and replaces its replicas. Ray takes the place of this package's
inference workers and of its HTTP protocol. To Ray they are two applications, as `HTTP` has to end before `MODEL`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import ray
from ray import serve
from ray.exceptions import RayError
from starlette.types import ASGIApp

from paddle_resnet import signals
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, find_model
from paddle_resnet.on_ray.cluster import connect, pack_model, resources_of, unpack_model
from paddle_resnet.service.app import Application
from paddle_resnet.service.inference_workers import InferenceWorkers, WorkerDied
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import configure_logging, log
from paddle_resnet.service.worker_process import Batch, ImageData, ImageResult, make_worker

HTTP, MODEL = "paddle_resnet_http", "paddle_resnet_model"
BATCHES_AHEAD = 2
"""Batches that an `HTTP` replica sends ahead for each replica of the model. More images wait there, in fair turns."""
NOT_OFFERED = "/explain, SIGHUP, --drain, and limits on connections; the other limits hold for one node"


class RayWorkers(InferenceWorkers):
    """The replicas of the model in the place of worker processes. A call has one image: Ray makes the batches."""

    ready = idle = 0

    def __init__(self, at_once: int) -> None:
        self._workers, self._supervisors = [], []  # it starts and ends none
        self.ready = self.idle = at_once

    def connect(self, on_idle: Callable[[], object], on_replaced: Callable[[], object]) -> None:
        self._model = serve.get_deployment_handle(MODEL, MODEL)

    def run(self, batch: Batch) -> Awaitable[list[ImageResult]]:
        self.idle -= 1
        return self._run(batch)

    async def _run(self, batch: Batch) -> list[ImageResult]:
        (image,) = batch.images
        try:
            result = await (self._model.predict_costly if batch.costly else self._model.predict).remote(image)
        except RayError:
            raise WorkerDied from None
        finally:
            self.idle += 1
        if isinstance(result, str):
            raise RunFailure(result)
        return [result]


class _Model:
    """A replica of the model. Where an image ends its process, Ray starts another one."""

    def __init__(self, settings: Settings, packed: list[ray.ObjectRef], digest: str) -> None:
        configure_logging()
        with unpack_model(packed[0]) as model:
            self._compute = make_worker(settings.model_copy(update={"model": model}), digest)
        self._thread, self._timeout = ThreadPoolExecutor(1), settings.response_timeout
        self._started: float | None = None
        self.predict.set_max_batch_size(settings.max_batch)
        self.predict.set_batch_wait_timeout_s(settings.max_wait)

    @serve.batch
    async def predict(self, images: list[ImageData]) -> list[ImageResult | str]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, Batch(images))

    async def predict_costly(self, image: ImageData) -> ImageResult | str:
        batch = Batch([image], costly=True)
        return (await asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch))[0]

    def check_health(self) -> None:
        """Raise an error, on which Ray replaces this replica, where a batch takes too long."""
        if self._started is not None and time.monotonic() - self._started > self._timeout:
            raise TimeoutError(f"a batch takes more than {self._timeout} s")

    def _run(self, batch: Batch) -> list[ImageResult | str]:
        self._started = time.monotonic()
        results = self._compute(batch)
        self._started = None
        return [results] * len(batch.images) if isinstance(results, str) else [*results]


def serve_on_ray(settings: Settings, address: str) -> None:
    """Deploy on a cluster, wait for a signal, and remove the application; errors as of `connect` and `deploy`."""
    find_model(settings.model)
    configure_logging(settings.log_level)
    connect(address)
    deploy(settings)
    log("ready", url=f"http://{settings.host}:{settings.port}/", engine="ray")
    log("not offered with Ray", logging.WARNING, features=NOT_OFFERED)
    stop = threading.Event()
    with signals.handled(lambda *_: stop.set()):
        stop.wait()
    _remove()


def deploy(settings: Settings) -> None:
    """Start the application on the cluster, and return when it answers.

    Raise a UsageError if there is no model, no node can hold it, or the cluster serves one already, and a RunFailure if
    Ray cannot start the application.
    """
    config = InferenceConfig.load(settings.model)
    digest = config.digest()
    packed = [pack_model(config.folder)]  # in a list, as Ray would replace it by the files
    ahead = BATCHES_AHEAD * settings.max_batch
    resources, most, nodes = resources_of(settings.device, settings.threads)

    def application() -> ASGIApp:  # on a replica
        configure_logging(settings.log_level)
        with unpack_model(packed[0]) as model:
            own = settings.model_copy(update={"model": model, "max_batch": 1, "max_wait": 0})
            return Application(own, digest, RayWorkers(ahead * most))

    scaled = {"min_replicas": min(most, nodes), "max_replicas": most, "target_ongoing_requests": ahead}
    model = serve.deployment(
        name=MODEL, ray_actor_options=resources, autoscaling_config=scaled, max_ongoing_requests=2 * ahead
    )(_Model)
    http = serve.deployment(
        name=HTTP,
        num_replicas=nodes,
        max_replicas_per_node=1,  # its proxy prefers the one on its node: requests outlive other nodes
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=settings.max_connections,
        graceful_shutdown_timeout_s=settings.body_timeout + settings.response_timeout,
    )(serve.ingress(application)())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        _check_is_ours(settings)
        with ExitStack() as unless_ready:
            unless_ready.callback(_remove)
            serve.run(model.bind(settings, packed, digest), name=MODEL, route_prefix=None)
            serve.run(http.bind(), name=HTTP, route_prefix="/")
            unless_ready.pop_all()
    except (RayError, RuntimeError) as error:
        raise RunFailure(f"Ray could not start the service: {str(error).strip().splitlines()[-1]}") from error


def _remove() -> None:
    """Take no more requests, and when those under way are answered, end the replicas."""
    serve.delete(HTTP)
    serve.delete(MODEL)


def _check_is_ours(settings: Settings) -> None:
    """Check that Ray Serve has this address, as it keeps an earlier one in silence, and does not serve a model yet."""
    http = serve.context._get_global_client().http_config
    running = "Ray Serve runs on this cluster already"
    if (http.host, http.port) != (settings.host, settings.port):
        raise UsageError(f"{running}; take --host {http.host} --port {http.port}, or end it: serve shutdown")
    if HTTP in serve.status().applications:
        raise UsageError(f"{running}, with this service: end its command, or all of it: serve shutdown")
