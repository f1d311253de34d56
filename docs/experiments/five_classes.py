#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Train on five classes of 50 images each, from scratch and from weights pretrained on five other classes.

    python docs/experiments/five_classes.py --data FOLDER --output output/five_classes

FOLDER holds train/<class>/* and test/<class>/* of CIFAR-10's ten classes. A network is pretrained on all images of the
first five classes by name, once for each seed. From the other five, each seed draws 50 images a class. A network is
trained on them in two ways, with one recipe and the same number of steps: from scratch, and fine-tuned, all layers.
Each way's learning rate is the best of --rates on training images that no reported run can draw. The weights are those
of the last step: 5 of 50 images a class are the validation split, too few to choose an epoch. Each reported run is
measured once, on the whole test split of its five classes. The command resumes where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddle_resnet import console, runtime
from paddle_resnet.cli import parsing, program

runtime.import_paddle()

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.models import read_state_dict, write_state_dict
from paddle_resnet.text_files import write_json
from paddle_resnet.training import Run, SeedStatistics, train_or_resume

SCRATCH, TUNED = "from scratch", "fine-tuned"
WAYS = (SCRATCH, TUNED)

RATES_SEED = 100
RATES_IMAGES = 1000
"""The last images of each class; the runs that choose the rates are trained and measured on some of them."""
RATES_MEASURED = 200  # a class

RECIPE = {"weight_decay": 5e-4, "warmup": 0.1, "cpu_precision": "auto"}
PRETRAINING = {**RECIPE, "batch_size": 128, "learning_rate": 0.2}
FEW_IMAGES = {**RECIPE, "batch_size": 32}


@dataclass(frozen=True)
class Study:
    """The command's arguments."""

    data: Path
    output: Path
    model: str
    pretrain_epochs: int
    epochs: int
    images: int
    seeds: list[int]
    rates: list[float]

    @property
    def folder(self) -> Path:
        """The folder of the images and runs, which depends on the data and on the number of images."""
        data = zlib.crc32(str(self.data.resolve()).encode())
        return self.output / f"{self.images}_images_of_{data:08x}"

    @property
    def classes(self) -> tuple[list[str], list[str]]:
        """The first and the second half of the classes by name."""
        names = sorted(entry.name for entry in (self.data / "train").iterdir())
        return names[: len(names) // 2], names[len(names) // 2 :]


def main() -> None:
    """Parse the arguments, then train and compare."""
    parser = parsing.command_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="train/<class>/*, test/<class>/*")
    parser.add_argument("--output", type=Path, default=Path("output/five_classes"), metavar="FOLDER")
    parser.add_argument("--model", default="resnet20", metavar="NAME")
    parser.add_argument("--pretrain-epochs", type=int, default=6, metavar="N")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="of each run on the few images")
    parser.add_argument("--images", type=int, default=50, metavar="N", help="a class; a tenth of them is held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="two or more")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.1], metavar="RATE")
    program.run(parser, _compare)


def _compare(arguments: argparse.Namespace) -> None:
    """Train the missing runs, print the tables, and write all metrics to ``results.json``."""
    if len(arguments.seeds) < 2:
        raise UsageError("--seeds: a spread needs two or more")
    study = Study(**{field.name: getattr(arguments, field.name) for field in fields(Study)})
    console.show_log_lines()
    weights, first_top1 = zip(*(_pretrain(study, seed) for seed in study.seeds), strict=True)
    by_rate = {way: _top1_by_rate(study, way, weights[0]) for way in WAYS}
    rates = {way: max(top1, key=lambda rate: top1[rate]) for way, top1 in by_rate.items()}
    top1: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed, pretrained in zip(study.seeds, weights, strict=True):
        root = _images_of_seed(study, seed)
        for way in WAYS:
            top1[way].append(_train(study, f"seed_{seed}", root, seed, way, rates[way], pretrained))
    results = {
        "classes": dict(zip(("first", "then"), study.classes, strict=True)),
        **{name: getattr(study, name) for name in ("model", "pretrain_epochs", "epochs", "images", "seeds")},
        "first_test_top1": first_top1,
        "top1_by_rate": {way: {f"{rate:g}": value for rate, value in by_rate[way].items()} for way in WAYS},
        "rates": rates,
        "test_top1": top1,
    }
    write_json(study.folder / "results.json", results)
    print(f"The first five classes: test top-1 {SeedStatistics.of(first_top1).percent()}\n")
    for line in (*_lines_of_rates(by_rate), "", *_lines_of_results(study, rates, top1)):
        print(line)


def _pretrain(study: Study, seed: int) -> tuple[Path, float]:
    """Train on all images of the first classes; return the file of the weights and the test top-1.

    The file has no last layer. Otherwise it would be loaded too, as the number of classes is the same.
    """
    root = study.folder / "images" / "pretraining"
    for name in study.classes[0]:
        for split in ("train", "test"):
            _link(study.data / split / name, root / split / name)
    recipe = {**PRETRAINING, "epochs": study.pretrain_epochs, "seed": seed}
    run, top1 = _finished_run(study, f"pretraining_{seed}", root, {"train": recipe}, "best")
    weights = study.folder / f"pretrained_{seed}.safetensors"
    if not weights.is_file():
        state = read_state_dict(run.checkpoint_path("best") / "model.pdparams")
        write_state_dict(weights, {name: array for name, array in state.items() if not name.startswith("fc.")})
    return weights, top1


def _top1_by_rate(study: Study, way: str, weights: Path) -> dict[float, float]:
    """Train at each rate on images reserved for this; return the top-1 on others of them."""
    root = study.folder / "images" / "rates"
    for name in study.classes[1]:
        shuffled = _shuffled(_pictures(study, name)[-RATES_IMAGES:], RATES_SEED)
        _link_all(shuffled[: study.images], root / "train" / name)
        _link_all(shuffled[study.images :][:RATES_MEASURED], root / "test" / name)
    return {rate: _train(study, f"rate_{rate:g}", root, RATES_SEED, way, rate, weights) for rate in study.rates}


def _images_of_seed(study: Study, seed: int) -> Path:
    """Draw training images of each new class, none of those reserved for the rates; link the whole test split."""
    root = study.folder / "images" / f"seed_{seed}"
    for name in study.classes[1]:
        _link_all(_shuffled(_pictures(study, name)[:-RATES_IMAGES], seed)[: study.images], root / "train" / name)
        _link(study.data / "test" / name, root / "test" / name)
    return root


def _train(study: Study, prefix: str, root: Path, seed: int, way: str, rate: float, weights: Path) -> float:
    """Train on the images of `root` in one way; return the top-1 on its whole test split."""
    recipe = {**FEW_IMAGES, "epochs": study.epochs, "seed": seed, "learning_rate": rate}
    values: dict[str, dict[str, Any]] = {"train": recipe}
    if way == TUNED:
        values["model"] = {"pretrained": str(weights)}
    return _finished_run(study, f"{prefix}-{way.replace(' ', '_')}", root, values, "last")[1]


def _finished_run(
    study: Study, name: str, root: Path, values: dict[str, dict[str, Any]], checkpoint: Literal["best", "last"]
) -> tuple[Run, float]:
    """Train and test a run, unless that is done; return it and its test top-1."""
    config = Config.from_values(
        {
            "name": name,
            "output": str(study.folder),
            "device": "cpu",
            "data": {"source": "image_folder", "root": str(root), "image_size": 32},
            "augment": {"pad": 4, "flip": True},
            "model": {"name": study.model, **values.get("model", {})},
            "train": values["train"],
        }
    )
    run = train_or_resume(Run(config.run_folder, config))
    if "test" not in run.metrics():
        scorer = NetworkScorer(run.load_network(checkpoint), run.normalize())
        run.update_metrics("test", {**measure_split(run, scorer).summary(), "checkpoint": checkpoint})
    return run, run.metrics()["test"]["top1"]


def _lines_of_rates(by_rate: dict[str, dict[float, float]]) -> Iterator[str]:
    rates = list(by_rate[SCRATCH])
    yield f"| top-1 by learning rate | {' | '.join(f'{rate:g}' for rate in rates)} |"
    yield "|---" * (len(rates) + 1) + "|"
    for way, top1 in by_rate.items():
        yield f"| {way} | {' | '.join(f'{100 * top1[rate]:.1f}' for rate in rates)} |"


def _lines_of_results(study: Study, rates: dict[str, float], top1: dict[str, list[float]]) -> Iterator[str]:
    seeds = " | ".join(f"seed {seed}" for seed in study.seeds)
    yield f"| test top-1 | rate | {seeds} | mean ± standard deviation | minus from scratch (95% interval) |"
    yield "|---" * (len(study.seeds) + 4) + "|"
    for way, values in top1.items():
        gains = [one - other for one, other in zip(values, top1[SCRATCH], strict=True)]
        gain = "" if way == SCRATCH else SeedStatistics.of(gains).points()
        runs = " | ".join(f"{100 * value:.2f}" for value in values)
        yield f"| {way} | {rates[way]:g} | {runs} | {SeedStatistics.of(values).percent()} | {gain} |"


def _pictures(study: Study, name: str) -> list[Path]:
    return sorted((study.data / "train" / name).iterdir())


def _shuffled(pictures: Sequence[Path], seed: int) -> list[Path]:
    return [pictures[place] for place in np.random.default_rng(seed).permutation(len(pictures))]


def _link_all(pictures: Sequence[Path], folder: Path) -> None:
    for picture in pictures:
        _link(picture, folder / picture.name)


def _link(picture: Path, link: Path) -> None:
    """Make a symbolic link, unless it exists."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(picture.resolve())


if __name__ == "__main__":
    main()
