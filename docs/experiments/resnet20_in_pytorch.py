#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Train the recipe of configs/resnet20_cifar10.yaml in PyTorch alone: does it reach the same accuracy?

python tools/train.py -c configs/resnet20_cifar10.yaml -o name=resnet20_4 -o train.epochs=4 -o "train.seeds=[0, 1, 2]"
python docs/experiments/resnet20_in_pytorch.py --epochs 4 --seeds 0 1 2 --against output/resnet20_4

From this project, the second command uses the config, the splits and the benchmark's network. Augmentation, loss,
schedule, optimizer and the choice of the best epoch are written here with PyTorch and numpy. After each seed, its test
top-1 goes to resnet20_in_pytorch.json (--output); seeds that the file has are not trained again. A seed that was
stopped goes on from its last epoch, whose state is in a file beside it.

Two things differ: the random numbers, and PyTorch's running variance, which divides by n - 1 (n is 8,192 or more).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import numpy as np
import torch
from scipy.stats import ttest_ind
from torch import Tensor, nn

from paddle_resnet.benchmark.torch_jobs import make_torch_model
from paddle_resnet.cli import parsing, program
from paddle_resnet.config import AugmentConfig, Config, EvaluationConfig, ModelConfig, TrainConfig
from paddle_resnet.data import Split, Splits, open_splits
from paddle_resnet.errors import UsageError
from paddle_resnet.files import write_atomically
from paddle_resnet.text_files import write_json

CONFIG = PROJECT / "configs" / "resnet20_cifar10.yaml"
RESNET20: dict[str, Any] = {
    "depths": [3, 3, 3],
    "widths": [16, 32, 64],
    "stem": "cifar",
    "zero_pad": True,
    "bottleneck": False,
    "num_classes": 10,
}
"""As `benchmark.train.describe`, which needs Paddle, describes it."""


def main() -> None:
    """Train with each seed, then compare both sides."""
    parser = parsing.command_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=4, help="default: 4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    parser.add_argument("--data", metavar="FOLDER", help="holds cifar-10-python.tar.gz; default: Paddle's cache")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--output", type=Path, default=Path("resnet20_in_pytorch.json"), metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="RUN", help="our run of the same epochs, with train.seeds")
    program.run(parser, _train_and_compare)


def _train_and_compare(arguments: argparse.Namespace) -> None:
    # A repacked archive has another MD5.
    data = [f"data.root={arguments.data}", "data.verify=false"] if arguments.data else []
    config = Config.load(CONFIG, [f"train.epochs={arguments.epochs}", *data])
    require_nothing_else(config)
    torch.set_num_threads(arguments.threads)
    found = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    keys = {seed: f"{arguments.epochs} epochs, seed {seed}" for seed in arguments.seeds}
    missing = [seed for seed in arguments.seeds if keys[seed] not in found]
    splits = open_splits(config.data) if missing else None
    for seed in missing:
        assert splits is not None
        state = arguments.output.with_suffix(f".epochs_{arguments.epochs}_seed_{seed}.pt")
        found[keys[seed]] = train(config, splits, seed, state)
        write_json(arguments.output, found)
        state.unlink()
    if arguments.against:
        ours = json.loads((arguments.against / "metrics.json").read_text())["seeds"]["test_top1"]["values"]
        compare(ours, [found[keys[seed]] for seed in arguments.seeds])


def require_nothing_else(config: Config) -> None:
    """Refuse a config with settings that this program lacks."""
    train = config.train
    known = TrainConfig(
        epochs=train.epochs,
        batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        warmup=train.warmup,
        label_smoothing=train.label_smoothing,
    )
    augment = AugmentConfig(pad=config.augment.pad, flip=True)
    if (train, config.augment, config.model) != (known, augment, ModelConfig(name="resnet20")):
        raise UsageError(f"{CONFIG}: has keys that this program does not know")
    if config.evaluation != EvaluationConfig() or config.data.sampler != "shuffled":
        raise UsageError(f"{CONFIG}: has keys that this program does not know")


