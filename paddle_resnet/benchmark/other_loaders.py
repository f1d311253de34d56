"""A script: load image files with PyTorch's or Paddle's own DataLoader and transforms.

It imports nothing of this project, so that any interpreter with PyTorch can run it. The job is JSON on standard input.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

MEAN, STD = 0.5, 0.25


class Files:
    """A map-style dataset of image files, as torchvision's ``ImageFolder``."""

    def __init__(self, files: list[str], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with open(self.files[index], "rb") as file:  # noqa: PTH123 (as torchvision's loader)
            return self.transform(Image.open(file).convert("RGB")), index % 10


def make_loader(job: dict[str, Any]) -> Any:
    """Make the loader of a library with the transforms that its examples use; images are float32 and normalised."""
    size, augment = job["size"], job["augment"]
    options = {"batch_size": job["batch"], "shuffle": True, "drop_last": True, "num_workers": job["workers"]}
    if job["library"] == "torch":
        from torch.utils.data import DataLoader

        transforms: Any = importlib.import_module("torchvision.transforms")
        last = [transforms.ToTensor(), transforms.Normalize([MEAN] * 3, [STD] * 3)]
    else:
        import paddle
        from paddle.io import DataLoader
        from paddle.vision import transforms as paddle_transforms

        transforms = paddle_transforms

        paddle.set_device("cpu")
        # The numpy way, which is faster than ToTensor in a worker.
        last = [transforms.Normalize([255 * MEAN] * 3, [255 * STD] * 3, data_format="HWC"), transforms.Transpose()]
    if "scale" in augment:
        crop = transforms.RandomResizedCrop(size, scale=tuple(augment["scale"]))
    else:
        crop = transforms.RandomCrop(size, padding=augment["pad"])
    transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *last])
    return DataLoader(Files(job["files"], transform), **options)


def main() -> None:
    """Iterate over an epoch, and write the time at which each batch came."""
    job = json.load(sys.stdin)
    times = [time.perf_counter() for _ in make_loader(job)]
    Path(job["output"]).write_text(json.dumps({"times": times}), encoding="utf-8")


if __name__ == "__main__":
    main()
