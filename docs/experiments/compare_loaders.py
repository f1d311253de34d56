#!/usr/bin/env python3
# ruff: noqa: T201
"""Image files to normalised float32 batches, by this project's loader and by others, for docs/performance.md.

python docs/experiments/compare_loaders.py [--against torch paddle] [--rounds 2] [--steps 26] [--torch-python FILE]

Decoding, random crop, flip, normalisation and batching, by one and by two workers, in turn, each run in a process of
its own. PyTorch and Paddle use the transforms of their examples. FILE is an interpreter that has torchvision, as a
process that measures PyTorch imports nothing of this project.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

MEAN, STD = 0.5, 0.25
OURS = "this project"
WARM_UP = 4
RESIZED_CROP, PADDED_CROP = {"scale": [0.35, 1.0], "flip": True}, {"pad": 4, "flip": True}
SOURCES: dict[str, dict[str, Any]] = {
    "JPEGs of 500x400 to 224": {
        "files": 256,
        "kind": "JPEG",
        "file_size": (500, 400),
        "stored": 256,
        "size": 224,
        "batch": 32,
        "augment": RESIZED_CROP,
    },
    "PNGs of 32x32 to 32": {
        "files": 4096,
        "kind": "PNG",
        "file_size": (32, 32),
        "stored": 32,
        "size": 32,
        "batch": 256,
        "augment": PADDED_CROP,
    },
}


def main() -> None:
    """Print for each source, loader and number of workers the images/s, and the ratio of this project's to them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", nargs="+", choices=["torch", "paddle"], default=["torch", "paddle"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=26, help="timed batches")
    parser.add_argument("--torch-python", default=sys.executable, metavar="FILE")
    options = parser.parse_args()
    for name, source in SOURCES.items():
        with TemporaryDirectory() as folder:
            compare(name, source, Path(folder), options)


def compare(name: str, source: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Measure the loaders on one source, and print its rows."""
    import numpy as np

    from paddle_resnet.benchmark.report import rate, ratio_summary, spread, summary_of
    from paddle_resnet.benchmark.synthetic_image import synthetic_image
    from paddle_resnet.timing import interleave

    generator = np.random.default_rng(0)
    paths = [folder / f"{number:04d}.{source['kind'].lower()}" for number in range(source["files"])]
    for path in paths:
        path.write_bytes(synthetic_image(generator, source["file_size"], source["kind"]))
    images = (options.steps + WARM_UP) * source["batch"]
    job = {key: source[key] for key in ("stored", "size", "batch", "augment")}
    job |= {"steps": options.steps, "warm_up": WARM_UP}
    job["files"] = [str(paths[number % len(paths)]) for number in range(images)]
    calls = {
        (library, workers): partial(measure, {**job, "library": library, "workers": workers}, options.torch_python)
        for workers in (1, 2)
        for library in (OURS, *options.against)
    }
    measured = interleave(calls, options.rounds)
    for (library, workers), runs in measured.items():
        ratio = spread(ratio_summary(measured[OURS, workers], runs))
        scaling = spread(ratio_summary(runs, measured[library, 1]))
        print(f"{name}, {library}, {workers} workers: {rate(summary_of(runs))} images/s", end="")
        print(f"; this project / it: {ratio}; to one worker: {scaling}")


def measure(job: dict[str, Any], torch_python: str) -> dict[str, float]:
    """Load all batches in a new process; return the images/s after the warm-up."""
    if job["library"] == OURS:
        from paddle_resnet.benchmark.runner import run_job

        times = run_job({**job, "kind": "load"}, OURS)["times"]
    else:
        python = torch_python if job["library"] == "torch" else sys.executable
        command = [python, __file__, "--worker"]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True)
        times = json.loads(done.stdout.splitlines()[-1])
    timed = times[job["warm_up"] - 1 :]
    return {"images_per_second": job["batch"] * (len(timed) - 1) / (timed[-1] - timed[0])}


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


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        print(json.dumps([time.perf_counter() for _ in make_loader(json.load(sys.stdin))]))
    else:
        main()
