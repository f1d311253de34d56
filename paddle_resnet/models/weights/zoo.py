"""The CIFAR-10 weights inside the package: what this project trained, there without a network.

Of each network the folder holds two files: ``<name>.safetensors``, and ``<name>.json`` with the `ZooRecord`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from paddle_resnet.errors import UsageError
from paddle_resnet.files import sha256_of
from paddle_resnet.models.registry import list_models

FOLDER = Path(__file__).with_name("cifar10")

PerChannel = tuple[float, float, float]


class ZooRecord(BaseModel):
    """Where weights come from and what they are good for; everything is of the run that trained them.

    Attributes:
        model: the network's name, as `create_model` knows it.
        data: which images, in words.
        classes: what the ten outputs mean, in their order.
        mean: of each channel in 0..1, taken from the pixels before the network sees them.
        std: of each channel in 0..1, by which they are divided then.
        test_top1: on the whole test split, measured once; a fraction.
        test_images: how many those are.
        flip: whether `test_top1` is of answers that are the mean over an image and its mirror image.
        validation_top1: of the epoch that these weights are of, which it was chosen by; a fraction.
        seed: of the run.
        epochs: of training.
        seconds: of training, its validations included.
        machine: processor and threads.
        paddle: the version of Paddle.
        sha256: of the weights' file.
        recipe: the whole config, but for folders; `Config.from_values` takes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    data: str
    classes: tuple[str, ...]
    mean: PerChannel
    std: PerChannel
    test_top1: float
    test_images: int
    flip: bool
    validation_top1: float
    seed: int
    epochs: int
    seconds: float
    machine: str
    paddle: str
    sha256: str
    recipe: dict[str, Any]


def weights_path(name: str) -> Path:
    """Where the weights of a network lie, if there are any."""
    return FOLDER / f"{name}.safetensors"


def record_path(name: str) -> Path:
    """Where the record of a network's weights lies, if there are any."""
    return FOLDER / f"{name}.json"


def zoo_models() -> list[str]:
    """The networks that have CIFAR-10 weights in the package."""
    return [name for name in list_models() if record_path(name).is_file()]


def zoo_record(name: str) -> ZooRecord:
    """Return what is known of a network's CIFAR-10 weights.

    Raises:
        UsageError: there are none for this network, or the record is damaged.
    """
    known = zoo_models()
    if name not in known:
        raise UsageError(
            f'no "cifar10" weights for {name or "a network without a name"}; '
            f"there are some for {', '.join(known) or 'no network'}"
        )
    path = record_path(name)
    try:
        return ZooRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error


def zoo_weights(name: str) -> Path:
    """Return the file of a network's CIFAR-10 weights, checked.

    Raises:
        UsageError: there are none for this network, or the file is not the one that was measured.
    """
    expected, path = zoo_record(name).sha256, weights_path(name)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if found != expected:
        raise _damaged(path, f"SHA-256 is {found}, expected {expected}")
    return path


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(f"{path}: damaged ({what}); install paddle_resnet again, or put the project's own file there")
