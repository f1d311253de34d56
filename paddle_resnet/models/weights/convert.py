"""From one weights file to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_resnet.errors import UsageError
from paddle_resnet.files import expand_home
from paddle_resnet.models.weights.names import Names
from paddle_resnet.models.weights.reading import read_state_dict
from paddle_resnet.models.weights.writing import require_writable_format, write_state_dict


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        path: the file.
        tensors: how many it holds.
        names: whose names and layout they have.
    """

    path: Path
    tensors: int
    names: Names


def convert_weights(source: str | Path, destination: str | Path, names: Names = "paddle") -> Conversion:
    """Read weights of any format that `read_state_dict` reads, and write them as `write_state_dict` does.

    Raises:
        UsageError: `source` cannot be read, or `destination` exists or has a suffix that is not written.
        RunFailure: `destination` cannot be written.
    """
    source, destination = expand_home(source), expand_home(destination)
    require_writable_format(destination)
    if destination.exists():
        same = source.exists() and source.samefile(destination)
        raise UsageError(f"{destination}: {'is the file to convert' if same else 'exists already'}; give another name")
    return Conversion(destination, write_state_dict(destination, read_state_dict(source), names), names)
