"""The schema of a run: a YAML file, overrides, checks. ``Config.load("x.yaml", ["train.epochs=3"])``."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from paddle_resnet.config.yaml_reader import NotPlainYamlError, parse_yaml, read_yaml
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.files import expand_home, write_text
from paddle_resnet.runtime import DEVICE_NAMES
from paddle_resnet.shipped import config_path

# Strict, as pydantic would otherwise take `true` for 1 and 1.0.
Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Positive = Annotated[Integer, Field(gt=0)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Fraction = Annotated[Real, Field(gt=0.0, lt=1.0)]


def _name(value: Any) -> Any:
    """A folder's name may look like a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _in_home(path: str | Path) -> Path:
    try:
        return expand_home(path)
    except UsageError as error:
        raise ValueError(str(error)) from None


Folder = Annotated[Path, BeforeValidator(_name), AfterValidator(_in_home)]
PerChannel = tuple[Real, Real, Real]


class Group(BaseModel):
    """A group of keys: frozen, typed, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class DataConfig(Group):
    """Which images, and how they become batches."""

    source: Literal["digits", "cifar10", "cifar100", "fashion_mnist", "image_folder"] = "digits"
    root: Folder | None = Field(None, description="folder of the archives or of the images; null: Paddle's own cache")
    verify: bool = Field(True, description="refuse an archive whose MD5 is not the official one")
    image_size: Annotated[Integer, Field(ge=8, le=1024)] = Field(32, description="pixels a side that the network sees")
    resize: Annotated[Integer, Field(ge=8, le=2048)] | None = Field(
        None, description="shorter side before the centre crop to image_size; null: a rule by source"
    )
    validation_fraction: Fraction = Field(0.1, description="share of the training images held out for every decision")
    test_fraction: Fraction = Field(0.2, description="share held out to test where the source has no test split")
    split_seed: Annotated[Integer, Field(ge=0)] = Field(
        0, description="which images are held out; apart from train.seed"
    )
    mean: PerChannel | None = Field(None, description="per-channel mean in 0..1; null: the source's own")
    std: PerChannel | None = Field(None, description="per-channel standard deviation in 0..1; null: the source's own")
    workers: Annotated[Integer, Field(ge=1, le=64)] = Field(2, description="threads that decode image files")
    sampler: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="an epoch's images: each once, or as many of each class, the images of rare classes several times",
    )
    strict: bool = Field(False, description="a picture of a folder that cannot be read is an error; false: left out")
    memory_mb: Annotated[Integer, Field(ge=0)] = Field(
        2048, description="keep a folder's decoded images in memory up to"
    )

    @field_validator("std")
    @classmethod
    def _std_is_positive(cls, std: PerChannel | None) -> PerChannel | None:
        if std is not None and min(std) <= 0:
            raise ValueError("each standard deviation must be above 0")
        return std

    @model_validator(mode="after")
    def _resize_covers_the_crop(self) -> DataConfig:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        if self.source == "image_folder" and self.root is None:
            raise ValueError("image_folder needs root: the folder that holds train/<class>/ and test/<class>/")
        return self


class AugmentConfig(Group):
    """Random changes to the training images, for a whole batch at once."""

    pad: Annotated[Integer, Field(ge=0, le=64)] = Field(
        0, description="zero-pad by so many pixels, then crop back at random"
    )
    flip: bool = Field(False, description="mirror left and right with probability 1/2")
    scale: tuple[Real, Real] | None = Field(
        None, description="random-resized crop: the crop's area as a share of the image, e.g. [0.35, 1.0]"
    )
    cutout: Annotated[Integer, Field(ge=0, le=1024)] = Field(
        0, description="hide a square of so many pixels a side, anywhere, under the mean colour; 0: none"
    )
    erase: Annotated[Real, Field(ge=0, le=1)] = Field(
        0.0, description="random erasing: the share of the images of which a rectangle becomes noise; 0: none"
    )
    trivial_augment: bool = Field(
        False, description="one random operation an image: shear, shift, turn, or change of colours"
    )
    mixup: Annotated[Real, Field(ge=0)] = Field(
        0.0, description="blend pairs of images and of classes by a share from Beta(mixup, mixup), e.g. 0.2; 0: none"
    )
    cutmix: Annotated[Real, Field(ge=0)] = Field(
        0.0, description="a box of each image shows another; its area is by Beta(cutmix, cutmix), e.g. 1.0; 0: none"
    )
    mix_probability: Annotated[Real, Field(gt=0, le=1)] = Field(
        1.0, description="the share of the batches that mixup and cutmix change"
    )

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> AugmentConfig:
        if self.pad and self.scale is not None:
            raise ValueError(f"pad ({self.pad}) and scale ({list(self.scale)}) are two kinds of crop: set one of them")
        return self

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("expected two shares with 0 < smallest <= largest <= 1")
        return scale


class ModelConfig(Group):
    """Which network, and where its first weights come from."""

    name: str = Field("resnet20", description="a name of paddle_resnet.list_models()")
    stem: Literal["imagenet", "cifar", "cifar_pool", "deep", "whitening"] | None = Field(
        None,
        description="imagenet and deep quarter the image, cifar_pool and whitening halve it, cifar keeps it; null: the "
        "design's",
    )
    zero_init_residual: bool = Field(False, description="each residual block starts as its shortcut")
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="before the last layer; in the blocks of a wide ResNet"
    )
    stochastic_depth: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="probability of dropping the last residual branch; earlier ones linearly less"
    )
    pretrained: str | None = Field(
        None,
        description='null, "imagenet" (official weights), "cifar10" (weights in the package), or a .pdparams, .pth, '
        ".pt or .safetensors file",
    )

    @field_validator("pretrained")
    @classmethod
    def _pretrained_in_the_home(cls, pretrained: str | None) -> str | None:
        return str(_in_home(pretrained)) if pretrained and pretrained[0] in "~\0" else pretrained


class TrainConfig(Group):
    """How the network is trained."""

    epochs: Positive = 10
    batch_size: Positive = Field(
        128, description="images a batch; of each process, where several train together (paddle.distributed.launch)"
    )
    seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = Field(
        None, description="train once with each of these seeds, e.g. [0, 1, 2], and report mean and standard deviation"
    )
    accumulate: Positive = Field(
        1,
        description="average the gradients of so many batches for each step: as a batch so many times as large, in the "
        "memory of one",
    )
    optimizer: Literal["sgd", "adamw", "muon", "lars"] = Field(
        "sgd",
        description="sgd is with Nesterov momentum; muon too, with an orthogonal step for convolutions, of which "
        "learning_rate is then the share of a filter bank's norm that a step moves; lars is for batches of thousands",
    )
    learning_rate: Annotated[Real, Field(gt=0)] = Field(0.1, description="the peak, reached after warm-up")
    scale_learning_rate: Literal["linear", "square_root", "none"] = Field(
        "linear",
        description="where k processes train together, and so take batches k times as large: learning_rate times k, "
        "times the root of k, or as it is",
    )
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[Real, Field(ge=0)] = Field(5e-4, description="not applied to BatchNorm and biases")
    schedule: Literal["cosine", "one_cycle", "step", "plateau"] = Field(
        "cosine",
        description="how the rate falls after warm-up: cosine or one_cycle (a line) to zero, step (at milestones), or "
        "plateau (whenever the validation loss no longer falls)",
    )
    warmup: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the steps in which the rate rises in a line to its peak"
    )
    milestones: tuple[Fraction, ...] = Field(
        (0.5, 0.75), description="with schedule step: the shares of the steps after which the rate falls to a tenth"
    )
    plateau_patience: Positive = Field(
        5, description="with schedule plateau: so many epochs without a lower validation loss, then a tenth of the rate"
    )
    patience: Positive | None = Field(
        None, description="early stopping: end after so many epochs without a new best by validation; null: never"
    )
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = Field(
        1.0, description="each part of the network learns at this share of the rate of the part behind it; 1: alike"
    )
    freeze_epochs: Annotated[Integer, Field(ge=0)] = Field(
        0, description="so many epochs train the head alone, before all the network learns"
    )
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[Real, Field(gt=0)] | None = Field(None, description="clip the gradient's global norm to this")
    ema: Fraction | None = Field(
        None,
        description="validate, keep and export an exponential moving average of the weights, which keeps this share of "
        "itself at each step, e.g. 0.998; null: the weights themselves",
    )
    first_size: Annotated[Integer, Field(ge=8, le=1024)] | None = Field(
        None, description="pixels a side of the first epochs' crops, growing to data.image_size; null: no growth"
    )
    sync_batch_norm: bool = Field(
        False,
        description="where several processes train together: BatchNorm's statistics are of the images of all of them; "
        "false: of each process's own",
    )
    cpu_backend: Literal["auto", "onednn", "native"] = Field(
        "auto",
        description="on a CPU: oneDNN's layers, which are faster, or Paddle's own; auto: oneDNN where it fits",
    )
    cpu_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="of what flows between oneDNN's layers; weights stay float32; auto: bfloat16 where the processor "
        "has it (AVX512-BF16 or AMX)",
    )
    amp: bool = Field(False, description="automatic mixed precision O1 (float16); on a GPU only")
    checkpoint_minutes: Annotated[Real, Field(gt=0)] = Field(
        10.0, description="write checkpoints/last, from which a stopped run goes on, so often within an epoch too"
    )
    checkpoint_steps: Positive | None = Field(
        None, description="write checkpoints/last after each so many steps of an epoch as well; null: by time alone"
    )
    histogram_steps: Positive | None = Field(
        None, description="histograms of all weights and gradients in VisualDL at every so many steps; null: none"
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError("each seed may stand there once")
        return seeds


class EvaluationConfig(Group):
    """How the trained network answers: in measurements of whole splits, and exported."""

    flip: bool = Field(
        False, description="average the probabilities of each image and of its mirror image; takes twice the time"
    )
    embeddings: Annotated[Integer, Field(ge=0, le=10_000)] = Field(
        1000, description="of so many images of a measured split, the features before the last layer in VisualDL"
    )


class Config(Group):
    """One run, whole: the same config on the same version reproduces it."""

    name: str = Field("run", description="names the run's folder")
    output: Folder = Field(Path("output"), description="folder of all runs")
    device: str = Field("auto", description="auto, cpu, gpu or gpu:<i>")
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _crops_grow(self) -> Config:
        first, last = self.train.first_size, self.data.image_size
        if first is not None and first > last:
            raise ValueError(f"train.first_size ({first}) must be at most data.image_size ({last})")
        return self

    @model_validator(mode="after")
    def _some_epoch_is_left(self) -> Config:
        frozen, epochs = self.train.freeze_epochs, self.train.epochs
        if frozen > epochs:
            raise ValueError(f"train.freeze_epochs ({frozen}) must be at most train.epochs ({epochs})")
        return self

    @field_validator("name")
    @classmethod
    def _name_is_a_folders(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
            raise ValueError(
                "expected letters, digits, dots, dashes and underscores, at most 200, as it names a folder, "
                f"got {shown(repr(name))}"
            )
        return name

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not re.fullmatch(DEVICE_NAMES, device):
            raise ValueError(f"expected auto, cpu, gpu or gpu:<number>, got {device!r}")
        return device

    @property
    def run_folder(self) -> Path:
        """The run's folder, ``output/<name>``."""
        return self.output / self.name

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Config:
        """Read a YAML file, apply ``a.b=value`` overrides, and check everything.

        Raises:
            UsageError: a missing or malformed file, an unknown key, a wrong type or value; the message names it.
        """
        path = config_path(path)
        values = read_yaml(path, _is_text, "a config has lines as 'train:' and '  epochs: 10'; see configs/")
        return cls.from_values(values, overrides, source=str(path))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], overrides: Iterable[str] = (), *, source: str = "config") -> Config:
        """Check nested values as a YAML file would hold them, with ``a.b=value`` overrides; `source` names them.

        Raises:
            UsageError: an unknown key, a wrong type or value; the message names it.
        """
        nested = copy.deepcopy(dict(values))
        origin = dict.fromkeys(nested, source)
        for override in overrides:
            key = _apply_override(nested, override)
            for earlier in [each for each in origin if f"{each}.".startswith(f"{key}.")]:
                if origin.pop(earlier) not in (source, f"-o {override}"):
                    logger.warning(f"-o {shown(override)} takes the place of an earlier -o {shown(earlier)}=...")
            origin[key] = f"-o {override}"
        try:
            return cls.model_validate(nested)
        except ValidationError as error:
            raise UsageError(_explain(error, cls, origin, source)) from None

    def to_yaml(self) -> str:
        """The resolved config as YAML: every key, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write the resolved config; `Config.load` of it gives an equal config."""
        write_text(path, self.to_yaml())


