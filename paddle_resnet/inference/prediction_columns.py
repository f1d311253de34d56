"""The columns of a CSV of predictions: by rank, or as a competition wants them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import NamedTuple

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.inference.predictor import Prediction

PROBABILITY_OF = "probability:"
CONTENTS: dict[str, Callable[[Prediction], str]] = {
    "path": lambda prediction: prediction.name,
    "name": lambda prediction: PurePath(prediction.name).name,
    "stem": lambda prediction: PurePath(prediction.name).stem,
    "class": lambda prediction: prediction.top[0].label,
    "probability": lambda prediction: f"{prediction.top[0].probability:.6f}",
}
"""What a column may hold, besides the probability of a class that is named."""


class Column(NamedTuple):
    """A column: its title, and what it holds of a prediction."""

    title: str
    cell: Callable[[Prediction], str]
    needs_every_class: bool = False
    """Whether the prediction must rank all classes, not the best alone."""


def ranked_columns(top_k: int) -> list[Column]:
    """The columns file, class, probability, class_2, probability_2 ... up to `top_k`."""
    columns = [Column("file", CONTENTS["path"])]
    for rank in range(top_k):
        suffix = f"_{rank + 1}" if rank else ""
        columns.append(Column(f"class{suffix}", partial(_label, rank)))
        columns.append(Column(f"probability{suffix}", partial(_probability, rank)))
    return columns


def parse_columns(text: str, classes: Sequence[str]) -> list[Column]:
    """Read ``title=content,title=content``, such as ``id=stem,label=probability:dog``.

    Contents are path (as the picture was found), name, stem (the name without its suffix), class and probability (of
    the best class), and ``probability:CLASS``, that of one class whichever is best.

    Raises:
        UsageError: no such content, or no such class.
    """
    columns = []
    for part in next(csv.reader([text]), []):
        title, equals, content = part.partition("=")
        if not equals or not title:
            raise UsageError(f'--columns: "{part}" is no column; expected title=content, such as id=stem')
        if content.startswith(PROBABILITY_OF):
            label = content.removeprefix(PROBABILITY_OF)
            if label not in classes:
                raise UsageError(
                    f'--columns: the model knows no class "{label}"{did_you_mean(label, classes)}; '
                    f"its classes are {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
                )
            columns.append(Column(title, partial(_probability_of, label), needs_every_class=True))
        elif content in CONTENTS:
            columns.append(Column(title, CONTENTS[content]))
        else:
            expected = f"expected {', '.join(CONTENTS)} or {PROBABILITY_OF}CLASS"
            raise UsageError(f'--columns: "{content}" is no content{did_you_mean(content, CONTENTS)}; {expected}')
    if not columns:
        raise UsageError("--columns: expected title=content, title=content ..., such as id=stem,label=class")
    return columns


def _label(rank: int, prediction: Prediction) -> str:
    return prediction.top[rank].label


def _probability(rank: int, prediction: Prediction) -> str:
    return f"{prediction.top[rank].probability:.6f}"


def _probability_of(label: str, prediction: Prediction) -> str:
    return f"{dict(prediction.top)[label]:.6f}"
