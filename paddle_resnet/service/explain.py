"""Grad-CAM beside the exported model: the run's checkpoint, which has gradients, shows where the network looks."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from PIL import Image

from paddle_resnet.config import Config
from paddle_resnet.data import Normalize
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.models import create_configured_model, load_weights
from paddle_resnet.service.logs import log

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor
    from paddle_resnet.models import ImageClassifier

HEAT = (213, 94, 0)
"""Okabe and Ito's vermilion, seen with any kind of colour vision."""
SHOWN_SIZE = 224
"""Pixels a side of the heat, at least: a map of few places is interpolated, not shown as squares."""
PROBES = 8
TOLERANCE = 0.1
"""Of a probability on random pictures: reduced precision stays within it, weights of another training do not."""


@dataclass(frozen=True)
class Explanation:
    """Where a class's evidence is, over what the network sees of the picture."""

    label: str
    probability: float
    picture: np.ndarray
    """uint8 ``[S, S, 3]``."""
    heat: np.ndarray
    """float32 ``[T, T]`` in 0..1, T at least `SHOWN_SIZE`."""

    def as_json(self) -> dict[str, object]:
        """With both pictures as data URLs of PNGs; the heat is one colour, more or less opaque."""
        colour = np.empty((*self.heat.shape, 4), np.uint8)
        colour[..., :3] = HEAT
        colour[..., 3] = np.rint(255 * self.heat)
        return {
            "class": self.label,
            "probability": round(self.probability, 6),
            "picture": _data_url(Image.fromarray(self.picture)),
            "heat": _data_url(Image.fromarray(colour)),
        }


class Explainer:
    """The trained network of an exported model. One picture at a time, from any thread."""

    def __init__(self, network: ImageClassifier, normalize: Normalize, classes: Sequence[str]) -> None:
        self._network = network
        self._normalize = normalize
        self._classes = classes
        self._turn = threading.Lock()

    @classmethod
    def beside(cls, predictor: Predictor) -> Explainer | None:
        """Load the run's best checkpoint from beside the exported model; None where there is none that fits it."""
        run = predictor.path.resolve().parent
        weights = run / "checkpoints" / "best" / "model.pdparams"
        if not weights.is_file() or not (run / "config.yaml").is_file():
            return None
        try:
            explainer = cls(*_load(run / "config.yaml", weights, predictor), predictor.classes)
            difference = explainer._difference(predictor)
        except PaddleResNetError as error:
            log("no explanations", reason=str(error))
            return None
        if not difference <= TOLERANCE:
            log("no explanations", reason="the run's checkpoint is not what was exported", difference=difference)
            return None
        return explainer

    def explain(self, pixels: np.ndarray, scores: np.ndarray, label: str | None = None) -> Explanation:
        """Explain a class, by default the most probable one.

        Args:
            pixels: a picture, uint8 ``[S, S, 3]``.
            scores: what the exported model says of it, ``[classes]``.
            label: the class.
        """
        index = int(scores.argmax()) if label is None else list(self._classes).index(label)
        size = max(SHOWN_SIZE, *pixels.shape[:2])
        with self._turn:
            maps = grad_cam(self._network, self._normalize(paddle.to_tensor(pixels[np.newaxis])), [index])
            heat = enlarge(maps, size, size)[0]
        return Explanation(self._classes[index], float(scores[index]), pixels, heat / max(float(heat.max()), 1e-12))

    def _difference(self, predictor: Predictor) -> float:
        """How far the network's probabilities are from the exported model's, on random pictures."""
        size = predictor.config.input.image_size
        pictures = np.random.default_rng(0).integers(0, 256, (PROBES, size, size, 3), dtype=np.uint8)
        with paddle.no_grad():
            logits = self._network(self._normalize(paddle.to_tensor(pictures)))
            ours = paddle.nn.functional.softmax(logits, axis=-1).numpy()
        return float(np.abs(ours - predictor.scores(pictures)).mean())


def _load(config: Path, weights: Path, predictor: Predictor) -> tuple[ImageClassifier, Normalize]:
    network = create_configured_model(Config.load(config).model, len(predictor.classes))
    load_weights(network, weights, new_head=False)
    network.eval()
    normalization = predictor.config.normalization
    return network, Normalize(normalization.mean, normalization.std)


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
