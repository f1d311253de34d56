"""Read, write and convert weights files of all formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import paddle
from safetensors.numpy import save

from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import write_atomically
from paddle_resnet.models.weights.identify import identify, listed, log_choice, unusual_numbers
from paddle_resnet.models.weights.naming import to_torch_names
from paddle_resnet.models.weights.projects import PADDLECLAS_VB, PADDLECLAS_VD
from paddle_resnet.models.weights.weights_file import parse_source
from paddle_resnet.paths import expand_home
from paddle_resnet.zoo.imagenet_weights import SOURCES
from paddle_resnet.zoo.matching import matching_models

WrittenNames = Literal["paddle", "torch", "paddleclas"]
# With use_first_short_conv=False, PaddleClas makes the others of 18 and 34 layers too.
_PADDLECLAS = {*SOURCES["imagenet:paddleclas"], "resnet18", "resnet34", "resnet18_d", "resnet34_d"}
_NOT_IN_PADDLE = ("uint32", "uint64")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a weights file as `read_weights_file` does, and convert it to the names here and Paddle's layout.

    ``FILE#ema`` reads the copy of that name in the file, ``FILE#pad=both`` reorders the channels of a network whose
    parameter-free shortcuts add zeros on both sides.

    Returns:
        The arrays by Paddle's structured names, ``layer1.0.conv1.weight``, linear weights as ``[in, out]``. bfloat16
        becomes float32, other types stay.

    Raises:
        UsageError: as `read_weights_file`.
    """
    source = parse_source(path)
    found = identify(source)
    log_choice(found.file, found.named, str(source.path))
    if found.head:
        logger.info("%s: its head is called %s", source.path, listed(found.head))
    return found.arrays


def write_state_dict(path: str | Path, state: Mapping[str, np.ndarray], names: WrittenNames = "paddle") -> int:
    """Write a state dict; the suffix tells the format: ``.pdparams`` (for `paddle.load`) or ``.safetensors``.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        state: arrays by Paddle's names, as of `read_state_dict`.
        names: ``"torch"``: use PyTorch's names and layout, for ``load_state_dict(strict=True)``; ``"paddleclas"``: use
            PaddleClas's names.

    Returns:
        The number of tensors written.

    Raises:
        UsageError: another suffix, a type of numbers that Paddle has not, or a network that PaddleClas has not.
        RunFailure: the file cannot be written.
    """
    path = expand_home(path)
    require_writable_format(path)
    arrays = to_torch_names(state) if names == "torch" else state
    if names == "paddleclas":
        arrays = _paddleclas_names(state, path)
    if path.suffix == ".pdparams":
        if others := [name for name, array in arrays.items() if array.dtype.name in _NOT_IN_PADDLE]:
            raise UsageError(
                f"{path}: {shown(others[0])} is of type {arrays[others[0]].dtype}, which Paddle has not; "
                "write a .safetensors file, or leave this tensor out"
            )
        tensors = {name: paddle.to_tensor(array, place=paddle.CPUPlace()) for name, array in arrays.items()}
        write_atomically(path, lambda temporary: paddle.save(tensors, str(temporary)))
    else:
        # np.array with order C: safetensors writes the memory's order, and 0-d arrays must stay 0-d.
        content = save(
            {name: np.array(array, order="C") for name, array in arrays.items()},
            {"names": "torch" if names == "torch" else "paddle"},
        )
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return len(arrays)


def _paddleclas_names(state: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    if not _PADDLECLAS & {*matching_models({name: array.shape for name, array in state.items()})}:
        raise UsageError(
            f"{path}: PaddleClas has no such network: expected the weights of one of {', '.join(sorted(_PADDLECLAS))}; "
            "write them without --names paddleclas"
        )
    project = PADDLECLAS_VD if "conv1.6.weight" in state else PADDLECLAS_VB
    names = project.restore(list(state))
    if unknown := [name for name in state if name not in names and not name.startswith("fc.")]:
        raise UsageError(f"{path}: PaddleClas's ResNets have nothing like {listed(unknown)}; leave that out")
    return {names.get(name, name): array for name, array in state.items()}


def require_writable_format(path: Path) -> None:
    """Raise a `UsageError` unless the suffix is one of the two formats that can be written."""
    if path.suffix not in (".pdparams", ".safetensors"):
        raise UsageError(
            f"{path}: expected a .pdparams or .safetensors file to write; "
            "PyTorch reads the latter by safetensors.torch.load_file"
        )


def convert_weights(source: str | Path, destination: str | Path, names: WrittenNames = "paddle") -> int:
    """Convert weights from any format of `read_state_dict` to one of `write_state_dict`; return the number of tensors.

    Raises:
        UsageError: `source` cannot be read, or `destination` exists or has another suffix.
        RunFailure: `destination` cannot be written.
    """
    source, destination = expand_home(source), expand_home(destination)
    require_writable_format(destination)
    if destination.exists():
        same = source.exists() and source.samefile(destination)
        raise UsageError(f"{destination}: {'is the file to convert' if same else 'exists already'}; give another name")
    arrays = read_state_dict(source)
    if unusual := unusual_numbers(arrays):
        logger.info("%s: its numbers: %s; they stay as they are", source, unusual)
    return write_state_dict(destination, arrays, names)
