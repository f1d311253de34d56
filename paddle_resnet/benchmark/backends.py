"""The backends that are compared: this project with some config keys changed, and PyTorch."""

from __future__ import annotations

import importlib.util

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.machine import physical_cores
from paddle_resnet.project_files import requirements_file
from paddle_resnet.runtime import prepare_process, thread_count

PADDLE: dict[str, dict[str, str]] = {
    "onednn": {"cpu_backend": "onednn", "cpu_precision": "float32"},
    "onednn-bf16": {"cpu_backend": "onednn", "cpu_precision": "bfloat16"},
    "native": {"cpu_backend": "native"},
}
"""Backends of this project, and the keys of the config's group `train` that each sets."""

TORCH = {"torch": "float32", "torch-bf16": "bfloat16"}
"""PyTorch, and the type of its autocast."""


def check_backends(names: list[str]) -> None:
    """Check names of this project's backends.

    Raises:
        UsageError: a name is unknown.
    """
    for name in names:
        if name not in PADDLE:
            raise UsageError(f"backend {name}: expected one of {', '.join(PADDLE)}{did_you_mean(name, list(PADDLE))}")


def require_torch() -> None:
    """Check that PyTorch is installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"--against torch: PyTorch is not installed: pip install -r {requirements_file('bench.txt')}")


def torch_threads() -> int:
    """Return the number of threads that Paddle uses here, for PyTorch to use as many."""
    return thread_count(prepare_process().threads) or physical_cores()
