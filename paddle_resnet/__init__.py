"""A PaddlePaddle ResNet toolkit: the networks, their training and their deployment.

    >>> import paddle_resnet
    >>> config = paddle_resnet.Config.load("configs/quickstart.yaml", ["train.epochs=1", "model.name=resnet8"])
    >>> run = paddle_resnet.train(config)
    >>> paddle_resnet.evaluate(run).images
    359
    >>> exported = paddle_resnet.export(run)
    >>> predictor = paddle_resnet.Predictor(exported.path)

The import chooses threads and BLAS path for Paddle, and imports neither Paddle nor anything else that takes long.
Import it before paddle, which reads them once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paddle_resnet import runtime

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Lesson",
    "Predictor",
    "Run",
    "accelerate",
    "create_model",
    "data",
    "evaluate",
    "export",
    "list_models",
    "load_weights",
    "prepare",
    "resume",
    "train",
]

# Before the first import of paddle: its BLAS reads these variables once.
runtime.prepare_process()

if TYPE_CHECKING:
    from paddle_resnet import data
    from paddle_resnet.config import Config
    from paddle_resnet.evaluation import evaluate
    from paddle_resnet.exporting import export
    from paddle_resnet.inference import Predictor
    from paddle_resnet.lessons import Lesson
    from paddle_resnet.models import create_model, list_models, load_weights
    from paddle_resnet.onednn import accelerate
    from paddle_resnet.runtime import prepare
    from paddle_resnet.training import Run, resume, train

_MODULES = {"Config": "config", "Lesson": "lessons", "Predictor": "inference", "accelerate": "onednn"}
_MODULES |= {"evaluate": "evaluation", "export": "exporting", "prepare": "runtime"}
_MODULES |= dict.fromkeys(("create_model", "list_models", "load_weights"), "models")
_MODULES |= dict.fromkeys(("Run", "resume", "train"), "training")


def __getattr__(name: str) -> Any:
    """Import a public name, and with it what it needs, at its first use."""
    if name == "data":
        return importlib.import_module("paddle_resnet.data")
    if name in _MODULES:
        return getattr(importlib.import_module(f"paddle_resnet.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'paddle_resnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | set(__all__))
