"""The schema of what a run keeps in JSON: a file that was edited or damaged is one line that names file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import read_json
from paddle_resnet.training.callback_runner import State

Schema = TypeVar("Schema", bound="Saved")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a text")
    return value


Text = Annotated[Any, AfterValidator(_text)]
"""A name, whatever the bytes in it: pydantic's own texts are UTF-8 alone."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Uint128 = Annotated[int, Field(ge=0, lt=1 << 128)]
CheckpointFile = Literal["model.pdparams", "trained.pdparams", "optimizer.pdopt", "scaler.pdscaler"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Saved(BaseModel):
    """A group of keys: no value is taken for one of another type; keys of later versions are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")

    @classmethod
    def read(cls: type[Schema], path: Path) -> Schema:
        """Read and check a JSON file.

        Raises:
            UsageError: it cannot be read, or a field is missing or not what it can be.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UsageError(f"{path}: damaged: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Return pydantic's first complaint as the part of a line: field, expectation, value."""
    complaint = error.errors(include_url=False)[0]
    field = shown(".".join(map(str, complaint["loc"]))) or "the whole"
    message = shown(complaint["msg"].removeprefix("Value error, "), 120)
    if complaint["type"] == "value_error" and not complaint["loc"]:
        return message
    if complaint["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {message}, got {shown(complaint['input'])}"


class SavedEpoch(Saved):
    """A row of ``history.csv``."""

    epoch: Annotated[int, Field(ge=1)]
    train_loss: float
    train_top1: Fraction
    validation_loss: float
    validation_top1: Fraction
    learning_rate: NotNegative
    images_per_second: NotNegative
    seconds: NotNegative


class Sums(Saved):
    """Of the samples of an epoch in progress."""

    loss: float
    correct: NotNegative
    samples: NotNegative


class Means(Saved):
    """Over the samples of an epoch in progress."""

    cross_entropy: float
    top1: Fraction


class RecorderState(Saved):
    """Of `callbacks.Recorder`."""

    records: list[SavedEpoch]
    step: Count
    learning_rate: NotNegative
    means: Sums
    train: Means
    images: Count
    seconds: Positive
    seconds_of_run: NotNegative


class Pcg64(Saved):
    """The two numbers of numpy's generator."""

    state: Uint128
    inc: Uint128


class GeneratorState(Saved):
    """Of numpy's `Generator`."""

    bit_generator: Literal["PCG64"]
    state: Pcg64
    has_uint32: Annotated[int, Field(ge=0, le=1)]
    uinteger: Annotated[int, Field(ge=0, lt=1 << 32)]


class LoaderState(Saved):
    """Of `TrainLoader`."""

    generator: GeneratorState


class CurvesState(Saved):
    """Of `VisualDLLog`: sizes of files."""

    train: Count
    validation: Count


class AverageState(Saved):
    """Of `MovingAverage`."""

    steps: Count


class PlateauState(Saved):
    """Of `ReduceOnPlateau`."""

    reductions: Annotated[int, Field(ge=0, le=1000)]


class States(Saved):
    """What each part keeps, by the name of its class."""

    Recorder: RecorderState
    TrainLoader: LoaderState
    VisualDLLog: CurvesState
    MovingAverage: AverageState | None = None
    ReduceOnPlateau: PlateauState | None = None


class CheckpointState(Saved):
    """``checkpoints/last/state.json``."""

    epoch: Count
    step: Count
    finished: bool
    processes: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    trained_on: dict[str, str | int]
    data: dict[str, Any]
    states: States
    md5: dict[CheckpointFile, Digest]

    def states_by_name(self) -> dict[str, State]:
        """The states of those parts that have one."""
        return self.states.model_dump(exclude_none=True)


class TrainMetrics(Saved):
    """How long a run trained."""

    epochs: Count = 0
    seconds: NotNegative = 0.0


class Validated(Saved):
    """What validation gave in training."""

    top1: Fraction | None = None


class Tested(Saved):
    """What the test split gave."""

    top1: Fraction
    images: Annotated[int, Field(ge=1)] | None = None


class MetricsFile(Saved):
    """Those sections of ``metrics.json`` that are read again."""

    train: TrainMetrics | None = None
    validation: Validated | None = None
    test: Tested | None = None
    seeds: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
