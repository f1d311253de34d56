"""Schemas of a run's JSON files, so that an edited or damaged file is one line that names file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.results import EpochRecord, Fraction, NotNegative
from paddle_resnet.text_files import read_json

Schema = TypeVar("Schema", bound="JsonSchema")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a text")
    return value


Text = Annotated[Any, AfterValidator(_text)]
"""A string that may hold bytes that are not UTF-8, as names of files do; pydantic's `str` must be UTF-8."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Positive = Annotated[float, Field(gt=0)]
Uint128 = Annotated[int, Field(ge=0, lt=1 << 128)]
CheckpointFile = Literal["model.pdparams", "trained.pdparams", "optimizer.pdopt", "scaler.pdscaler"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class JsonSchema(BaseModel):
    """A group of keys: strict types, finite numbers; unknown keys, which a later version may write, are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")

    @classmethod
    def read(cls: type[Schema], path: Path) -> Schema:
        """Read a JSON file; raise `UsageError` if it cannot be read or a field is missing or wrong."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UsageError(f"{path}: damaged: {first_error(error)}") from None


def first_error(error: ValidationError) -> str:
    """Return the first error as part of a line: field, what was expected, value."""
    problem = error.errors(include_url=False)[0]
    field = shown(".".join(map(str, problem["loc"]))) or "the whole"
    message = shown(problem["msg"].removeprefix("Value error, "), 120)
    if problem["type"] == "value_error" and not problem["loc"]:
        return message
    if problem["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {message}, got {shown(problem['input'])}"


class MetricSums(JsonSchema):
    """State of `TrainMetrics`."""

    loss: float
    correct: NotNegative
    samples: NotNegative


class MetricMeans(JsonSchema):
    """Training metrics of the epoch in progress."""

    cross_entropy: float
    top1: Fraction


class RecorderState(JsonSchema):
    """State of `Recorder`."""

    records: list[EpochRecord]
    step: Count
    learning_rate: NotNegative
    means: MetricSums
    train: MetricMeans
    images: Count
    seconds: Positive
    seconds_of_run: NotNegative


class Pcg64(JsonSchema):
    """State of numpy's PCG64."""

    state: Uint128
    inc: Uint128


class GeneratorState(JsonSchema):
    """State of numpy's `Generator`."""

    bit_generator: Literal["PCG64"]
    state: Pcg64
    has_uint32: Annotated[int, Field(ge=0, le=1)]
    uinteger: Annotated[int, Field(ge=0, lt=1 << 32)]


class LoaderState(JsonSchema):
    """State of `TrainLoader`."""

    generator: GeneratorState
    crops: Literal["in memory", "in files"] | None = None


class VisualDLState(JsonSchema):
    """State of `VisualDLLog` or `TensorBoardLog`: bytes of its files."""

    train: Count
    validation: Count


class AverageState(JsonSchema):
    """State of `MovingAverage`."""

    steps: Count


class PlateauState(JsonSchema):
    """State of `ReduceOnPlateau`."""

    reductions: Annotated[int, Field(ge=0, le=1000)]


class ThreadChoiceState(JsonSchema):
    """State of `ThreadChoice`."""

    threads: Annotated[int, Field(ge=1, le=1024)]


class States(JsonSchema):
    """The states of the `Stateful` parts, by `state_name`."""

    Recorder: RecorderState
    TrainLoader: LoaderState
    VisualDLLog: VisualDLState | None = None
    TensorBoardLog: VisualDLState | None = None
    MovingAverage: AverageState | None = None
    ReduceOnPlateau: PlateauState | None = None
    ThreadChoice: ThreadChoiceState | None = None


class CheckpointState(JsonSchema):
    """``checkpoints/last/state.json``."""

    epoch: Count
    step: Count
    finished: bool  # whether nothing is left to train
    processes: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    trained_on: dict[str, str | int]  # `resume_checks.run_environment` of the process that wrote it
    data: dict[str, Any]  # `fingerprint` of the images
    states: States
    md5: dict[CheckpointFile, Digest]


class TrainSection(JsonSchema):
    """Section ``train`` of ``metrics.json``."""

    epochs: Count = 0
    seconds: NotNegative = 0.0


class ValidationSection(JsonSchema):
    """Section ``validation`` of ``metrics.json``."""

    top1: Fraction | None = None


class TestSection(JsonSchema):
    """Section ``test`` of ``metrics.json``."""

    top1: Fraction
    images: Annotated[int, Field(ge=1)] | None = None


class ThresholdSection(JsonSchema):
    """Section ``threshold`` of ``metrics.json``."""

    threshold: Fraction


class MetricsFile(JsonSchema):
    """The sections of ``metrics.json`` that are read again."""

    train: TrainSection | None = None
    validation: ValidationSection | None = None
    test: TestSection | None = None
    threshold: ThresholdSection | None = None
    seeds: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
