"""Runs a command of the package from this checkout, whether it is installed or not."""

from __future__ import annotations

import sys
from pathlib import Path


def run(script: str) -> None:
    """Run the command that the file `script` is named for."""
    path = Path(script).resolve()
    sys.path.insert(0, str(path.parents[1]))
    from paddle_resnet.cli import main

    main(path.stem.replace("_", "-"))
