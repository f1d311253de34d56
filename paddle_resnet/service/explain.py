"""`POST /explain`: Grad-CAM beside the exported model, with the run's checkpoint, which has gradients."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from paddle_resnet.data import Normalize
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.evaluation.grad_cam import heat_map
from paddle_resnet.exporting.accuracy import load_trained
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.logs import log
from paddle_resnet.service.predict import InferencePipeline, json_response
from paddle_resnet.service.settings import Settings, load_predictor

if TYPE_CHECKING:
    from paddle_resnet.models import ImageClassifier

HEAT_COLOR = (213, 94, 0)
"""Okabe and Ito's vermilion, visible with any kind of colour vision."""
MIN_HEAT_SIZE = 224
"""Pixels a side of the heat map, so that a coarse map is interpolated and not shown as squares."""
MAX_EXPLANATIONS = 4
"""Few may wait: each runs the network forward and backward in this process, and takes its cores from /predict."""


class Explainer:
    """The trained network of an exported model. It explains one image at a time."""

    def __init__(self, network: ImageClassifier, normalize: Normalize, classes: Sequence[str]) -> None:
        self._network = network
        self._normalize = normalize
        self._classes = classes

    @classmethod
    def load(cls, settings: Settings) -> Explainer | None:
        """Load the best checkpoint of the run whose exported model is served; None if it is another model."""
        try:
            with load_predictor(settings) as predictor:
                trained = load_trained(predictor).classifier
                return cls(trained.network, trained.normalize, predictor.classes)
        except PaddleResNetError as error:
            log("no explanations", reason=str(error))
            return None

    def explain(self, pixels: np.ndarray, scores: np.ndarray, label: str | None = None) -> dict[str, Any]:
        """Return the response to `POST /explain`.

        Args:
            pixels: an image, uint8 ``[S, S, 3]``.
            scores: its probabilities by the exported model, ``[classes]``.
            label: the class to explain; None: the most probable one.
        """
        index = int(scores.argmax()) if label is None else list(self._classes).index(label)
        size = max(MIN_HEAT_SIZE, *pixels.shape[:2])
        heat = heat_map(self._network, self._normalize, pixels, index, size)
        return explanation(self._classes[index], float(scores[index]), pixels, heat)


def explanation(label: str, probability: float, pixels: np.ndarray, heat: np.ndarray) -> dict[str, Any]:
    """Return a class, its probability, and two PNGs as data URLs.

    `pixels`, uint8 ``[S, S, 3]``, is what the network sees. `heat`, float32 ``[T, T]`` in 0..1, is drawn in one colour,
    more or less opaque.
    """
    overlay = np.empty((*heat.shape, 4), np.uint8)
    overlay[..., :3] = HEAT_COLOR
    overlay[..., 3] = np.rint(255 * heat)
    shown = {"picture": _data_url(pixels), "heat": _data_url(overlay)}
    return {"class": label, "probability": round(probability, 6), **shown}


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def explain_endpoint(pipeline: InferencePipeline, explainer: Explainer) -> Callable[[Request], Awaitable[Response]]:
    """Return what responds to `POST /explain`."""
    classes = frozenset(pipeline.config.classes)
    thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
    under_way = 0

    async def explain(request: Request) -> Response:
        label = request.query_params.get("class")
        if label is not None and label not in classes:
            raise ServiceError(422, "unknown_class", "the model has no such class; GET /model lists them")
        nonlocal under_way
        if under_way > MAX_EXPLANATIONS:
            raise ServiceError(429, "busy", "too many explanations are waiting; try again later", retry_after=1)
        under_way += 1
        try:
            async with pipeline.run(request, 1, with_pixels=True) as (scores, pixels):
                assert pixels[0] is not None  # as `with_pixels` promises
                loop = asyncio.get_running_loop()
                return json_response(await loop.run_in_executor(thread, explainer.explain, pixels[0], scores[0], label))
        finally:
            under_way -= 1

    return explain
