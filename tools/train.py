#!/usr/bin/env python3
"""`paddle-resnet train` from a checkout; --help shows its options."""

from checkout import main

if __name__ == "__main__":
    main("train")