def train(config: Config, splits: Splits, seed: int, state_file: Path) -> float:
    """Train one network, and return the test top-1 of the epoch that was best on the validation split.

    The state after each epoch goes to ``state_file``, from which a stopped training goes on.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    recipe = config.train
    network = make_network()
    optimizer = make_optimizer(network, recipe)
    steps_per_epoch = len(splits.train) // recipe.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, WarmupCosine(recipe, recipe.epochs * steps_per_epoch))
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    first, best, best_weights = 0, (-1.0, -math.inf), network.state_dict()
    if state_file.is_file():
        state = torch.load(state_file)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.bit_generator.state = state["generator"]
        first, best, best_weights = state["epochs"], state["best"], state["best_weights"]
    for epoch in range(first, recipe.epochs):
        began, losses = time.monotonic(), 0.0
        network.train()
        for pixels, labels in augmented_batches(splits.train, recipe.batch_size, config.augment.pad, generator):
            loss = loss_of(network(normalized(pixels, splits)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item()
        top1, validation_loss = measure(network, splits.validation, splits)
        if (top1, -validation_loss) > best:
            best, best_weights = (top1, -validation_loss), copy.deepcopy(network.state_dict())
        print(
            f"seed {seed}  epoch {epoch + 1}/{recipe.epochs}  loss {losses / steps_per_epoch:.4f}  "
            f"validation top-1 {top1:.2%}  {time.monotonic() - began:.0f} s",
            flush=True,
        )
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "generator": generator.bit_generator.state,
            "epochs": epoch + 1,
            "best": best,
            "best_weights": best_weights,
        }
        write_atomically(state_file, partial(torch.save, state))
    network.load_state_dict(best_weights)
    return measure(network, splits.test, splits)[0]


def make_network(description: dict[str, Any] = RESNET20) -> nn.Sequential:
    """Make the network with Paddle's initial weights: the linear layer's by Xavier, its bias zero.

    Both libraries agree in the rest: Kaiming by fan-out for convolutions, 1 and 0 for BatchNorm, 1e-5 added to the
    variance. PyTorch's momentum of 0.1 for running statistics is Paddle's 0.9.
    """
    network = make_torch_model(description)
    nn.init.xavier_uniform_(network[-1].weight)
    nn.init.zeros_(network[-1].bias)
    return network.to(memory_format=torch.channels_last)


def make_optimizer(network: nn.Module, recipe: TrainConfig) -> torch.optim.SGD:
    """Make SGD with Nesterov momentum, without weight decay of BatchNorm and biases (the vectors)."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


class WarmupCosine:
    """Factors of the learning rate: linear warm-up, then half a cosine down to 0."""

    def __init__(self, recipe: TrainConfig, steps: int) -> None:
        self.warmup = round(recipe.warmup * steps)
        self.decay = steps - self.warmup

    def __call__(self, step: int) -> float:
        """Return the factor of a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (1 + math.cos(math.pi * (step - self.warmup) / self.decay)) / 2


def augmented_batches(
    split: Split, batch_size: int, pad: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield an epoch in random order, without an incomplete last batch: uint8 ``[n, S, S, 3]`` and labels ``[n]``.

    Each image is padded with black, cut back to its size at a random place, and mirrored with probability 1/2.
    """
    order = generator.permutation(len(split))
    for start in range(0, len(split) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        padded = np.pad(split.batch(chosen), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        size = padded.shape[1] - 2 * pad
        places = generator.integers(0, 2 * pad + 1, (batch_size, 2))
        mirrored = generator.random(batch_size) < 0.5
        cut = [
            image[top : top + size, left : left + size][:, :: -1 if mirror else 1]
            for image, (top, left), mirror in zip(padded, places, mirrored, strict=True)
        ]
        yield np.stack(cut), torch.from_numpy(split.labels[chosen])


def normalized(pixels: np.ndarray, splits: Splits) -> Tensor:
    """Turn uint8 ``[n, H, W, 3]`` into the network's input, float32 ``[n, 3, H, W]`` (channels last in memory)."""
    levels = torch.from_numpy(pixels).to(torch.float32) / 255
    return ((levels - torch.tensor(splits.mean)) / torch.tensor(splits.std)).permute(0, 3, 1, 2)


@torch.no_grad()
def measure(network: nn.Module, split: Split, splits: Splits) -> tuple[float, float]:
    """Return top-1 and the mean cross-entropy over a whole split, not augmented."""
    network.eval()
    right, loss = 0, 0.0
    for start in range(0, len(split), 250):
        places = np.arange(start, min(start + 250, len(split)))
        logits, labels = network(normalized(split.batch(places), splits)), torch.from_numpy(split.labels[places])
        right += int((logits.argmax(1) == labels).sum())
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    return right / len(split), loss / len(split)


def compare(ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Print both sides, and their difference with Welch's 95% interval, in points."""
    for name, values in (("Paddle", ours), ("PyTorch", theirs)):
        shown = ", ".join(f"{100 * value:.2f}" for value in values)
        mean, deviation = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
        print(f"{name}: {shown}; mean {mean:.2f}, standard deviation {deviation:.2f}, n = {len(values)}")
    low, high = (100 * end for end in ttest_ind(ours, theirs, equal_var=False).confidence_interval())
    print(f"Paddle - PyTorch: {(low + high) / 2:+.2f} points, 95% interval {low:+.2f} to {high:+.2f}")


if __name__ == "__main__":
    main()
