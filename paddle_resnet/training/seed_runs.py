"""The same training with several seeds: how far its result is luck."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddle_resnet import distributed
from paddle_resnet.console import logger
from paddle_resnet.errors import Stopped, UsageError, command
from paddle_resnet.training.process_setup import session
from paddle_resnet.training.resume import require_same_training
from paddle_resnet.training.run_folder import RunFolder
from paddle_resnet.training.setup import open_training
from paddle_resnet.training.trainer import train_or_resume


@dataclass(frozen=True)
class Spread:
    """One figure of several runs."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Their sample standard deviation, with n - 1 in the denominator; None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def summary(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``."""
        return {"mean": self.mean, "std": self.std, "n": len(self.values), "values": list(self.values)}


@dataclass(frozen=True)
class SeedReport:
    """What the runs of several seeds reached; top-1 are fractions."""

    seeds: tuple[int, ...]
    validation_top1: Spread
    """Of each run's best epoch, by which it was chosen."""
    test_top1: Spread


def train_seeds(whole: RunFolder, *, go_on: bool = False) -> list[RunFolder]:
    """Train one run for each of ``train.seeds``, in the folder ``seed_<seed>``; return them in that order.

    As with a single run, nothing is written before device, data and weights have been found good.

    Args:
        whole: the folder of them all, with the config; an earlier one of the name is set aside.
        go_on: let what is in the folder go on instead, and train what is missing.

    Raises:
        UsageError: several processes were launched together; otherwise as `train.train` and `train.resume`.
        RunFailure, Stopped: as these.
    """
    if distributed.launched().world_size > 1:
        raise UsageError(
            f"train.seeds {list(whole.config.train.seeds or ())}: several processes train one run; give each seed a "
            "launch of its own, by train.seed and name"
        )
    if go_on and whole.config_path.is_file():
        require_same_training(RunFolder.open(whole.path), whole.config)
    else:
        with session(whole.config, aloud=False):
            open_training(whole.config)
        whole, kept = RunFolder.create(whole.config)
        if kept is not None:
            logger.info("the earlier run %s was kept as %s", whole.path, kept)
    runs = []
    with whole.alone():
        for seed in whole.config.train.seeds or ():
            logger.info("seed %d", seed)
            try:
                runs.append(train_or_resume(_of_seed(whole, seed)))
            except Stopped:
                logger.info("%s --resume %s goes on with all seeds", command("train"), whole.path)
                raise
    return runs


def report_seeds(whole: RunFolder, runs: Sequence[RunFolder]) -> SeedReport:
    """Gather what the `runs` in the folder `whole` reached, each tested once; write it to its ``metrics.json``."""
    metrics = [run.metrics() for run in runs]
    report = SeedReport(
        seeds=tuple(run.config.train.seed for run in runs),
        validation_top1=Spread(tuple(each["validation"]["top1"] for each in metrics)),
        test_top1=Spread(tuple(each["test"]["top1"] for each in metrics)),
    )
    values = {
        "seeds": list(report.seeds),
        "validation_top1": report.validation_top1.summary(),
        "test_top1": report.test_top1.summary(),
    }
    if whole.metrics().get("seeds") != values:
        whole.update_metrics("seeds", values)
    return report


def _of_seed(whole: RunFolder, seed: int) -> RunFolder:
    train = whole.config.train.model_copy(update={"seed": seed, "seeds": None})
    config = whole.config.model_copy(update={"name": f"seed_{seed}", "output": whole.path, "train": train})
    return RunFolder(config.run_folder, config)
