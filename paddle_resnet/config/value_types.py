"""Types of a config's values: what each accepts, and the error of one line otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.paths import expand_home
from paddle_resnet.runtime import DEVICE_NAMES, MOST_THREADS
from paddle_resnet.system.portable import name_problem

MOST = 1_000_000  # epochs, steps or images of a batch: there are lists of an element for each
MAX_PATTERN = 500  # characters of a regular expression


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``; raise `ValueError` if it cannot be one."""
    try:
        return expand_home(path)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _auto_or_count(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= MOST_THREADS):
        return value
    raise ValueError(f"expected auto, or a number from 1 to {MOST_THREADS}, got {shown(value)}")


def _class_weights(value: object) -> object:
    if value in ("none", "balanced"):
        return value
    if isinstance(value, list | tuple) and all(type(each) in (int, float) and 0 < each < 1e9 for each in value):
        return tuple(map(float, value))
    raise ValueError(f"expected none, balanced, or a list with a weight above 0 for each class, got {shown(value)}")


def _requires(holds: Callable[[Any], object], expected: str) -> AfterValidator:
    """Return the validator of a value for which `holds` has to be true; `expected` says so in words."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"expected {expected}, got {shown(repr(value))}")
        return value

    return AfterValidator(check)


def _pattern_of_a_class(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex if len(pattern) <= MAX_PATTERN else {}
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown(pattern)} is no regular expression ({error})") from None
    if "class" not in groups:
        raise ValueError(
            f"{shown(pattern)} has no group (?P<class>...), or more than {MAX_PATTERN} characters; expected one "
            "such as (?P<class>[a-z]+)[.]"
        )
    return pattern


def _weights(pretrained: str) -> str:
    if pretrained in ("true", "True"):
        raise ValueError(f"expected imagenet, cifar10, a weights file, a run's folder or null, got {pretrained}")
    return str(expanded(pretrained)) if pretrained and pretrained[0] in "~\0" else pretrained


def _name_of_a_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise ValueError(
            "expected letters, digits, dots, dashes and underscores, at most 200, as it names a folder, "
            f"got {shown(repr(name))}"
        )
    if problem := name_problem(name):
        raise ValueError(f"{problem}, and it names a folder; choose another name")
    return name


# Strict, as pydantic would otherwise take `true` for 1 and 1.0.
Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Positive = Annotated[Integer, Field(gt=0, le=MOST)]
NonNegative = Annotated[Integer, Field(ge=0)]
PositiveReal = Annotated[Real, Field(gt=0)]
NonNegativeReal = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Probability = Annotated[Real, Field(ge=0, lt=1)]
Fraction = Annotated[Real, Field(gt=0.0, lt=1.0)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Seeds = Annotated[
    tuple[Seed, ...], Field(min_length=1), _requires(lambda seeds: len({*seeds}) == len(seeds), "each seed once")
]
AutoOrCount = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)]
PerChannel = tuple[Real, Real, Real]  # a mean or standard deviation for each of the channels R, G and B, in 0..1
Deviations = Annotated[PerChannel, _requires(lambda values: min(values) > 0, "numbers above 0")]
RangeOfShares = Annotated[
    tuple[Real, Real], _requires(lambda ends: 0 < ends[0] <= ends[1] <= 1, "two shares, 0 < smallest <= largest <= 1")
]
ClassWeights = Annotated[Literal["none", "balanced"] | tuple[Real, ...], BeforeValidator(_class_weights)]
_number_as_name = BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)
Folder = Annotated[Path, _number_as_name, AfterValidator(expanded)]
ClassPattern = Annotated[str, AfterValidator(_pattern_of_a_class)]
Weights = Annotated[str, AfterValidator(_weights)]
RunName = Annotated[str, AfterValidator(_name_of_a_folder)]
Device = Annotated[str, _requires(lambda device: re.fullmatch(DEVICE_NAMES, device), "auto, cpu, gpu or gpu:<number>")]
SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
