"""CIFAR-10 weights inside the package, and their records.

The folder ``cifar10`` has two files for each network: ``<name>.safetensors``, and ``<name>.json`` with the `ZooRecord`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from paddle_resnet.config.value_types import PerChannel
from paddle_resnet.errors import UsageError
from paddle_resnet.files import sha256_of
from paddle_resnet.zoo.registry import list_models

FOLDER = Path(__file__).with_name("cifar10")


class ZooRecord(BaseModel):
    """The origin and the accuracy of weights, all from the run that trained them; top-1 is a fraction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str  # the network's name in `create_model`
    data: str  # the training images, in words
    classes: tuple[str, ...]  # names of the ten outputs
    mean: PerChannel  # for `Normalize`
    std: PerChannel
    test_top1: float  # on the whole test split, measured once
    test_images: int
    flip: bool  # whether `test_top1` is of probabilities averaged over each image and its flip
    validation_top1: float  # of the epoch whose weights these are, the best one
    seed: int
    epochs: int
    seconds: float  # of training, validations included
    machine: str  # processor and threads
    paddle: str  # version
    sha256: str  # of the weights' file
    recipe: dict[str, Any]  # the whole config without folders, for `Config.from_values`


def weights_path(name: str) -> Path:
    """Return the path of a network's weights in the package, whether they exist or not."""
    return FOLDER / f"{name}.safetensors"


def record_path(name: str) -> Path:
    """Return the path of their record, whether it exists or not."""
    return FOLDER / f"{name}.json"


def zoo_models() -> list[str]:
    """Return the networks that have CIFAR-10 weights in the package."""
    return [name for name in list_models() if record_path(name).is_file()]


def zoo_record(name: str) -> ZooRecord:
    """Return the record of a network's CIFAR-10 weights.

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
        raise _damaged_package_file(path, str(error).splitlines()[0]) from error


def zoo_weights(name: str) -> Path:
    """Return the file of a network's CIFAR-10 weights, after checking its SHA-256.

    Raises:
        UsageError: there are none for this network, or the file is not the measured one.
    """
    expected, path = zoo_record(name).sha256, weights_path(name)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise _damaged_package_file(path, error.strerror or str(error)) from error
    if found != expected:
        raise _damaged_package_file(path, f"SHA-256 is {found}, expected {expected}")
    return path


def _damaged_package_file(path: Path, what: str) -> UsageError:
    return UsageError(f"{path}: damaged ({what}); install paddle_resnet again, or put the project's own file there")
