"""Every key of a run's config, with type, default and meaning. ``Config.load("x.yaml", ["train.epochs=3"])``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paddle_resnet import distributed
from paddle_resnet.config.loading import check_config, load_config
from paddle_resnet.config.value_types import (
    SPLIT_NAMES,
    AutoOrCount,
    ClassPattern,
    ClassWeights,
    Deviations,
    Device,
    Folder,
    Fraction,
    Integer,
    NonNegative,
    NonNegativeReal,
    PerChannel,
    Positive,
    PositiveReal,
    Probability,
    RangeOfShares,
    Real,
    RunName,
    Seed,
    Seeds,
    Share,
    SplitName,
    Weights,
)
from paddle_resnet.config.yaml_reader import yaml_text
from paddle_resnet.system.machine import physical_cores
from paddle_resnet.text_files import write_text


class Group(BaseModel):
    """A group of keys: frozen, typed, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class DataConfig(Group):
    """Which images, and how to make batches of them."""

    # Where the images are from, see docs/configs.md#data-sources.
    source: Literal[
        "digits", "cifar10", "cifar100", "fashion_mnist", "image_folder", "image_list", "image_names", "image_shards"
    ] = "digits"
    # Folder of the archives or of the images; null: Paddle's own cache, or the folder of train_list.
    root: Folder | None = None
    # image_list: the lists of images with labels; null: train.txt, val.txt and test.txt (or .csv) in root.
    # image_shards: such as train-{000000..000146}.tar; null: train-*.tar, val-*.tar and test-*.tar in root.
    train_list: Folder | None = None
    validation_list: Folder | None = None  # The same of the validation split.
    test_list: Folder | None = None  # The same of the test split.
    # image_list, image_shards: names of the classes, one a line; null: label.txt or classes.txt beside the lists or
    # shards, or the labels themselves.
    class_names: Folder | None = None
    # image_names: regular expression of the files' names, in which the group (?P<class>...) is the class.
    pattern: ClassPattern | None = None
    verify: bool = True  # Refuse an archive whose MD5 is not the official one.
    image_size: Annotated[Integer, Field(ge=8, le=1024)] = 32  # Pixels a side that the network sees.
    # Use at most so many images of each split (of files: of each folder or list that there is): at least 4 of a class,
    # so only of some classes where there are many.
    limit: Annotated[Integer, Field(gt=0)] | None = None
    # Shorter side before the centre crop to image_size; null: set by source.
    resize: Annotated[Integer, Field(ge=8, le=2048)] | None = None
    validation_fraction: Fraction = 0.1  # Share of the training images held out for validation.
    test_fraction: Fraction = 0.2  # Share held out for the test where the source has no test split.
    split_seed: NonNegative = 0  # Seed of the held-out images; independent of train.seed.
    mean: PerChannel | None = None  # Per-channel mean in 0..1; null: the source's own.
    std: Deviations | None = None  # Per-channel standard deviation in 0..1; null: the source's own.
    # Processes that decode image files, or threads that crop images in memory: 1 to 256; auto: as many as there are
    # cores.
    workers: AutoOrCount = "auto"
    prefetch: Annotated[Integer, Field(ge=1, le=64)] = 2  # Batches that are read ahead of the training.
    # shuffled: each image once an epoch; balanced: each class equally often, rare images repeated, see
    # docs/finetuning.md#classes-of-very-different-size.
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    strict: bool = False  # An unreadable image of a folder is an error; false: it is left out.
    # Read every image before training; false: not if they are more than 50,000 and do not fit in memory.
    check: bool = False
    memory_mb: NonNegative = 2048  # Keep a folder's decoded images in memory if they take at most this many megabytes.

    @property
    def lists(self) -> dict[SplitName, Path]:
        """The lists of images, or shards, that are named."""
        named = zip(SPLIT_NAMES, (self.train_list, self.validation_list, self.test_list), strict=True)
        return {split: path for split, path in named if path is not None}

    @property
    def worker_count(self) -> int:
        """The number of workers; `auto` is this process's share of the cores that it may use."""
        if self.workers != "auto":
            return self.workers
        return max(1, physical_cores() // distributed.launched().local_world_size)

    @model_validator(mode="after")
    def _check_keys_together(self) -> DataConfig:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        if self.source == "image_folder" and self.root is None:
            raise ValueError("image_folder needs root: the folder that holds train/<class>/ and test/<class>/")
        given = [f"{split}_list" for split in self.lists] + ["class_names"] * (self.class_names is not None)
        listed = self.source in ("image_list", "image_shards")
        if given and not listed:
            raise ValueError(f"{given[0]} is for sources image_list and image_shards, not for {self.source}")
        if listed and self.train_list is None and (self.root is None or self.lists):
            held = "train.txt or train.csv" if self.source == "image_list" else "train-000000.tar and so on"
            raise ValueError(f"{self.source} needs train_list, or root: the folder that holds {held}")
        if (self.pattern is None) != (self.source != "image_names"):
            raise ValueError("pattern and source image_names need each other, e.g. pattern '(?P<class>[a-z]+)[.]'")
        if self.source == "image_names" and self.root is None:
            raise ValueError("image_names needs root: the folder of the images")
        return self


class AugmentConfig(Group):
    """Augmentation of the training images."""

    # Zero-pad by this many pixels, then crop back at random (He et al. 2015, section 4.2).
    pad: Annotated[Integer, Field(ge=0, le=64)] = 0
    # Flip left to right with probability 1/2. alternating: at random in the first epoch, then every image in turns, so
    # that two epochs show each image both ways (Jordan 2024, section 3.6).
    flip: bool | Literal["alternating"] = False
    # Random-resized crop instead of pad: range of the crop's area as a share of the picture, e.g. [0.35, 1.0], as of
    # torchvision's RandomResizedCrop. Of pictures in memory (data.memory_mb), of the picture with its shorter side at
    # data.resize (Szegedy et al. 2015).
    scale: RangeOfShares | None = None
    # Fill a random square of this many pixels a side with the mean colour; 0: none. Its centre is anywhere in the
    # image, so it may be cut off at the edge. Slows learning, and helps when the network has enough epochs to
    # memorise its images (DeVries and Taylor 2017).
    cutout: Annotated[Integer, Field(ge=0, le=1024)] = 0
    # Random erasing: share of the images in which a rectangle of 2 to 40% of the area becomes noise; 0: none (Zhong
    # et al. 2020).
    erase: Share = 0.0
    vertical_flip: Share = 0.0  # Flip top to bottom: share of the images.
    quarter_turns: Share = 0.0  # Turn by 90, 180 or 270 degrees: share of the images.
    # Rotate by a random angle up to this many degrees either way; pixels from outside are black; 0: none.
    rotate: Annotated[Real, Field(ge=0, le=180)] = 0.0
    rotate_probability: Share = 1.0  # Share of the images that rotate changes.
    # Brightness, contrast and saturation by random factors from 1 - s to 1 + s, in random order, as torchvision's
    # ColorJitter(s, s, s); 0: none.
    color_jitter: NonNegativeReal = 0.0
    color_jitter_probability: Share = 1.0  # Share of the images that color_jitter changes.
    grey: Share = 0.0  # Without colour: share of the images.
    # Gaussian blur with a random deviation from 0.1 to this many pixels; 0: none.
    blur: Annotated[Real, Field(ge=0, le=100)] = 0.0
    blur_probability: Share = 1.0  # Share of the images that blur changes.
    custom: str | None = None  # A change of your own, module:function, see docs/training.md#your-own-augmentation.
    # One of 14 random operations an image, at one of 31 strengths: shear, translate, rotate or a colour change
    # (Müller and Hutter 2021, wide), see docs/training.md#trivialaugment-and-random-erasing.
    trivial_augment: bool = False
    # Mixup: blend pairs of images and labels, lam from Beta(mixup, mixup), e.g. 0.2; 0: none (Zhang et al. 2018), see
    # docs/training.md#mixtures-of-images.
    mixup: NonNegativeReal = 0.0
    # CutMix: paste a box of another image, area from Beta(cutmix, cutmix), e.g. 1.0; 0: none (Yun et al. 2019).
    cutmix: NonNegativeReal = 0.0
    mix_probability: Annotated[Real, Field(gt=0, le=1)] = 1.0  # Share of the batches that mixup and CutMix change.

    @model_validator(mode="after")
    def _check_crop_kind(self) -> AugmentConfig:
        if self.pad and self.scale is not None:
            raise ValueError(f"pad ({self.pad}) and scale ({list(self.scale)}) are two kinds of crop: set one of them")
        return self


class ModelConfig(Group):
    """Which network, and its initial weights."""

    # A name of paddle_resnet.list_models(), see docs/networks.md. fast_resnet8 learns most in a CPU's time: wide
    # layers (64, 256, 256) on few pixels, each stage widens in one convolution before max-pooling, and the shortcut
    # goes around the next (Page 2018; Jordan 2024).
    name: str = "resnet20"
    # First layers: imagenet and deep keep 1/4 of the sides, cifar_pool and whitening 1/2, cifar all; null: the
    # model's own. whitening computes the first filters from 500 training images, so that neighbouring pixels and
    # colours become uncorrelated, or takes those of pretrained, and does not train them; fast_resnet8 has it (Page
    # 2018; Jordan 2024).
    stem: Literal["imagenet", "cifar", "cifar_pool", "deep", "whitening"] | None = None
    # Start each residual branch at zero, so that its block is the shortcut alone: the scale of its last BatchNorm is
    # 0 (Goyal et al. 2017, section 5.1).
    zero_init_residual: bool = False
    # Probability of setting a feature to zero before the last layer; in the blocks of a wide ResNet (Srivastava et
    # al. 2014).
    dropout: Probability = 0.0
    # Probability of dropping the last residual branch, per image; linearly less for earlier ones (Huang et al. 2016).
    stochastic_depth: Probability = 0.0
    # null, "imagenet" (official weights; also "imagenet:paddleclas", ":ssld", ":torchvision"), "cifar10" (weights
    # in the package), or a weights file of Paddle, PyTorch or safetensors (FILE#ema: the moving average in it).
    pretrained: Weights | None = None


class TrainConfig(Group):
    """How to train."""

    epochs: Positive = 10  # Passes over the training images.
    # Instead of epochs: as many as fit into so many minutes on this machine, see docs/training.md#epochs-by-time.
    minutes: PositiveReal | None = None
    # The epochs after which the run was extended: written by --resume, see docs/training.md#train-longer.
    extended_from: tuple[Positive, ...] = ()
    # Schedules cosine and one_cycle: the peak of the cycle of added epochs, as a share of learning_rate.
    extend_rate: Annotated[Real, Field(gt=0, le=1)] = 0.1
    batch_size: Positive = 128  # Images a batch; of each rank in distributed training (paddle.distributed.launch).
    seed: Seed = 0  # Seed of order, augmentation, first weights and dropout.
    # Train once with each of these seeds, e.g. [0, 1, 2], and report mean and standard deviation, see
    # docs/training.md#several-seeds.
    seeds: Seeds | None = None
    # Gradient accumulation: average the gradients of this many batches for each optimizer step, see
    # docs/training.md#gradient-accumulation.
    accumulate: Positive = 1
    # sgd: with Nesterov momentum (Sutskever et al. 2013). adamw (Loshchilov and Hutter 2019). lars, for batches of
    # thousands: the step of each weight tensor is 0.001 of its norm at rate 1, vectors take plain steps with momentum
    # (You et al. 2017). muon: momentum, but the step of a convolution's filters is replaced by the nearest matrix
    # with equal singular values (three Newton-Schulz iterations), so that rare directions are learned as fast as
    # common ones; learning_rate is the share of the filters' norm that a step moves, and that norm stays constant:
    # for networks with BatchNorm after each convolution, large batches and little momentum, such as 512 and 0.6
    # (Jordan et al. 2024).
    optimizer: Literal["sgd", "adamw", "muon", "lars"] = "sgd"
    learning_rate: PositiveReal = 0.1  # The peak, reached after warm-up.
    # Distributed training on k ranks multiplies learning_rate by k, by its square root, or not at all (Goyal et al.
    # 2017; Malladi et al. 2022), see docs/training.md#several-processes.
    scale_learning_rate: Literal["linear", "square_root", "none"] = "linear"
    momentum: Probability = 0.9  # Of sgd, lars and muon; adamw has its own, 0.9 and 0.999.
    weight_decay: NonNegativeReal = 5e-4  # On convolutions and the last layer, not on BatchNorm and biases.
    # Learning rate after warm-up: cosine to zero (Loshchilov and Hutter 2017), one_cycle linearly to zero at constant
    # momentum (Smith 2018), step to a tenth at each milestone (He et al. 2015), or plateau: to a tenth when the
    # validation loss has not been lower by a ten-thousandth for plateau_patience epochs (PyTorch's
    # ReduceLROnPlateau).
    schedule: Literal["cosine", "one_cycle", "step", "plateau"] = "cosine"
    warmup: Probability = 0.1  # Share of the steps in which the rate rises linearly to its peak.
    # Schedule step: the rate falls to a tenth after these shares of the steps.
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    plateau_patience: Positive = 5  # Schedule plateau: a tenth of the rate after this many epochs without improvement.
    # What best and early stopping compare on validation: top1 (then the lower loss), loss, or macro_f1, the mean F1
    # over the classes; epoch: the last epoch is the best, for a fixed recipe with few validation images.
    monitor: Literal["top1", "loss", "macro_f1", "epoch"] = "top1"
    # Early stopping: end after this many epochs without a new best on validation (not with monitor epoch); null:
    # never. The schedule does not take it into account: cosine and one_cycle may not have come down by then (Prechelt
    # 1998).
    patience: Positive | None = None
    # Layer-wise decay: each stage's rate is this share of the next stage's, and the head learns at learning_rate; 1:
    # equal rates (Howard and Ruder 2018, section 3.2), see docs/training.md#fine-tuning.
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = 1.0
    # Train the head alone for this many epochs first (Howard and Ruder 2018, section 3.3).
    freeze_epochs: NonNegative = 0
    # e: the target is 1 - e on the class, plus e / K on each of the K classes (Szegedy et al. 2016).
    label_smoothing: Probability = 0.0
    # Weights of the classes in the loss: none, balanced (inverse to their numbers of training images), or a list, see
    # docs/finetuning.md#classes-of-very-different-size.
    class_weights: ClassWeights = "none"
    # Share of the epochs, the last ones, without mixup and CutMix, e.g. 0.1, see docs/training.md#mixtures-of-images.
    stop_mixing: Probability = 0.0
    clip_norm: PositiveReal | None = None  # Clip the norm of all gradients together to this; null: no clipping.
    # Decay of an exponential moving average of the weights, which is validated, saved and exported, e.g. 0.998; null:
    # no average (Polyak and Juditsky 1992), see docs/training.md#moving-average.
    ema: Fraction | None = None
    # Progressive resizing: crop size of the first epochs; grows to data.image_size (Tan and Le 2021, section 4.1),
    # see docs/training.md#progressive-resizing.
    first_size: Annotated[Integer, Field(ge=8, le=1024)] | None = None
    # In distributed training, BatchNorm's statistics are of the images of all ranks; false: of each.
    sync_batch_norm: bool = False
    # Threads of a training on the CPU. auto: OMP_NUM_THREADS if it is set, otherwise what is fastest beside the
    # machine's other programs, measured before the first epoch and again between epochs.
    threads: AutoOrCount = "auto"
    # On a CPU: oneDNN's layers, which are faster, or Paddle's own; auto: oneDNN where possible.
    cpu_backend: Literal["auto", "onednn", "native"] = "auto"
    # Precision of activations and gradients between oneDNN's layers; weights stay float32; auto: bfloat16 where the
    # processor has it (AVX512-BF16 or AMX).
    cpu_precision: Literal["auto", "float32", "bfloat16"] = "float32"
    # Automatic mixed precision O1 on a GPU: float16 where Paddle considers it safe, with a loss scale that adapts
    # (Micikevicius et al. 2018). No effect on a CPU, whose key is cpu_precision.
    amp: bool = False
    # Write checkpoints/last, from which a run resumes, this often within an epoch too, see
    # docs/training.md#stop-and-resume.
    checkpoint_minutes: PositiveReal = 10.0
    # Write checkpoints/last every this many steps of an epoch as well; null: by time alone.
    checkpoint_steps: Positive | None = None
    # Log histograms of weights and gradients to VisualDL every this many steps; null: none, see
    # docs/training.md#visualdl.
    histogram_steps: Positive | None = None

    @property
    def plan(self) -> tuple[int, ...]:
        """The epochs at which the run was to end when it began, and after each extension."""
        return (*self.extended_from, self.epochs)

    @model_validator(mode="after")
    def _check_keys_together(self) -> TrainConfig:
        if self.minutes is not None and self.seeds is not None:
            raise ValueError("minutes would give each of the seeds its own number of epochs: set epochs instead")
        if self.monitor == "epoch" and self.patience is not None:
            raise ValueError(
                f"patience ({self.patience}) never ends a training with monitor epoch, by which each epoch is the "
                "best: set patience to null, or monitor to top1, loss or macro_f1"
            )
        if list(self.plan) != sorted(set(self.plan)):
            raise ValueError(
                f"extended_from {list(self.extended_from)} and then epochs ({self.epochs}) do not rise: a run can be "
                "extended, not shortened"
            )
        return self


class EvaluationConfig(Group):
    """How to evaluate and export the trained network."""

    # Average the probabilities of each image and its flip; takes twice the time (Krizhevsky 2012, section 4.1), see
    # docs/training.md#averaging-at-test-time.
    flip: bool = False
    # Average over copies of the image moved by this many pixels up and left, and down and right, too; 0: none. With
    # flip, takes six times the time (Jordan 2024, section 3.5).
    shift: Annotated[Integer, Field(ge=0, le=64)] = 0
    # Log the features before the last layer of this many images of a split to VisualDL.
    embeddings: Annotated[Integer, Field(ge=0, le=10_000)] = 1000


class Config(Group):
    """One run: the same config on the same version reproduces it.

    >>> from paddle_resnet import Config
    >>> config = Config.load("configs/quickstart.yaml", ["train.epochs=3", "name=short"])
    >>> config.train.epochs, config.data.source, config.run_folder.as_posix()
    (3, 'digits', 'output/short')
    >>> Config.from_values({"model": {"name": "resnet56"}}).model.name
    'resnet56'
    >>> Config.from_values({"train": {"epoch": 3}})
    Traceback (most recent call last):
    paddle_resnet.errors.UsageError: config: unknown key "train.epoch" (did you mean "train.epochs"?)
    """

    name: RunName = "run"  # Name of the run's folder.
    output: Folder = Path("output")  # Folder of all runs.
    device: Device = "auto"  # auto, cpu, gpu or gpu:NUMBER.
    # Which programs show the training: visualdl, tensorboard, or both, see docs/training.md#tensorboard.
    tracking: Annotated[tuple[Literal["visualdl", "tensorboard"], ...], Field(min_length=1)] = ("visualdl",)
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_groups_together(self) -> Config:
        first, last = self.train.first_size, self.data.image_size
        if first is not None and first > last:
            raise ValueError(f"train.first_size ({first}) must be at most data.image_size ({last})")
        if self.evaluation.shift >= last:
            raise ValueError(f"evaluation.shift ({self.evaluation.shift}) must be less than data.image_size ({last})")
        frozen, epochs = self.train.freeze_epochs, self.train.epochs
        if frozen > epochs:
            raise ValueError(f"train.freeze_epochs ({frozen}) must be at most train.epochs ({epochs})")
        if self.train.stop_mixing and not (self.augment.mixup or self.augment.cutmix):
            raise ValueError("train.stop_mixing ends augment.mixup and augment.cutmix, but neither is set")
        return self

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
        return yaml_text(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write the resolved config; `Config.load` of it gives an equal config."""
        write_text(path, self.to_yaml())
