"""Every key of a run's config, with type, default and meaning. ``Config.load("x.yaml", ["train.epochs=3"])``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from paddle_resnet.config.loading import check_config, load_config
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import expand_home, write_text
from paddle_resnet.runtime import DEVICE_NAMES

# Strict, as pydantic would otherwise take `true` for 1 and 1.0.
Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Positive = Annotated[Integer, Field(gt=0)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Fraction = Annotated[Real, Field(gt=0.0, lt=1.0)]


def _number_to_name(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _expanded(path: str | Path) -> Path:
    try:
        return expand_home(path)
    except UsageError as error:
        raise ValueError(str(error)) from None


Folder = Annotated[Path, BeforeValidator(_number_to_name), AfterValidator(_expanded)]
PerChannel = tuple[Real, Real, Real]
"""A mean or standard deviation for each of the channels R, G and B, in 0..1."""


class Group(BaseModel):
    """A group of keys: frozen, typed, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class DataConfig(Group):
    """Which images, and how to make batches of them."""

    source: Literal["digits", "cifar10", "cifar100", "fashion_mnist", "image_folder"] = "digits"
    root: Folder | None = Field(None, description="folder of the archives or of the images; null: Paddle's own cache")
    verify: bool = Field(True, description="refuse an archive whose MD5 is not the official one")
    image_size: Annotated[Integer, Field(ge=8, le=1024)] = Field(32, description="pixels a side that the network sees")
    resize: Annotated[Integer, Field(ge=8, le=2048)] | None = Field(
        None, description="shorter side before the centre crop to image_size; null: set by source"
    )
    validation_fraction: Fraction = Field(0.1, description="share of the training images held out for validation")
    test_fraction: Fraction = Field(0.2, description="share held out for the test where the source has no test split")
    split_seed: Annotated[Integer, Field(ge=0)] = Field(
        0, description="seed of the held-out images; independent of train.seed"
    )
    mean: PerChannel | None = Field(None, description="per-channel mean in 0..1; null: the source's own")
    std: PerChannel | None = Field(None, description="per-channel standard deviation in 0..1; null: the source's own")
    workers: Annotated[Integer, Field(ge=1, le=64)] = Field(2, description="threads that decode image files")
    sampler: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="shuffled: each image once an epoch; balanced: each class equally often, rare images repeated",
    )
    strict: bool = Field(False, description="an unreadable picture of a folder is an error; false: it is left out")
    memory_mb: Annotated[Integer, Field(ge=0)] = Field(
        2048, description="keep a folder's decoded images in memory if they take at most this"
    )

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: PerChannel | None) -> PerChannel | None:
        if std is not None and min(std) <= 0:
            raise ValueError("each standard deviation must be above 0")
        return std

    @model_validator(mode="after")
    def _check_geometry_and_root(self) -> DataConfig:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        if self.source == "image_folder" and self.root is None:
            raise ValueError("image_folder needs root: the folder that holds train/<class>/ and test/<class>/")
        return self


class AugmentConfig(Group):
    """Augmentation of the training images."""

    pad: Annotated[Integer, Field(ge=0, le=64)] = Field(
        0, description="zero-pad by this many pixels, then crop back at random"
    )
    flip: bool = Field(False, description="flip left to right with probability 1/2")
    scale: tuple[Real, Real] | None = Field(
        None, description="random-resized crop: range of the crop's area as a share of the image, e.g. [0.35, 1.0]"
    )
    cutout: Annotated[Integer, Field(ge=0, le=1024)] = Field(
        0, description="fill a random square of this many pixels a side with the mean colour; 0: none"
    )
    erase: Annotated[Real, Field(ge=0, le=1)] = Field(
        0.0, description="random erasing: share of the images in which a rectangle becomes noise; 0: none"
    )
    trivial_augment: bool = Field(
        False, description="one random operation an image: shear, translate, rotate or a colour change"
    )
    mixup: Annotated[Real, Field(ge=0)] = Field(
        0.0, description="mixup: blend pairs of images and labels, lam from Beta(mixup, mixup), e.g. 0.2; 0: none"
    )
    cutmix: Annotated[Real, Field(ge=0)] = Field(
        0.0, description="CutMix: paste a box of another image, area from Beta(cutmix, cutmix), e.g. 1.0; 0: none"
    )
    mix_probability: Annotated[Real, Field(gt=0, le=1)] = Field(
        1.0, description="share of the batches that mixup and CutMix change"
    )

    @model_validator(mode="after")
    def _check_crop_kind(self) -> AugmentConfig:
        if self.pad and self.scale is not None:
            raise ValueError(f"pad ({self.pad}) and scale ({list(self.scale)}) are two kinds of crop: set one of them")
        return self

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("expected two shares with 0 < smallest <= largest <= 1")
        return scale


