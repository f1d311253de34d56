"""What a weights file is: whose names it has, and which network of the table its tensors fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.errors import shown
from paddle_resnet.models.weights.adaptation import from_both_sides, name_head, pads_both_sides
from paddle_resnet.models.weights.layout import bad_numbers
from paddle_resnet.models.weights.naming import NamedArrays, candidates
from paddle_resnet.models.weights.projects import SAME_NAMES
from paddle_resnet.models.weights.weights_file import WeightsFile, WeightsSource, read_weights_file
from paddle_resnet.zoo.matching import matching_models
from paddle_resnet.zoo.registry import ResNetEntry, model_entry
from paddle_resnet.zoo.shapes import Shape


@dataclass(frozen=True)
class IdentifiedFile:
    """A weights file, with its tensors as a network here has them."""

    file: WeightsFile
    named: NamedArrays
    arrays: dict[str, np.ndarray]  # by the names here, in Paddle's layout
    models: tuple[str, ...]  # the networks that they fit; none: an unknown one, whose head and padding stay
    head: tuple[str, ...]  # what the file calls its head, if it is not ``fc``


def identify(source: WeightsSource) -> IdentifiedFile:
    """Read a weights file and find out what is in it.

    Raises:
        UsageError: it cannot be read.
    """
    file = read_weights_file(source.path, source.take)
    unknown = None
    for named in candidates(file.entries, file.layout, len(file.entries) // 4):
        models = matching_models({name: array.shape for name, array in named.arrays.items()})
        if models:
            return _as_network(file, named, models, source)
        if unknown is None or (named.project is not SAME_NAMES and unknown.project is SAME_NAMES):
            unknown = named
    assert unknown is not None
    return IdentifiedFile(file, unknown, unknown.arrays, (), ())


def _as_network(
    file: WeightsFile, named: NamedArrays, models: Mapping[str, Mapping[str, Shape]], source: WeightsSource
) -> IdentifiedFile:
    first, body = next(iter(models.items()))
    arrays, head = name_head(named.arrays, body)
    entry = model_entry(first.partition(" ")[0])
    padded = isinstance(entry, ResNetEntry) and entry.shortcut == "zero_pad" and entry.block == "basic"
    if padded and pads_both_sides(file, head, source.options.get("pad"), str(source.path)):
        arrays = from_both_sides(arrays)
    return IdentifiedFile(file, named, arrays, tuple(models), head)


def log_choice(file: WeightsFile, named: NamedArrays, label: str) -> None:
    """Log which of a file's tensors are taken, and which are not, unless all are."""
    taken = [part for part in (file.place, named.prefix.rstrip(".")) if part]
    if taken:
        logger.info("%s: takes %s", label, " / ".join(map(shown, taken)))
    if others := [*file.others, *(prefix.rstrip(".") for prefix in named.rivals)]:
        logger.info("%s: holds other weights: %s; FILE#NAME takes them", label, listed(others))
    if left_out := [*named.left_out, *file.left_out]:
        logger.info("%s: leaves out %s", label, listed(left_out))
    if named.project is not SAME_NAMES:
        logger.info("%s: has the names of %s", label, named.project.name)
    if named.project.note:
        logger.warning("warning: %s: %s", label, named.project.note)


def unusual_numbers(arrays: Mapping[str, np.ndarray]) -> str:
    """Return in words the types of the numbers, unless all are float32, and which tensors have `bad_numbers`."""
    types = sorted({str(array.dtype) for array in arrays.values()})
    bad = {name: count for name, array in arrays.items() if (count := bad_numbers(array))}
    facts = [", ".join(types)] if types != ["float32"] else []
    if bad:
        facts.append(f"{sum(bad.values()):,} NaN or infinite ones, in {listed([*bad])}")
    return "; ".join(facts)


def listed(names: Sequence[str], limit: int = 80) -> str:
    """Return the first three names of a file, each cut at `limit`."""
    return ", ".join([*(shown(name, limit) for name in names[:3]), *(["..."] if len(names) > 3 else [])])
