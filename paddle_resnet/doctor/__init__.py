"""An examination of this machine and its packages: what is installed, how fast it is, what to change.

It works where packages are missing, even Paddle: each is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paddle_resnet.doctor.hardware import examine_hardware, examine_process
from paddle_resnet.doctor.paddle_build import examine_paddle
from paddle_resnet.doctor.section import Section
from paddle_resnet.doctor.software import examine_software
from paddle_resnet.doctor.speed import examine_speed

__all__ = ["Section", "examine"]


def examine(requirements: Path) -> Iterator[Section]:
    """Examine one subject after another, so that findings can be shown before a crash in a library ends the process.

    `requirements` is the folder of the requirements files.
    """
    yield examine_software(requirements)
    yield examine_hardware()
    yield examine_process()
    paddle = examine_paddle()
    yield paddle
    if paddle.usable:
        yield examine_speed()
