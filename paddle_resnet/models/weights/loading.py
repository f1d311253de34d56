"""Load weights into a network: check that they fit, and keep a new head if the classes differ."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_resnet import download
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.blocks import ZeroPadShortcut
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.weights.identify import (
    HEAD,
    bad_numbers,
    from_both_sides,
    listed,
    log_choice,
    name_head,
    pads_both_sides,
    require_padded,
)
from paddle_resnet.models.weights.naming import fit_names
from paddle_resnet.models.weights.weights_file import WeightsSource, of_arrays, parse_source, read_weights_file
from paddle_resnet.zoo.cifar10_weights import zoo_weights
from paddle_resnet.zoo.imagenet_weights import is_official, official_weights
from paddle_resnet.zoo.matching import describe_match


@dataclass(frozen=True)
class LoadReport:
    """The tensors of a network's state dict by what became of them."""

    source: str  # the file's name in messages
    classes: int  # outputs of the network's head; 0: it has none
    loaded: tuple[str, ...]  # taken from the file
    # kept new, as the file has no head, or one without a bias or for another number of classes; or left out, as the
    # network has none
    skipped_head: tuple[str, ...]
    missing: tuple[str, ...]  # in the network but not in the file
    unexpected: tuple[str, ...]  # in the file but not in the network
    # in both, but of another shape, not floating-point or not finite; each with an explanation
    mismatched: Mapping[str, str]
    head: tuple[str, ...] = ()  # layers of the file's head, if it is not called ``fc``
    cause: str = ""  # probable, if it does not fit

    def summary(self) -> str:
        """Return a line as ``x.pdparams: 100 of 102 tensors loaded; new head for 10 classes (fc.weight, fc.bias)``."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        if self.classes:
            total += len(self.skipped_head)
        parts = [f"{self.source}: {len(self.loaded)} of {total} tensors loaded"]
        if self.skipped_head:
            head = f"new head for {self.classes} classes" if self.classes else "its head left out"
            parts.append(f"{head} ({', '.join(self.skipped_head)})")
        return "; ".join([*parts, *self.problems()])

    def require_fit(self) -> None:
        """Raise a `UsageError` with the first tensors that do not fit, and the likely cause."""
        if problems := self.problems():
            raise UsageError(f"{self.source}: does not fit the network: {'; '.join(problems)}; {self.cause}")

    def problems(self) -> list[str]:
        """Return what does not fit, in words."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected}
        problems = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
        if self.mismatched:
            problems.append(f"{len(self.mismatched)} that do not match ({listed([*self.mismatched.values()], 200)})")
        return problems


def load_weights(
    network: ImageClassifier,
    source: str | Path | WeightsSource | Mapping[str, Any],
    *,
    strict: bool = True,
    new_head: bool = True,
    label: str = "weights",
    progress: download.ProgressFn | None = None,
) -> LoadReport:
    """Copy weights, BatchNorm's running statistics included, into `network`.

    Paddle's `set_state_dict` only warns of tensors that do not fit; here all must fit, or nothing is copied.

        >>> import paddle_resnet
        >>> network = paddle_resnet.create_model("resnet20", num_classes=3)
        >>> report = paddle_resnet.load_weights(network, "cifar10")
        >>> len(report.loaded), report.skipped_head
        (95, ('fc.weight', 'fc.bias'))

    Args:
        network: the network that takes the weights.
        source: ``"imagenet"`` or another key of `zoo.imagenet_weights.SOURCES` (the official weights of the network's
            model), ``"cifar10"`` (those in the package), the path of a weights file, or arrays or tensors by name (of
            ``state_dict()``, `paddle.load`). ``FILE#ema`` takes the copy of that name in the file, ``FILE#pad=both``
            says that parameter-free shortcuts add their channels of zeros on both sides, ``FILE#pad=end`` behind the
            others. Arrays with PyTorch's names for BatchNorm's statistics are taken as PyTorch's, with linear weights
            ``[out, in]``; all others as Paddle's.
        strict: all must fit, except the head; False: copy what fits, and list the rest in the report.
        new_head: keep the network's new head if the weights have none, or one without a bias or for another number of
            classes.
        label: name of the arrays in messages, if they come from no file.
        progress: called with (bytes so far, bytes in all) during the download of official weights.

    Raises:
        UsageError: the file cannot be read, there are no such weights for the model, or a tensor is missing, unexpected
            or of another shape.
    """
    if not isinstance(network, ImageClassifier):
        raise UsageError(f"expected a network of create_model, got {shown(type(network).__name__)}")
    if not isinstance(source, str | os.PathLike | WeightsSource | Mapping):
        raise UsageError(f"expected a weights file, imagenet, cifar10 or arrays by name, got {shown(source)}")
    wanted = WeightsSource(Path())
    if isinstance(source, Mapping):
        file = of_arrays(source, label)
    else:
        wanted = source if isinstance(source, WeightsSource) else _source(network.model_name, source, progress)
        file = read_weights_file(wanted.path, wanted.take)
        label = f"cifar10/{wanted.path.name}" if source == "cifar10" else str(wanted.path)
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    named = fit_names(file.entries, file.layout, shapes)
    state, head = name_head(named.arrays, shapes)
    comparison = _compare(shapes, network.num_classes, state, label, new_head, head)
    log_choice(file, named, label)
    if head:
        new = f"a new one for {network.num_classes} classes takes its place" if network.include_top else "left out"
        logger.info("%s: its head is called %s: %s", label, listed(head), new if comparison.skipped_head else "loaded")
    if strict:
        comparison.require_fit()
    pad = wanted.options.get("pad")
    padded = any(isinstance(layer, ZeroPadShortcut) and layer.new_channels for layer in network.sublayers())
    require_padded(padded, pad, label)
    if padded and comparison.loaded and pads_both_sides(file, head, pad, label):
        comparison.require_fit()  # weights that fit in part cannot be reordered
        state = from_both_sides(state)
    own = network.state_dict()
    for name in comparison.loaded:
        # Through a tensor, as numpy has no bfloat16; from a type that Paddle reads, in the processor's byte order.
        numbers = np.ascontiguousarray(state[name], np.float64 if own[name].dtype == paddle.float64 else np.float32)
        own[name].set_value(paddle.to_tensor(numbers).astype(own[name].dtype))
    return comparison


