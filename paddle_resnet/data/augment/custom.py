"""A user's own change of the training images, named in the config as ``module:function``.

Only training calls it: evaluation, export and prediction never import code that a run's config names.
"""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.images import Indices, Pixels

Transform = Callable[[Pixels, np.random.Generator], Pixels]


class CustomParams(NamedTuple):
    """The user's change of a batch."""

    name: str  # ``module:function``
    seeds: Indices
    """Of each image's generator, ``[n]``, so that the result depends neither on workers nor on other images."""


@functools.cache
def find_transform(name: str) -> Transform:
    """Import ``module:function``, also from the working folder; raise `UsageError` if there is no such one."""
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # the module is the user's, and may raise anything
        raise UsageError(
            f"augment.custom: {name} cannot be imported ({_in_one_line(error)}); expected module:function, with the "
            "module installed or in the working folder"
        ) from error
    if not callable(found):
        raise UsageError(f"augment.custom: {name} is no function")
    transform: Transform = found
    return transform


def draw_custom(count: int, name: str, generator: np.random.Generator) -> CustomParams:
    """Draw a seed for each of `count` images."""
    return CustomParams(name, generator.integers(0, 2**63, count))


def apply_custom(images: Pixels, params: CustomParams) -> None:
    """Change uint8 images ``[n, S, S, 3]`` in place: the function gets one image, ``[1, S, S, 3]``, and its generator.

    Raises:
        UsageError: it raises an error, or returns another shape or type.
    """
    transform = find_transform(params.name)
    for number, seed in enumerate(params.seeds):
        image = images[number : number + 1]
        try:
            result = transform(image.copy(), np.random.default_rng(seed))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{where.filename}, line {where.lineno}"
            raise UsageError(f"augment.custom: {params.name} failed ({_in_one_line(error)}; {line})") from error
        if getattr(result, "shape", None) != image.shape or result.dtype != np.uint8:
            got = f"{result.dtype} {list(result.shape)}" if isinstance(result, np.ndarray) else type(result).__name__
            raise UsageError(f"augment.custom: {params.name} returned {got}, expected uint8 {list(image.shape)}")
        image[:] = result


def _in_one_line(error: Exception) -> str:
    return shown(" ".join(f"{type(error).__name__}: {error}".split()), 300)
