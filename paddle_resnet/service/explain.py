"""`POST /explain` in a worker: Grad-CAM beside the exported model, with the run's checkpoint, which has gradients."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from paddle_resnet import runtime
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.service.telemetry import log

if TYPE_CHECKING:
    from paddle_resnet.data import Normalize
    from paddle_resnet.inference import Predictor
    from paddle_resnet.models import ImageClassifier

CHECKPOINT = Path("checkpoints", "best", "model.pdparams")
"""In the run's folder."""
HEAT_COLOR = (213, 94, 0)
"""Okabe and Ito's vermilion, visible with any kind of colour vision."""
MIN_HEAT_SIZE = 224
"""Pixels a side of the heat map, so that a coarse map is interpolated and not shown as squares."""


class Explainer:
    """The trained network of an exported model, and the model's predictor."""

    def __init__(self, network: ImageClassifier, normalize: Normalize, predictor: Predictor) -> None:
        self._network, self._normalize, self._predictor = network, normalize, predictor

    @classmethod
    def load(cls, predictor: Predictor) -> Explainer | None:
        """Load the best checkpoint of the run whose exported model is served; None if it is another model."""
        runtime.import_paddle()
        from paddle_resnet.exporting.accuracy import load_trained

        try:
            trained = load_trained(predictor)
        except PaddleResNetError as error:
            log("no explanations", reason=str(error))
            return None
        return cls(trained.network, trained.normalize, predictor)

    def explain(self, pixels: np.ndarray, label: str) -> dict[str, Any]:
        """Return the response to `/explain` for an image, uint8 ``[S, S, 3]``; "" is the most probable class."""
        from paddle_resnet.evaluation.grad_cam import heat_map

        classes, scores = self._predictor.classes, self._predictor.scores(pixels[np.newaxis])[0]
        index = classes.index(label) if label else int(scores.argmax())
        heat = heat_map(self._network, self._normalize, pixels, index, max(MIN_HEAT_SIZE, *pixels.shape[:2]))
        return explanation(classes[index], float(scores[index]), pixels, heat)


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
