#!/usr/bin/env python3
"""`paddle-resnet preview` from a checkout; --help shows its options."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from paddle_resnet.cli import main

    main("preview")
