"""Archives of random images in the layout of CIFAR's authors."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np


def cifar_batch(count: int, classes: int, labels_key: bytes, seed: int) -> dict[bytes, Any]:
    generator = np.random.default_rng(seed)
    return {
        b"data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
        labels_key: [int(label) for label in np.arange(count) % classes],
    }


def cifar10_contents() -> dict[str, Any]:
    contents = {f"data_batch_{k}": cifar_batch(20, 10, b"labels", k) for k in (1, 2, 3, 4, 5)}
    contents["test_batch"] = cifar_batch(30, 10, b"labels", 9)
    contents["batches.meta"] = {b"label_names": [f"class{k}".encode() for k in range(10)]}
    return contents


def write_archive(path: Path, folder: str, contents: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in sorted(contents.items(), reverse=True):  # not in the order of the batches
            blob = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))
    return path


def write_cifar10(root: Path, contents: dict[str, Any] | None = None) -> Path:
    return write_archive(root / "cifar-10-python.tar.gz", "cifar-10-batches-py", contents or cifar10_contents())
