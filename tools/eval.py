#!/usr/bin/env python3
"""`paddle-resnet eval` from a checkout; --help shows its options."""

from from_checkout import run

if __name__ == "__main__":
    run(__file__)
