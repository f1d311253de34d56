"""A run in a line, and as HTML for a notebook: what its config changes, its metrics, its curves."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from paddle_resnet.config import Config
from paddle_resnet.results import EpochRecord

Metrics = Mapping[str, Mapping[str, Any]]  # ``metrics.json``, by section


def run_line(path: Path, config: Config, history: Sequence[EpochRecord], metrics: Metrics) -> str:
    """Return a line as ``output/quickstart: resnet20 on digits, 20 of 20 epochs, test top-1 98.06%``."""
    parts = [f"{config.model.name} on {config.data.source}", f"{len(history)} of {config.train.epochs} epochs"]
    parts += [
        f"{section} top-1 {values['top1']:.2%}"
        for section, values in _measured(metrics)
        if section in ("validation", "test")
    ]
    return f"{path}: {', '.join(parts)}"


def run_html(path: Path, config: Config, history: Sequence[EpochRecord], metrics: Metrics) -> str:
    """Return tables of the config's keys that are no defaults and of the metrics, and the curves as an inline PNG."""
    changed = _table(("key", "value"), flat(config.model_dump(mode="json", exclude_defaults=True)))
    measured = _table(
        ("split", "top-1", "loss (nats)"),
        ((section, f"{values['top1']:.2%}", f"{values['loss']:.4f}") for section, values in _measured(metrics)),
    )
    parts = [f"<p><b>{escape(run_line(path, config, history, metrics))}</b></p>"]
    parts.append(f'<div style="display: flex; gap: 3em; align-items: flex-start">{changed}{measured}</div>')
    if history:
        from paddle_resnet.plots.curves import draw_learning_curves  # a training need not wait for matplotlib
        from paddle_resnet.plots.style import figure_png

        png = figure_png(lambda: draw_learning_curves(history, f"{config.name}: learning curves"))
        parts.append(f'<img alt="learning curves" src="data:image/png;base64,{base64.b64encode(png).decode()}">')
    return "".join(parts)


def _measured(metrics: Metrics) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((section, values) for section, values in metrics.items() if {"top1", "loss"} <= values.keys())


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested groups of keys, by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
