"""Weights from a file: reading it as data, checking that it fits, giving a new head where the classes differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle.vision.models.resnet import model_urls

from paddle_resnet import download, safe_pickle
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.files import md5_of
from paddle_resnet.models.registry import list_models
from paddle_resnet.models.resnet import ResNet

HEAD = ("fc.weight", "fc.bias")
_SHOWN = 3  # names in one line of an error


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network's state dict a file gave, by name.

    Attributes:
        source: the file, as messages name it.
        classes: outputs of the network's head.
        loaded: taken from the file.
        skipped_head: the head's, left new because the file has no head or one for another number of classes.
        missing: in the network but not in the file.
        unexpected: in the file but not in the network.
        mismatched: in both, but of another shape or not floating-point; each with an explanation.
    """

    source: str
    classes: int
    loaded: tuple[str, ...]
    skipped_head: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]

    def summary(self) -> str:
        """One line, such as ``x.pdparams: 100 of 102 tensors loaded; new head for 10 classes (fc.weight, fc.bias)``."""
        total = len(self.loaded) + len(self.skipped_head) + len(self.missing) + len(self.mismatched)
        line = f"{self.source}: {len(self.loaded)} of {total} tensors loaded"
        if self.skipped_head:
            line += f"; new head for {self.classes} classes ({', '.join(self.skipped_head)})"
        return line

    def require_fit(self) -> None:
        """Refuse weights that fit only in part.

        Raises:
            UsageError: names the first tensors that do not fit, and the likely cause.
        """
        problems = []
        if self.missing:
            problems.append(f"{len(self.missing)} missing ({_first(self.missing)})")
        if self.unexpected:
            problems.append(f"{len(self.unexpected)} unexpected ({_first(self.unexpected)})")
        if self.mismatched:
            problems.append(f"{len(self.mismatched)} that do not match ({_first(tuple(self.mismatched.values()))})")
        if problems:
            raise UsageError(f"{self.source}: does not fit the network: {'; '.join(problems)}; {self._likely_cause()}")

    def _likely_cause(self) -> str:
        if any(name.endswith(".running_mean") for name in self.unexpected):
            return "these are PyTorch's names: convert the file to Paddle's first"
        if list(self.mismatched) == ["conv1.weight"] and not self.missing and not self.unexpected:
            return "only the first convolution differs: probably the number of input channels"
        return "probably the weights of another architecture: check the model's name"


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a ``.pdparams`` file of `paddle.save` (Paddle 2 or 3) as data: no code of the file is run.

    Returns:
        The arrays by their structured names, ``layer1.0.conv1.weight``.

    Raises:
        UsageError: the file is missing, empty, damaged, no pickle, asks for code, or holds something else than tensors.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; expected a .pdparams file of paddle.save")
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a .pdparams file of paddle.save")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path}: is empty; expected a .pdparams file of paddle.save")
        with path.open("rb") as file:
            # As paddle.load: latin1 reads the arrays of a file written under Python 2.
            content = safe_pickle.load(file, str(path), encoding="latin1")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a state dict (names and tensors), found {_kind(content)}")
    content = dict(content)
    content.pop("StructuredToParameterName@@", None)  # paddle.save's table of parameter names; the keys are structured
    return {name: _array(value, name, path) for name, value in _joined(content, path).items()}


def load_weights(
    network: ResNet, state: Mapping[str, np.ndarray], *, source: str = "weights", new_head: bool = True
) -> LoadReport:
    """Copy a state dict, BatchNorm's running statistics included, into `network`.

    Paddle's `set_state_dict` only warns of what does not fit; here everything must, and nothing is copied otherwise.

    Args:
        network: the network that takes the weights.
        state: arrays by name, as `read_state_dict` returns them.
        source: what messages call the file.
        new_head: let the network keep its new head where `state` has none, or one for another number of classes.

    Raises:
        UsageError: something is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    report = _compare(network, state, source, new_head)
    report.require_fit()
    for name in report.loaded:
        own[name].set_value(state[name].astype(own[name].numpy().dtype))
    return report


def load_pretrained(
    network: ResNet, name: str, source: str | Path, *, report: download.Report | None = None
) -> LoadReport:
    """Load the official ImageNet weights of the model `name` (source ``"imagenet"``), or a ``.pdparams`` file (a path).

    Official weights are kept where Paddle keeps them, in ``~/.cache/paddle/hapi/weights/``. `report` is called with
    (bytes so far, bytes in all) while they are downloaded.

    Raises:
        UsageError: no official weights, no network, a damaged file, or weights that do not fit.
    """
    path = _official_weights(name, report) if source == "imagenet" else Path(source).expanduser()
    return load_weights(network, read_state_dict(path), source=str(path))


def _official_weights(name: str, report: download.Report | None) -> Path:
    """Return the file of the official weights, downloaded if it is not there yet."""
    if name not in model_urls:
        official = ", ".join(known for known in list_models() if known in model_urls)
        raise UsageError(f'no official "imagenet" weights for {name}; there are some for {official}')
    url, md5 = model_urls[name]
    path = Path("~/.cache/paddle/hapi/weights").expanduser() / url.rsplit("/", 1)[-1]
    if not path.exists():
        logger.info("downloading %s to %s", url, path)
        download.fetch(url, path, md5, report)
    elif (found := md5_of(path)) != md5:
        raise UsageError(
            f"{path}: MD5 is {found}, that of the official file is {md5}; "
            "delete it to download it again, or give its path to load it as your own"
        )
    return path


def _compare(network: ResNet, state: Mapping[str, np.ndarray], source: str, new_head: bool) -> LoadReport:
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
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
        unexpected=tuple(name for name in state if name not in shapes),
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
        return f"{name} is {list(array.shape)}, expected {shape}"
    if array.dtype.kind != "f":
        return f"{name} is of type {array.dtype}, expected floating-point numbers"
    return None


def _joined(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Join the tensors that paddle.save cut up because pickle protocols 2 and 3 hold no more than 4 GB."""
    cut = content.pop("UnpackBigParamInfor@@", {})  # spelled so in Paddle
    try:
        for name, pieces in cut.items():
            flat = np.concatenate([content.pop(piece) for piece in pieces["slices"]])
            content[name] = flat.reshape(pieces["OriginShape"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: its table of cut-up tensors is damaged; copy or download the file again") from None
    return content


def _array(value: Any, name: Any, path: Path) -> np.ndarray:
    """Return a saved tensor's array; Paddle saves it as it is, or as (parameter name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
        raise UsageError(
            f"{path}: expected names and tensors, but {name!r} holds {_kind(value)}; "
            "a network's weights are a .pdparams file (an optimizer's state is .pdopt)"
        )
    return value


def _kind(value: Any) -> str:
    empty = isinstance(value, dict | list | tuple) and not value
    return f"{'an empty' if empty else 'a'} {type(value).__name__}"


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
