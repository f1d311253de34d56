"""The learning-rate range test: a short training at a rate that grows from tiny to far too large.

Smith 2017 (arXiv:1506.01186, section 3.3), with the exponential growth of fast.ai's finder.
"""

from __future__ import annotations

import contextlib
import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paddle
from rich.progress import TextColumn

from paddle_resnet import paddle_compat, signals
from paddle_resnet.config import Config
from paddle_resnet.console import logger, progress_bar
from paddle_resnet.data import TrainLoader
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.files import require_writable, write_folder
from paddle_resnet.paths import require_name_for_folder
from paddle_resnet.plots.curves import draw_lr_sweep
from paddle_resnet.plots.style import save_figure
from paddle_resnet.tracking.evaluation_log import log_lr_sweep
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.process_setup import ignore_paddle_warnings, random_states_restored, setup_process
from paddle_resnet.training.run_folder import SWEEP_TABLE, Run, is_sweep
from paddle_resnet.training.setup import make_model, make_train_loader, open_data_and_network
from paddle_resnet.training.trials.time_budget import endless

LOWEST, HIGHEST = 1e-5, 10.0
LEAST_STEPS = 100  # if an epoch has fewer, the sweep continues into further epochs
SWEEP_PLOT = "sweep.png"

SMOOTHING = 0.9  # the decay of the smoothed loss, a mean over about the last 10 steps
DIVERGED = 3.0  # the sweep ends when the smoothed loss exceeds its minimum by this factor
CAUTION = 10.0
"""The proposed rate is the one of the minimum divided by this: just beyond the minimum, training diverges."""


@dataclass
class Sweep:
    """The losses of a sweep, step by step; the last one may be NaN or infinite."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    """Exponential moving averages of the losses, with Adam's bias correction (Kingma and Ba 2015)."""
    _average: float = 0.0

    def add(self, rate: float, loss: float) -> None:
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(self._average / (1 - SMOOTHING ** len(self.rates)))

    @property
    def diverged(self) -> bool:
        """Whether the smoothed loss is no longer finite, or far above its minimum."""
        return not self.smoothed[-1] <= DIVERGED * min(self.smoothed) < math.inf

    @property
    def proposed(self) -> float:
        """A tenth of the rate with the least smoothed loss (fast.ai's ``minimum``).

        Raises:
            RunFailure: no loss was finite.
        """
        finite = [each for each in zip(self.smoothed, self.rates, strict=True) if math.isfinite(each[0])]
        if not finite:
            raise RunFailure(
                f"the loss is {self.losses[0]} already at learning rate {self.rates[0]:g}; look at the data and the "
                "weights (model.pretrained), or begin lower (--from)"
            )
        return min(finite)[1] / CAUTION


def find_learning_rate(
    config: Config, *, lowest: float = LOWEST, highest: float = HIGHEST, steps: int | None = None
) -> Sweep:
    """Train a new network as `config` says, but at rates from `lowest` to `highest`, until it diverges.

    Nothing is written, and the process's random states are restored. `steps` are by default those of an epoch, but at
    least 100.

    Raises:
        UsageError: device, data, model or weights are not what the config says.
    """
    with random_states_restored(), setup_process(config) as (device, _):
        run = Run.new(config)
        network = open_data_and_network(run)
        loader = make_train_loader(run)
        model = make_model(run, network, TrainMetrics(), len(loader), device)
        steps = steps or max(len(loader), LEAST_STEPS)
        logger.info("%d steps at learning rates from %g to %g", steps, lowest, highest)
        with ignore_paddle_warnings():
            return sweep_rates(model, loader, np.geomspace(lowest, highest, steps).tolist())


def sweep_rates(model: paddle.Model, loader: TrainLoader, rates: list[float]) -> Sweep:
    """Train a prepared model for one step at each of the rates, until it diverges."""
    schedule = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: rates[min(step, len(rates) - 1)])
    paddle_compat.optimizer_of(model).set_lr_scheduler(schedule)
    sweep = Sweep()
    bar = progress_bar(TextColumn("rate {task.fields[rate]:.1e}  loss {task.fields[loss]:.4f}"))
    with bar, contextlib.closing(endless(loader)) as batches:
        task = bar.add_task("sweep", total=len(rates), rate=rates[0], loss=math.nan)
        for rate, (images, *labels) in zip(rates, batches, strict=False):
            with signals.uninterrupted():
                (loss,), _ = model.train_batch([images], labels)
            sweep.add(rate, float(loss))
            if sweep.diverged:
                break
            bar.update(task, advance=1, rate=rate, loss=sweep.smoothed[-1])
            schedule.step()
    return sweep


def sweep_folder(config: Config) -> Path:
    """Name the folder of a config's sweep, beside its run's: ``output/<name>_lr_find``.

    Raises:
        UsageError: it exists and holds no earlier sweep, or no folder can have such a name.
        RunFailure: it cannot be written.
    """
    folder = config.run_folder.with_name(f"{config.name}_lr_find")
    if folder.exists() and not is_sweep(folder):
        raise UsageError(
            f"{folder}: exists and is no earlier sweep ({SWEEP_TABLE} without data.json); choose another -o name=..."
        )
    require_name_for_folder(folder)
    require_writable(folder.parent)
    return folder


def write_sweep(sweep: Sweep, config: Config) -> Path:
    """Write ``config.yaml``, ``sweep.csv``, ``sweep.png`` and ``vdl/`` to `sweep_folder`; replace an earlier sweep."""

    def write(folder: Path) -> None:
        config.save(folder / "config.yaml")
        with (folder / SWEEP_TABLE).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["step", "learning_rate", "loss", "smoothed_loss"])
            rows.writerows(zip(range(len(sweep.rates)), *curves, strict=True))
        title = f"{config.name}: {config.model.name}, learning rates tried"
        save_figure(folder / SWEEP_PLOT, lambda: draw_lr_sweep(*curves, sweep.proposed, title))
        log_lr_sweep(folder / "vdl", *curves)

    curves = (sweep.rates, sweep.losses, sweep.smoothed)
    folder = sweep_folder(config)
    write_folder(folder, write)
    return folder
