"""The environment that something was trained, measured or exported in: versions, processor, cores, threads."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

from paddle_resnet import __version__, distributed, runtime
from paddle_resnet.system import machine

_FACTS: dict[str, Callable[[], Any]] = {
    "date": lambda: datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(timespec="seconds"),
    "paddle_resnet": lambda: __version__,
    "paddle": lambda: importlib.import_module("paddle").__version__,
    "python": platform.python_version,
    "platform": platform.platform,
    "processor": lambda: machine.processor().model or "unknown",
    "cores": machine.physical_cores,
    "cores_in_machine": lambda: machine.cores().machine,
    "threads": lambda: runtime.prepare_process().threads.value,
    "process": lambda: str(runtime.prepare_process()),
    "processes": distributed.world_size,
}


def describe(*facts: str) -> dict[str, Any]:
    """Return these facts of the environment by name, in this order.

    Args:
        facts: of "date" (now, with its zone), "paddle_resnet", "paddle", "python" (versions), "platform", "processor"
            (its model), "cores" (usable), "cores_in_machine", "threads" (as set for Paddle), "process" (threads and
            BLAS path in words) and "processes" (that train together).
    """
    return {fact: _FACTS[fact]() for fact in facts}


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    return {package: version for package in packages if (version := package_version(package)) is not None}


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
