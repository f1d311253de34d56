"""What a learning-rate sweep leaves: a figure, a table and a VisualDL curve."""

from __future__ import annotations

import csv
import math
from contextlib import closing
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError
from paddle_resnet.files import write_folder
from paddle_resnet.plots.style import BLUE, GREY, ORANGE, save_figure
from paddle_resnet.tracking.records import LogWriter
from paddle_resnet.training.lr_finder import Sweep

TABLE, FIGURE = "sweep.csv", "sweep.png"
MOST = 1.5
"""The figure ends at so many times the first loss: what lies above is divergence."""


def report_folder(config: Config) -> Path:
    """Name the folder of a config's sweep, beside its run's: ``output/<name>_lr_find``.

    Raises:
        UsageError: something else than an earlier sweep lies there.
    """
    folder = config.run_folder.with_name(f"{config.name}_lr_find")
    if folder.exists() and not (folder / TABLE).is_file():
        raise UsageError(f"{folder}: exists and is no earlier sweep (it has no {TABLE}); choose another -o name=...")
    return folder


def write_report(sweep: Sweep, config: Config) -> Path:
    """Write ``sweep.csv``, ``sweep.png`` and ``vdl/`` to the sweep's folder, in the place of an earlier one."""
    folder = report_folder(config)
    write_folder(folder, lambda temporary: _fill(temporary, sweep, config))
    return folder


def draw_sweep(sweep: Sweep, title: str) -> Figure:
    """Draw the loss, as it was and smoothed, over the learning rate; a line stands at the proposed one."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(sweep.rates, sweep.losses, color=GREY, alpha=0.5, linewidth=1, label="each step")
    axes.plot(sweep.rates, sweep.smoothed, color=BLUE, label="smoothed")
    axes.axvline(sweep.proposed, color=ORANGE, linestyle="--", label=f"proposed: {sweep.proposed:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the common style does not typeset powers
    axes.xaxis.set_minor_formatter(NullFormatter())
    least = min(loss for loss in sweep.losses if math.isfinite(loss))
    axes.set_ylim(0.9 * least, MOST * sweep.losses[0])
    axes.set_xlabel("learning rate")
    axes.set_title("loss (nats)", loc="left")
    axes.grid(True, axis="y")
    axes.legend(loc="upper left")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def _fill(folder: Path, sweep: Sweep, config: Config) -> None:
    config.save(folder / "config.yaml")
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["step", "learning_rate", "loss", "smoothed_loss"])
        rows.writerows(zip(range(len(sweep.rates)), sweep.rates, sweep.losses, sweep.smoothed, strict=True))
    save_figure(folder / FIGURE, lambda: draw_sweep(sweep, f"{config.name}: {config.model.name}, learning rates tried"))
    with closing(LogWriter(str(folder / "vdl"))) as log:
        for step, (rate, loss, smoothed) in enumerate(zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True)):
            if math.isfinite(loss):
                log.add_scalar("sweep/learning rate", rate, step)
                log.add_scalar("sweep/loss", loss, step)
                log.add_scalar("sweep/smoothed loss", smoothed, step)
