"""The package of this checkout, for the scripts beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_resnet.cli import main  # noqa: F401
