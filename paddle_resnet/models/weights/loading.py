"""Weights into a network: checking that they fit, giving a new head where the classes differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle

from paddle_resnet import download
from paddle_resnet.console import logger
from paddle_resnet.errors import shown
from paddle_resnet.files import expand_home
from paddle_resnet.models.blocks import ZeroPadShortcut
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.weights.names import StoredWeights, in_paddle_names, names_of
from paddle_resnet.models.weights.official import official_weights
from paddle_resnet.models.weights.reading import read_weights
from paddle_resnet.models.weights.report import LoadReport
from paddle_resnet.models.weights.zoo import zoo_weights

HEAD = ("fc.weight", "fc.bias")


def load_weights(
    network: ImageClassifier,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    strict: bool = True,
    new_head: bool = True,
    label: str = "weights",
    report: download.Report | None = None,
) -> LoadReport:
    """Copy weights, BatchNorm's running statistics included, into `network`.

    Paddle's `set_state_dict` only warns of what does not fit; here everything must, and nothing is copied otherwise.

    Args:
        network: the network that takes the weights.
        source: ``"imagenet"`` (the official weights of the network's model), ``"cifar10"`` (those in the package),
            the path of a ``.pdparams``, ``.pth``, ``.pt`` or ``.safetensors`` file, or arrays by name. Arrays with
            PyTorch's names for BatchNorm's statistics are taken as PyTorch's, with linear weights ``[out, in]``; all
            others as Paddle's.
        strict: everything must fit, except the head; False: what fits is copied, the report tells what does not.
        new_head: let the network keep its new head where the weights have none, or one for another number of classes.
        label: what messages call arrays that come from no file.
        report: called with (bytes so far, bytes in all) while official weights are downloaded.

    Raises:
        UsageError: the file cannot be read, no official weights, none in the package, or something is missing,
            unexpected or of another shape.
    """
    if isinstance(source, Mapping):
        arrays = dict(source)
        stored = StoredWeights(arrays, names_of(arrays) or "paddle")
    else:
        path = _file(network.model_name, source, report)
        stored, label = read_weights(path), str(path)
    state = in_paddle_names(stored)
    comparison = _compare(network, state, label, new_head)
    if strict:
        comparison.require_fit()
    own = network.state_dict()
    for name in comparison.loaded:
        # By way of a tensor: numpy knows no bfloat16.
        own[name].set_value(paddle.to_tensor(np.ascontiguousarray(state[name])).astype(own[name].dtype))
    if stored.names == "torch" and not stored.ours and comparison.loaded:
        _warn_of_shortcuts(network, label)
    return comparison


def load_pretrained(
    network: ImageClassifier, name: str, source: str | Path, *, report: download.Report | None = None
) -> LoadReport:
    """Load weights of the model `name`, or a weights file.

    Args:
        network: the network that takes the weights.
        name: the model's name.
        source: ``"imagenet"``: the official ones, kept where Paddle keeps them, in ``~/.cache/paddle/hapi/weights/``;
            ``"cifar10"``: those in the package; or a file's path.
        report: called with (bytes so far, bytes in all) while official weights are downloaded.

    Raises:
        UsageError: no such weights for this model, no network, a damaged file, or weights that do not fit.
    """
    return load_weights(network, _file(name, source, report))


def _file(name: str, source: str | Path, report: download.Report | None) -> Path:
    if source == "imagenet":
        return official_weights(name, report)
    return zoo_weights(name) if source == "cifar10" else expand_home(source)


def _warn_of_shortcuts(network: ImageClassifier, source: str) -> None:
    """Say that weights which fit may belong to another network: a shortcut without parameters leaves no trace."""
    if any(isinstance(layer, ZeroPadShortcut) and layer.new_channels for layer in network.sublayers()):
        logger.warning(
            "warning: %s has PyTorch's names, and the shortcuts of %s have no parameters: here they add channels of "
            "zeros at the end, other projects may add them on both sides, and then the answers are wrong; check the "
            "accuracy before you rely on these weights",
            source,
            network.model_name or "this network",
        )


def _compare(network: ImageClassifier, state: Mapping[str, np.ndarray], source: str, new_head: bool) -> LoadReport:
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    if HEAD[0] not in shapes:
        skipped = tuple(name for name in HEAD if name in state)
    else:
        skipped = HEAD if new_head and _needs_new_head(shapes, state) else ()
    mismatched = {
        name: problem
        for name in shapes
        if name in state and name not in skipped and (problem := _mismatch(name, state[name], shapes[name]))
    }
    return LoadReport(
        source=source,
        classes=network.num_classes,
        loaded=tuple(name for name in shapes if name in state and name not in skipped and name not in mismatched),
        skipped_head=skipped,
        missing=tuple(name for name in shapes if name not in state and name not in skipped),
        unexpected=tuple(name for name in state if name not in shapes and name not in skipped),
        mismatched=mismatched,
    )


def _needs_new_head(shapes: Mapping[str, list[int]], state: Mapping[str, np.ndarray]) -> bool:
    """Tell whether `state` has no head, or one on the same features for another number of classes."""
    if not any(name in state for name in HEAD):
        return True
    if not all(name in state for name in HEAD):
        return False
    features, classes = shapes["fc.weight"]
    weight, bias = state["fc.weight"].shape, state["fc.bias"].shape
    return len(weight) == 2 and weight[0] == features and weight[1] != classes and bias == (weight[1],)


def _mismatch(name: str, array: np.ndarray, shape: list[int]) -> str | None:
    """Say why `array` cannot be the tensor `name`, or None if it can."""
    if list(array.shape) != shape:
        return f"{name} is {shown(list(array.shape), 60)}, expected {shape}"
    if array.dtype.kind != "f":
        return f"{name} is of type {array.dtype}, expected floating-point numbers"
    return None
