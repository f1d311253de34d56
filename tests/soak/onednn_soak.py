"""Check that training on oneDNN's layers does not leak: train a small network for long, print the resident memory.

It takes minutes, so it is not part of the suite. It exits with 1 if memory grew by more than 2% after the warm-up.

    python tests/soak/onednn_soak.py                        # 8 batch sizes: all primitives stay in the cache
    python tests/soak/onednn_soak.py --batch-sizes 64       # more primitives than the cache holds: some are evicted
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import paddle
from paddle.nn import functional

from paddle_resnet.models.blocks import BasicBlock, ZeroPadShortcut
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import replace_layers, unavailable_reason
from paddle_resnet.onednn import primitives

IMAGE_SIZE = 16
TOLERATED_GROWTH = 0.02


def resident_megabytes() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def small_network() -> ResNet:
    """Return a network with every kind of layer that oneDNN computes."""
    return ResNet(
        BasicBlock, (1, 1), widths=(8, 16), num_classes=10, in_channels=3, stem="imagenet", shortcut=ZeroPadShortcut
    )


def main() -> int:
    """Train and measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=1_000, help="steps before growth is counted")
    parser.add_argument("--batch-sizes", type=int, default=8, help="batches of 1 to this many images, in random order")
    parser.add_argument("--native", action="store_true", help="train on Paddle's own layers, to compare")
    options = parser.parse_args()
    if not options.native and unavailable_reason() is not None:
        sys.exit(f"oneDNN cannot be used here: {unavailable_reason()}")

    network = small_network()
    if not options.native:
        replace_layers(network)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    batches = [
        (paddle.randn([size, 3, IMAGE_SIZE, IMAGE_SIZE]), paddle.randint(0, 10, [size]))
        for size in range(1, options.batch_sizes + 1)
    ]
    order = random.Random(0)
    resident = []
    start = time.monotonic()
    for step in range(1, options.steps + 1):
        images, labels = order.choice(batches)
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        if step % 1_000 == 0 or step == options.warm_up:
            megabytes = resident_megabytes()
            if step >= options.warm_up:
                resident.append(megabytes)
            kept = 0 if options.native else len(primitives.thread_context()._primitives)
            seconds = time.monotonic() - start
            print(f"step {step}: {megabytes:.1f} MB resident, {kept} primitives kept, {seconds:.0f} s", flush=True)
    growth = max(resident) / resident[0] - 1
    print(f"growth after the first {options.warm_up} steps: {growth:.2%}")
    return 0 if growth < TOLERATED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
