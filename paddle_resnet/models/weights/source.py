"""What `pretrained` names: a weights file, with the options after its ``#``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.paths import expand_home

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "pad": ("both", "end"),  # where a shortcut without parameters adds its channels of zeros
}
"""The options with a value, and their values."""


class WeightsSource(NamedTuple):
    """A weights file and what a user asked of it."""

    path: Path
    take: str | None = None  # which of several copies of the weights: a word of its name, such as ``ema``
    options: Mapping[str, str] = {}  # of `OPTIONS`


def parse_source(text: str | Path) -> WeightsSource:
    """Split ``FILE#ema&pad=both`` into the file and its options. An existing file with a ``#`` in its name is one.

    A run's folder stands for the weights of its best epoch.

    Raises:
        UsageError: an unknown option or value, or the folder of a run without weights.
    """
    whole = expand_home(text)
    name, hash_, tail = whole.name.partition("#")
    if os.path.isfile(whole / "config.yaml"):  # noqa: PTH113 (False, not an error, for a name that is too long)
        best = whole / "checkpoints" / "best" / "model.pdparams"
        if not best.is_file():
            raise UsageError(f"{whole}: a run without weights: it has no checkpoints/best; train it first")
        return WeightsSource(best)
    if not hash_ or whole.exists():
        return WeightsSource(whole)
    take, options = None, {}
    for part in tail.split("&"):
        option, equals, value = part.partition("=")
        if not equals and part:
            take = part
        elif value in OPTIONS.get(option, ()):
            options[option] = value
        else:
            known = ", ".join(f"{key}={'|'.join(values)}" for key, values in OPTIONS.items())
            raise UsageError(
                f"{shown(str(whole), 200)}: unknown option {shown(part)!r} after '#'; "
                f"expected the name of a copy, such as ema, or {known}"
            )
    return WeightsSource(whole.with_name(name), take, options)
