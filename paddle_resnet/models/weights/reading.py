"""A weights file of any format, read as data and named as Paddle names tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.files import expand_home
from paddle_resnet.models.weights.names import StoredWeights, in_paddle_names
from paddle_resnet.models.weights.paddle_file import read_paddle
from paddle_resnet.models.weights.safetensors_file import read_safetensors
from paddle_resnet.models.weights.torch_file import read_torch

_READERS: Mapping[str, Callable[[Path], StoredWeights]] = {
    ".pdparams": read_paddle,
    ".pth": read_torch,
    ".pt": read_torch,
    ".tar": read_torch,  # the PyTorch examples' .pth.tar, which is no tar archive
    ".safetensors": read_safetensors,
}
_EXPECTED = "expected a .pdparams, .pth, .pt or .safetensors file"


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a weights file as `read_weights` does.

    Returns:
        The arrays by Paddle's structured names, ``layer1.0.conv1.weight``, linear weights as ``[in, out]``. bfloat16
        comes as float32, other types as they are.

    Raises:
        UsageError: as `read_weights`.
    """
    return in_paddle_names(read_weights(path))


def read_weights(path: str | Path) -> StoredWeights:
    """Read a weights file as data: no code of the file is run. Its suffix tells the format.

    Args:
        path: a ``.pdparams`` of `paddle.save`, a ``.pth``, ``.pt`` or ``.pth.tar`` of `torch.save`, or a
            ``.safetensors``.

    Returns:
        The arrays as the file names and lays them out.

    Raises:
        UsageError: the file is missing, empty, damaged, of another format, asks for code, or holds no state dict.
    """
    path = expand_home(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; {_EXPECTED}")
    if not path.is_file():
        raise UsageError(f"{path}: no such file; {_EXPECTED}")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path}: the format is told by the suffix; {_EXPECTED}")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path}: is empty; {_EXPECTED}")
        return read(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