class ModelConfig(Group):
    """Which network, and its initial weights."""

    name: str = Field("resnet20", description="a name of paddle_resnet.list_models()")
    stem: Literal["imagenet", "cifar", "cifar_pool", "deep", "whitening"] | None = Field(
        None,
        description="first layers: imagenet and deep keep 1/4 of the sides, cifar_pool and whitening 1/2, cifar all; "
        "null: the model's own",
    )
    zero_init_residual: bool = Field(
        False, description="start each residual branch at zero, so that its block is the shortcut alone"
    )
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="probability before the last layer; in the blocks of a wide ResNet"
    )
    stochastic_depth: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="probability of dropping the last residual branch; linearly less for earlier ones"
    )
    pretrained: str | None = Field(
        None,
        description='null, "imagenet" (official weights), "cifar10" (weights in the package), or a .pdparams, .pth, '
        ".pt or .safetensors file",
    )

    @field_validator("pretrained")
    @classmethod
    def _expand_pretrained(cls, pretrained: str | None) -> str | None:
        return str(_expanded(pretrained)) if pretrained and pretrained[0] in "~\0" else pretrained


class TrainConfig(Group):
    """How to train."""

    epochs: Positive = 10
    batch_size: Positive = Field(
        128, description="images a batch; of each rank in distributed training (paddle.distributed.launch)"
    )
    seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = Field(
        None, description="train once with each of these seeds, e.g. [0, 1, 2], and report mean and standard deviation"
    )
    accumulate: Positive = Field(
        1,
        description="gradient accumulation: average the gradients of this many batches for each optimizer step",
    )
    optimizer: Literal["sgd", "adamw", "muon", "lars"] = Field(
        "sgd",
        description="sgd: with Nesterov momentum; muon: the same with orthogonalised updates for convolutions, whose "
        "learning_rate is relative to the norm of the weight; lars: for batches of thousands",
    )
    learning_rate: Annotated[Real, Field(gt=0)] = Field(0.1, description="the peak, reached after warm-up")
    scale_learning_rate: Literal["linear", "square_root", "none"] = Field(
        "linear",
        description="distributed training on k ranks multiplies learning_rate by k, by its square root, or not at all",
    )
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[Real, Field(ge=0)] = Field(5e-4, description="not applied to BatchNorm and biases")
    schedule: Literal["cosine", "one_cycle", "step", "plateau"] = Field(
        "cosine",
        description="learning rate after warm-up: cosine or one_cycle (linear) to zero, step (at milestones), or "
        "plateau (when the validation loss stops falling)",
    )
    warmup: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the steps in which the rate rises linearly to its peak"
    )
    milestones: tuple[Fraction, ...] = Field(
        (0.5, 0.75), description="schedule step: the rate falls to a tenth after these shares of the steps"
    )
    plateau_patience: Positive = Field(
        5, description="schedule plateau: a tenth of the rate after this many epochs without improvement"
    )
    patience: Positive | None = Field(
        None, description="early stopping: end after this many epochs without a new best on validation; null: never"
    )
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = Field(
        1.0, description="layer-wise decay: each stage's rate is this share of the next stage's; 1: equal rates"
    )
    freeze_epochs: Annotated[Integer, Field(ge=0)] = Field(
        0, description="train the head alone for this many epochs first"
    )
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[Real, Field(gt=0)] | None = Field(None, description="clip the gradient's global norm to this")
    ema: Fraction | None = Field(
        None,
        description="decay of an exponential moving average of the weights, which is validated, saved and exported, "
        "e.g. 0.998; null: no average",
    )
    first_size: Annotated[Integer, Field(ge=8, le=1024)] | None = Field(
        None,
        description="progressive resizing: crop size of the first epochs; grows to data.image_size",
    )
    sync_batch_norm: bool = Field(
        False,
        description="in distributed training, BatchNorm's statistics are of the images of all ranks; false: of each",
    )
    cpu_backend: Literal["auto", "onednn", "native"] = Field(
        "auto",
        description="on a CPU: oneDNN's layers, which are faster, or Paddle's own; auto: oneDNN where possible",
    )
    cpu_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="of activations and gradients between oneDNN's layers; weights stay float32; auto: bfloat16 where "
        "the processor has it (AVX512-BF16 or AMX)",
    )
    amp: bool = Field(False, description="automatic mixed precision O1 (float16); on a GPU only")
    checkpoint_minutes: Annotated[Real, Field(gt=0)] = Field(
        10.0, description="write checkpoints/last, from which a run resumes, this often within an epoch too"
    )
    checkpoint_steps: Positive | None = Field(
        None, description="write checkpoints/last every this many steps of an epoch as well; null: by time alone"
    )
    histogram_steps: Positive | None = Field(
        None, description="log histograms of weights and gradients to VisualDL every this many steps; null: none"
    )

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError("each seed may be given once")
        return seeds


