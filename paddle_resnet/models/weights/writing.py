"""Weights into a file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from safetensors.numpy import save

from paddle_resnet.errors import UsageError
from paddle_resnet.files import expand_home, write_aside
from paddle_resnet.models.weights.names import Names, in_torch_names


def write_state_dict(path: str | Path, state: Mapping[str, np.ndarray], names: Names = "paddle") -> int:
    """Write a state dict, as its suffix says: ``.pdparams`` (for `paddle.load`) or ``.safetensors``.

    Args:
        path: the file to make; an earlier one is replaced when the new one is whole.
        state: arrays by Paddle's names, as `read_state_dict` gives them.
        names: ``"torch"``: under PyTorch's names and in its layout, for ``load_state_dict(strict=True)``.

    Returns:
        How many tensors were written.

    Raises:
        UsageError: another suffix.
        RunFailure: the file cannot be written.
    """
    path = expand_home(path)
    require_writable_format(path)
    arrays = in_torch_names(state) if names == "torch" else state
    if path.suffix == ".pdparams":
        tensors = {name: paddle.to_tensor(array, place=paddle.CPUPlace()) for name, array in arrays.items()}
        write_aside(path, lambda temporary: paddle.save(tensors, str(temporary)))
    else:
        # Contiguous, and 0-d where they were: safetensors writes memory as it lies.
        content = save({name: np.array(array, order="C") for name, array in arrays.items()}, {"names": names})
        write_aside(path, lambda temporary: _write_bytes(temporary, content))
    return len(arrays)


def require_writable_format(path: Path) -> None:
    """Refuse a suffix that is not written.

    Raises:
        UsageError: names the two that are, and how PyTorch reads one of them.
    """
    if path.suffix not in (".pdparams", ".safetensors"):
        raise UsageError(
            f"{path}: expected a .pdparams or .safetensors file to write; "
            "PyTorch reads the latter by safetensors.torch.load_file"
        )


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
