"""A Ray cluster: the way in, and the model on each of its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray

from paddle_resnet.errors import RunFailure, UsageError

CONNECT_SECONDS = 10


def connect(address: str) -> None:
    """Join a cluster (``auto``, ``host:port``; a UsageError if none) or start one (``local``; a RunFailure if not)."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
        options["include_dashboard"] = False
    if not ray.is_initialized():
        handler = signal.getsignal(signal.SIGTERM)
        try:
            if ":" in address:  # Ray would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
            ray.init(address=address, **options)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"--address {address}: no Ray cluster ({reason}); ray start --head starts one") from None
        except Exception as error:
            if type(error) is not Exception:  # Ray has no class for this
                raise
            reason = str(error).partition("\n")[0]
            raise RunFailure(f"Ray did not start ({reason}); try again when this machine is less busy") from None
        signal.signal(signal.SIGTERM, handler)  # Ray's would end a command at once, and its files would be lost


def resources_of(device: str, threads: int) -> tuple[dict[str, float], int, int]:
    """Return what a predictor takes, a GPU ("auto": where there is one) or `threads` CPUs; how many fit; and the nodes.

    Raise a UsageError if no node has that.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = device.startswith("gpu") or (device == "auto" and any("GPU" in node for node in nodes))
    name, number = ("GPU", 1) if gpu else ("CPU", threads)
    most = sum(int(node.get(name, 0) // number) for node in nodes)
    if not most:
        raise UsageError(f"no node of the cluster has {number} {name}: choose another --device, or fewer --threads")
    return {f"num_{name.lower()}s": number}, most, len(nodes)


def pack_model(model_dir: Path) -> ray.ObjectRef:
    """Put the files of an exported model into the object store, for `unpack_model` on any node."""
    root = model_dir.resolve()
    below = root.parents[1 if root.name == "inference" else 0]  # the name of its run is that of a folder
    files = [file for file in root.rglob("*") if file.is_file()]
    return ray.put((root.relative_to(below), {file.relative_to(below): file.read_bytes() for file in files}))


@contextmanager
def unpack_model(packed: ray.ObjectRef) -> Iterator[Path]:
    """Write the files of a packed model, and yield the folder to load until the end of the block."""
    root, files = ray.get(packed)
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        yield folder / root