class EvaluationConfig(Group):
    """How to evaluate and export the trained network."""

    flip: bool = Field(
        False,
        description="average the probabilities of each image and its flip; takes twice the time",
    )
    embeddings: Annotated[Integer, Field(ge=0, le=10_000)] = Field(
        1000, description="log the features before the last layer of this many images of a split to VisualDL"
    )


class Config(Group):
    """One run: the same config on the same version reproduces it."""

    name: str = Field("run", description="name of the run's folder")
    output: Folder = Field(Path("output"), description="folder of all runs")
    device: str = Field("auto", description="auto, cpu, gpu or gpu:<i>")
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_first_size(self) -> Config:
        first, last = self.train.first_size, self.data.image_size
        if first is not None and first > last:
            raise ValueError(f"train.first_size ({first}) must be at most data.image_size ({last})")
        return self

    @model_validator(mode="after")
    def _check_freeze_epochs(self) -> Config:
        frozen, epochs = self.train.freeze_epochs, self.train.epochs
        if frozen > epochs:
            raise ValueError(f"train.freeze_epochs ({frozen}) must be at most train.epochs ({epochs})")
        return self

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
            raise ValueError(
                "expected letters, digits, dots, dashes and underscores, at most 200, as it names a folder, "
                f"got {shown(repr(name))}"
            )
        return name

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not re.fullmatch(DEVICE_NAMES, device):
            raise ValueError(f"expected auto, cpu, gpu or gpu:<number>, got {device!r}")
        return device

    @property
    def run_folder(self) -> Path:
        return self.output / self.name

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Config:
        """Read a YAML file and apply ``a.b=value`` overrides; see `load_config`."""
        return load_config(cls, path, overrides)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], overrides: Iterable[str] = (), *, source: str = "config") -> Config:
        """Check nested values, as a YAML file would hold them; see `check_config`."""
        return check_config(cls, values, overrides, source)

    def to_yaml(self) -> str:
        """Return the resolved config as YAML: every key, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write the resolved config; `Config.load` of it gives an equal config."""
        write_text(path, self.to_yaml())
