"""Who computes: this project with some keys of the config changed, or PyTorch."""

from __future__ import annotations

import importlib.util

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.project_files import requirements_file

OURS: dict[str, dict[str, str]] = {
    "onednn": {"cpu_backend": "onednn", "cpu_precision": "float32"},
    "onednn-bf16": {"cpu_backend": "onednn", "cpu_precision": "bfloat16"},
    "native": {"cpu_backend": "native"},
}
"""Backends of this project, and what each changes in the config's group `train`."""

TORCH = {"torch": "float32", "torch-bf16": "bfloat16"}
"""PyTorch, and the type that its autocast computes in."""


def check_backends(names: list[str]) -> None:
    """Refuse what is not a backend of this project.

    Raises:
        UsageError: names it, and those that there are.
    """
    for name in names:
        if name not in OURS:
            raise UsageError(f"backend {name}: expected one of {', '.join(OURS)}{did_you_mean(name, list(OURS))}")


def require_torch() -> None:
    """Refuse a comparison where PyTorch is missing.

    Raises:
        UsageError: says how to install it.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"--against torch: PyTorch is not installed: pip install -r {requirements_file('bench.txt')}")