IN_PLAIN_WORDS = {
    "missing": "expected more values",
    "model_type": "expected a group of keys",
    "tuple_type": "expected a list of numbers, such as [0.5, 1.0]",
}
"""What a person understands better than pydantic's own words, by pydantic's type of error."""


def _apply_override(values: dict[str, Any], override: str) -> str:
    """Set one ``a.b=value`` in nested `values`; return the dotted key."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"-o {shown(override)}: expected key=value, for example -o train.epochs=3")
    if not override.isascii() and override.encode(errors="ignore").decode() != override:
        raise UsageError(f"-o {shown(override)}: is not UTF-8 text, which a run's config.yaml is written in")
    try:
        value = parse_yaml(text, _is_text, key)
    except NotPlainYamlError:
        value = text
    *groups, last = key.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if inner is None:
            inner = values[group] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"-o {shown(override)}: {group} is a single value, not a group of keys")
        values = inner
    values[last] = value
    return key


def _is_text(key: str) -> bool:
    """Whether the key takes a name or a path, which stands as it was typed: 2024_01 is no number there."""
    annotation: Any = Config
    for part in key.split("."):
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
        if part not in fields:
            return False
        annotation = fields[part].annotation
    return _takes_text(annotation)


def _takes_text(annotation: Any) -> bool:
    return annotation in (str, Path) or any(_takes_text(part) for part in get_args(annotation))


def _explain(error: ValidationError, schema: type[BaseModel], origin: Mapping[str, str], source: str) -> str:
    """Turn pydantic's first complaint into one line that names key, value and expectation."""
    complaint = error.errors()[0]
    key = ".".join(str(part) for part in complaint["loc"] if isinstance(part, str))
    key = key.removesuffix(".function-after") or "config"
    source = shown(origin.get(key, source), 240)
    if complaint["type"] == "extra_forbidden":
        return f'{source}: unknown key "{shown(key)}"{_suggest_key(key, schema)}'
    message = complaint["msg"].removeprefix("Value error, ")
    if complaint["type"] == "value_error":
        return f"{source}: {key}: {shown(message, 300)}"
    message = IN_PLAIN_WORDS.get(complaint["type"], message)
    return f"{source}: {key}: {message}, got {shown(repr(complaint['input']))}"


def known_keys(schema: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, groups included."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _suggest_key(key: str, schema: type[BaseModel]) -> str:
    """Suggest the nearest known key, also one of the same last name in another group."""
    known = known_keys(schema)
    last = key.rsplit(".", 1)[-1]
    elsewhere = [name for name in known if name.rsplit(".", 1)[-1] == last]
    return f' (did you mean "{elsewhere[0]}"?)' if elsewhere else did_you_mean(key, known)
