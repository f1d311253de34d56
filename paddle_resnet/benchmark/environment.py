"""On what something was measured: every report says it."""

from __future__ import annotations

import datetime
import platform
from importlib import metadata
from typing import Any

from paddle_resnet import __version__, machine, runtime

PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow", "onnxruntime", "torch")


def surroundings() -> dict[str, Any]:
    """Describe the machine, the versions and the process; the date is of now, with its zone."""
    cores = machine.cores()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(timespec="seconds"),
        "processor": machine.processor().model or "unknown",
        "cores": cores.usable,
        "cores_in_machine": cores.machine,
        "platform": platform.platform(),
        "process": str(runtime.prepare_process()),
        "versions": {
            "paddle_resnet": __version__,
            "python": platform.python_version(),
            **{name: version for name in PACKAGES if (version := _version(name))},
        },
    }


def in_one_line(found: dict[str, Any]) -> str:
    """The surroundings as a figure's small print."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name != "paddle_resnet")
    return f"{found['processor']}, {found['cores']} cores; {versions}; {found['date'][:10]}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
