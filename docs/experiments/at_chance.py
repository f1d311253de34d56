#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Train a small network on two classes with one fault at a time: which faults keep it at chance?

    python docs/experiments/at_chance.py                       the digits of scikit-learn: even or odd
    python docs/experiments/at_chance.py --data FOLDER         FOLDER holds train/cat, train/dog, test/cat, test/dog

Each run trains resnet8 from scratch on the same training images. It is measured on the whole test split. A cell has one
number for each seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.cli import parsing, program

runtime.import_paddle()

import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.config import DataConfig
from paddle_resnet.data import Normalize, Split, open_splits
from paddle_resnet.models import create_model
from paddle_resnet.onednn import accelerate

EPOCHS = 6
BATCH = 64


class Fault(NamedTuple):
    """One wrong setting; all others are those of the first run."""

    name: str
    learning_rate: float = 0.05
    shuffled: bool = True
    shuffled_labels: bool = False
    outputs: int = 2
    softmax_first: bool = False
    normalized: bool = True
    training_mode: bool = True
    momentum_of_statistics: float = 0.9
    only_head: bool = False
    adam: bool = False


FAULTS = (
    Fault("none"),
    Fault("files in order, not shuffled", shuffled=False),
    Fault("labels shuffled, images not", shuffled_labels=True),
    Fault("one output under softmax", outputs=1),
    Fault("softmax before cross_entropy, which applies it too", softmax_first=True),
    Fault("learning rate 1 (SGD, Nesterov 0.9)", learning_rate=1.0),
    Fault("learning rate 10 (SGD, Nesterov 0.9)", learning_rate=10.0),
    Fault("Adam at 0.1", adam=True, learning_rate=0.1),
    Fault("pixels 0..255, not normalised", normalized=False),
    Fault("trained in eval mode: BatchNorm does not normalise", training_mode=False),
    Fault("running statistics with momentum 0.9999", momentum_of_statistics=0.9999),
    Fault("random layers frozen, only the head trained", only_head=True),
)


def main() -> None:
    """Train with each fault and each seed; print a row for each fault."""
    parser = parsing.command_parser(__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: the digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    program.run(parser, _measure)


def _measure(arguments: argparse.Namespace) -> None:
    paddle.set_device("cpu")
    splits = open_splits(DataConfig.model_validate(_digits_or(arguments.data)))
    if arguments.data is None:
        for split in (splits.train, splits.test):
            split.labels = split.labels % 2
    # As in folders: first all images of one class, then all of the other.
    chosen = np.argsort(splits.train.labels, kind="stable")
    print("| fault | training top-1, last epoch | test top-1 | most frequent prediction |")
    print("|---|---|---|---|")
    for fault in FAULTS:
        results = [_run(fault, splits.train, chosen, splits.test, seed) for seed in arguments.seeds]
        cells = [", ".join(f"{100 * value:.1f}" for value in column) for column in zip(*results, strict=True)]
        print(f"| {fault.name} | {' | '.join(cells)} |", flush=True)


def _digits_or(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"source": "digits", "image_size": 8}
    return {"source": "image_folder", "root": folder, "image_size": 32}


def _run(fault: Fault, train: Split, chosen: np.ndarray, test: Split, seed: int) -> tuple[float, float, float]:
    """Return, as fractions, training top-1 of the last epoch, test top-1 and the most frequent test prediction."""
    with paddle.utils.unique_name.guard():
        runtime.seed_everything(seed)
        network = create_model("resnet8", num_classes=fault.outputs)
        for layer in network.sublayers():
            if hasattr(layer, "_momentum"):
                layer._momentum = fault.momentum_of_statistics
        if fault.only_head:
            network.freeze(until="layer3")
        accelerate(network, "auto", "cpu", "float32")
        normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)) if fault.normalized else _raw
        steps = EPOCHS * (len(chosen) // BATCH)
        rate: Any = paddle.optimizer.lr.CosineAnnealingDecay(fault.learning_rate, steps)
        trained = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
        optimizer = (
            paddle.optimizer.Adam(rate, parameters=trained)
            if fault.adam
            else paddle.optimizer.Momentum(rate, 0.9, trained, use_nesterov=True, weight_decay=1e-4)
        )
        labels = train.labels[chosen]
        if fault.shuffled_labels:
            labels = np.random.default_rng(seed + 1).permutation(labels)
        for _ in range(EPOCHS):
            network.train() if fault.training_mode else network.eval()
            right = seen = 0
            for places in _batches(len(chosen), fault.shuffled):
                target = paddle.to_tensor(labels[places])
                logits = network(normalize(paddle.to_tensor(train.batch(chosen[places]))))
                loss = _loss(logits, target, fault)
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
                rate.step()
                right += int((_predictions(logits) == labels[places]).sum())
                seen += len(places)
        predictions = _test(network, normalize, test)
    most = np.bincount(predictions, minlength=2).max() / len(predictions)
    return right / seen, float((predictions == test.labels).mean()), float(most)


def _batches(count: int, shuffled: bool) -> Iterator[np.ndarray]:
    order = np.random.permutation(count) if shuffled else np.arange(count)
    for start in range(0, count - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def _loss(logits: paddle.Tensor, labels: paddle.Tensor, fault: Fault) -> paddle.Tensor:
    if fault.outputs == 1:
        # "A probability" of one class: softmax over one number is 1 whatever the number.
        return functional.binary_cross_entropy(functional.softmax(logits, axis=1)[:, 0], labels.astype("float32"))
    return functional.cross_entropy(functional.softmax(logits, axis=1) if fault.softmax_first else logits, labels)


def _predictions(logits: paddle.Tensor) -> np.ndarray:
    if logits.shape[1] == 1:
        return (functional.softmax(logits, axis=1)[:, 0] > 0.5).numpy().astype(np.int64)
    return logits.argmax(1).numpy()


def _test(network: nn.Layer, normalize: Callable[[paddle.Tensor], paddle.Tensor], test: Split) -> np.ndarray:
    network.eval()
    with paddle.no_grad():
        parts = [
            _predictions(
                network(normalize(paddle.to_tensor(test.batch(np.arange(start, min(start + 250, len(test)))))))
            )
            for start in range(0, len(test), 250)
        ]
    return np.concatenate(parts)


def _raw(pixels: paddle.Tensor) -> paddle.Tensor:
    return pixels.astype("float32").transpose([0, 3, 1, 2])


if __name__ == "__main__":
    main()
