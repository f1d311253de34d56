#!/usr/bin/env python3
"""`paddle-resnet quickstart` from a checkout; --help shows its options. Makes .venv where packages are missing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from setup_environment import run_in_environment

    run_in_environment(sys.argv)

    from paddle_resnet.cli import main

    main("quickstart")