def _source(name: str, source: str | Path, progress: download.ProgressFn | None) -> WeightsSource:
    if is_official(source):
        return WeightsSource(official_weights(str(source), name, progress))
    return WeightsSource(zoo_weights(name)) if source == "cifar10" else parse_source(source)


def _compare(
    shapes: Mapping[str, list[int]],
    classes: int,
    state: Mapping[str, np.ndarray],
    source: str,
    new_head: bool,
    head: tuple[str, ...],
) -> LoadReport:
    if HEAD[0] not in shapes:
        skipped = tuple(name for name in HEAD if name in state)
    else:
        skipped = HEAD if new_head and _needs_new_head(shapes, state) else ()
    mismatched = {
        name: problem
        for name in shapes
        if name in state and name not in skipped and (problem := _mismatch(name, state[name], shapes[name]))
    }
    report = LoadReport(
        source=source,
        classes=classes,
        loaded=tuple(name for name in shapes if name in state and name not in skipped and name not in mismatched),
        skipped_head=skipped,
        missing=tuple(name for name in shapes if name not in state and name not in skipped),
        unexpected=tuple(name for name in state if name not in shapes and name not in skipped),
        mismatched=mismatched,
        head=head,
    )
    return replace(report, cause=_likely_cause(report, shapes, state)) if report.problems() else report


def _likely_cause(report: LoadReport, shapes: Mapping[str, Sequence[int]], state: Mapping[str, np.ndarray]) -> str:
    """Return why the file may not fit, in words."""
    found = {name: array.shape for name, array in state.items()}
    if not report.missing and not report.unexpected and all(found[n] == tuple(shapes[n]) for n in report.mismatched):
        return "the shapes are right, but not the numbers: save or get the weights again"
    first = "conv1.weight"
    only_first = list(report.mismatched) == [first] and not report.missing and not report.unexpected
    if only_first and list(found[first][2:]) == list(shapes[first][2:]):
        return "only the first convolution differs: probably the number of input channels"
    if not report.unexpected and not {*report.missing, *report.mismatched} - {*HEAD}:
        return "all but the head fits; load_weights(..., strict=False) leaves it out"
    if any(_NUMBERED.fullmatch(name) for name in report.unexpected):
        return (
            "its names are Paddle's numbers of parameters, as in a static program or an optimizer's .pdopt, "
            "and do not tell the layers: save network.state_dict()"
        )
    return describe_match(found, shapes)


_NUMBERED = re.compile(r"[a-z0-9_]+_\d+\.[wb]_\d+(?:_\w+)?")
"""Names as ``conv2d_0.w_0``, or ``conv2d_0.w_0_moment1_0`` of an optimizer."""


def _needs_new_head(shapes: Mapping[str, list[int]], state: Mapping[str, np.ndarray]) -> bool:
    """Return whether `state` has no head, or one on the same features without a bias or for other classes."""
    if not any(name in state for name in HEAD):
        return True
    if HEAD[0] not in state:
        return False
    features, classes = shapes["fc.weight"]
    if HEAD[1] not in state:  # such as ArcFace's
        return state["fc.weight"].ndim == 2 and len(state["fc.weight"]) == features
    weight, bias = state["fc.weight"].shape, state["fc.bias"].shape
    return len(weight) == 2 and weight[0] == features and weight[1] != classes and bias == (weight[1],)


def _mismatch(name: str, array: np.ndarray, shape: list[int]) -> str | None:
    """Return why `array` cannot be the tensor `name`; None: it can."""
    if list(array.shape) != shape:
        return f"{name} is {shown(list(array.shape), 60)}, expected {shape}"
    if array.dtype.kind != "f":
        return f"{name} is of type {array.dtype}, expected floating-point numbers"
    if bad := bad_numbers(array):
        return f"{name} has {bad:,} NaN or infinite ones among {array.size:,} numbers"
    if name.endswith("_variance") and (negative := int((array < 0).sum())):
        return f"{name} has {negative:,} negative ones among {array.size:,} numbers"
    return None
