"""The same training with several seeds, and how much its result depends on them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paddle_resnet import distributed
from paddle_resnet.console import IN_FILES, logger
from paddle_resnet.errors import RunFailure, Stopped, UsageError, command
from paddle_resnet.training.process_setup import setup_process
from paddle_resnet.training.resume_checks import resumed_config
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.setup import open_data_and_network
from paddle_resnet.training.trainer import train_or_resume

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t of a two-sided 95% interval, by the number of runs."""


@dataclass(frozen=True)
class SeedStatistics:
    """One metric of several runs that differ only in their seed."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> SeedStatistics:
        return cls(tuple(values))

    @property
    def runs(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The sample standard deviation (n - 1 in the denominator); NaN for a single value."""
        return statistics.stdev(self.values) if self.runs > 1 else math.nan

    @property
    def ci95(self) -> float:
        """Half the width of the mean's 95% interval by Student's t (normally distributed values, at most 10)."""
        return math.inf if self.runs == 1 else T_95[self.runs] * self.std / math.sqrt(self.runs)

    @property
    def sign(self) -> int:
        """1 or -1 if the whole 95% interval lies on one side of zero, otherwise 0."""
        if abs(self.mean) <= self.ci95:
            return 0
        return 1 if self.mean > 0 else -1

    def percent(self) -> str:
        """Format fractions: mean and deviation in percent, ``97.21 ± 0.43``; of a single run only its value."""
        return f"{100 * self.mean:.2f}" + (f" ± {100 * self.std:.2f}" if self.runs > 1 else "")

    def points(self, decimals: int = 1) -> str:
        """Format differences of fractions: mean and 95% interval in percentage points, ``+1.3 ± 2.0``."""
        return f"{100 * self.mean:+.{decimals}f} ± {100 * self.ci95:.{decimals}f}"

    def summary(self) -> dict[str, Any]:
        std = self.std if self.runs > 1 else None
        return {"mean": self.mean, "std": std, "n": self.runs, "values": list(self.values)}


@dataclass(frozen=True)
class SeedReport:
    """The results of the runs; top-1 are fractions."""

    seeds: tuple[int, ...]
    validation_top1: SeedStatistics  # of the best epoch of each run
    test_top1: SeedStatistics
    single_view_top1: SeedStatistics | None = None
    """Of the test split without averaging over views, if `evaluation.flip` or `evaluation.shift` is set."""


class SeedsFailed(RunFailure):
    """Some seeds failed; `runs` are those of the others."""

    def __init__(self, message: str, runs: list[Run]) -> None:
        super().__init__(message)
        self.runs = runs


def train_seeds(whole: Run, *, resume: bool = False) -> list[Run]:
    """Train one run for each of ``train.seeds``, in the folder ``seed_<seed>``; return them in that order.

    An earlier folder of the same name is renamed, but not before device, data and weights are checked. With `resume`,
    the runs in it are resumed, and the missing ones trained. A seed that fails, as its loss became NaN, does not keep
    the others from training.

    Raises:
        UsageError: several processes were launched together; otherwise as `train` and `resume`.
        SeedsFailed: `train` or `resume` of some seeds raised RunFailure; the others are trained.
        Stopped: as `train` and `resume`.
    """
    if distributed.launched().world_size > 1:
        raise UsageError(
            f"train.seeds {list(whole.config.train.seeds or ())}: several processes train one run; give each seed a "
            "launch of its own, by train.seed and name"
        )
    resumes = resume and whole.config_path.is_file()
    if not resumes:
        with setup_process(whole.config, quiet=True):
            open_data_and_network(Run.new(whole.config))
    runs, failed = [], []
    with whole.lock() if resumes else whole.create(with_data=False):
        if resumes:
            began = Run.open(whole.path)
            whole = Run(whole.path, resumed_config(began, whole.config))
            whole.save_config(began.config)
        for seed in whole.config.train.seeds or ():
            logger.info("seed %d", seed)
            train = whole.config.train.model_copy(update={"seed": seed, "seeds": None})
            config = whole.config.model_copy(update={"name": f"seed_{seed}", "output": whole.path, "train": train})
            try:
                runs.append(train_or_resume(Run(config.run_folder, config)))
            except RunFailure as failure:
                logger.error("seed %d failed: %s", seed, failure)
                failed.append(str(seed))
            except Stopped as stopped:
                stopped.remedy = f"{command('train', '--resume', whole.path)} resumes all seeds"
                logger.info("%s", stopped, extra=IN_FILES)
                raise
    if failed:
        again = command("train", "--resume", whole.path)
        raise SeedsFailed(f"{whole.path}: seed {' and '.join(failed)} failed, see above; {again} tries again", runs)
    return runs


def report_seeds(whole: Run, runs: Sequence[Run]) -> SeedReport:
    """Collect the results of the `runs`, each measured on the test split, and write them to ``whole``'s metrics."""
    metrics = [run.metrics() for run in runs]
    alone = [each["test"].get("single_view_top1") for each in metrics]
    report = SeedReport(
        seeds=tuple(run.config.train.seed for run in runs),
        validation_top1=SeedStatistics.of(each["validation"]["top1"] for each in metrics),
        test_top1=SeedStatistics.of(each["test"]["top1"] for each in metrics),
        single_view_top1=None if None in alone else SeedStatistics.of(alone),
    )
    metrics_of_all = {name: each.summary() for name, each in vars(report).items() if isinstance(each, SeedStatistics)}
    values = {"seeds": list(report.seeds), **metrics_of_all}
    if whole.metrics().get("seeds") != values:
        whole.update_metrics("seeds", values)
    return report
