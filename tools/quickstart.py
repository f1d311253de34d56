#!/usr/bin/env python3
"""`paddle-resnet quickstart` from a checkout; --help shows its options. Makes .venv where packages are missing."""

import sys

from from_checkout import run
from setup_environment import run_in_environment

if __name__ == "__main__":
    run_in_environment(sys.argv)
    run(__file__)
