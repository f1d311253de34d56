"""The commands: ``paddle-resnet NAME``, ``python -m paddle_resnet NAME``, or ``python tools/NAME.py`` in a checkout.

A command is a module: its docstring is its `--help`, `add_arguments` makes its options, and `main` runs it. It imports
paddle when it runs, and not for its `--help`.
"""

from __future__ import annotations

import importlib
import sys

from paddle_resnet.errors import set_command_form

COMMANDS = {  # in the order in which a user needs them
    "quickstart": "train, measure, export and predict on the embedded digits, in a minute",
    "doctor": "examine this machine and this environment",
    "models": "list the networks, or show one of them",
    "lr-find": "find a learning rate to begin with",
    "shard": "write the images of a source to tar archives",
    "preview": "draw the augmented training images",
    "train": "train a network from a config, then test it",
    "eval": "measure a trained run, or its exported model",
    "export": "export a run for Paddle Inference and ONNX Runtime",
    "predict": "classify picture files with an exported model",
    "serve": "serve an exported model over HTTP",
    "convert-weights": "convert weights between Paddle, PyTorch and safetensors",
    "publish": "put a run's weights into the package",
    "lesson": "run a lesson of the tutorial",
    "benchmark": "measure training, loading, inference and the service",
}
ONLY_PRINT = {"doctor", "models", "predict"}
WITH_FILES = {"quickstart", "train", "serve"}  # what they print is in files too


def main(name: str | None = None) -> None:
    """Run the command `name`, or the one that the command line names."""
    from paddle_resnet.cli import program  # first, as it handles signals from its import on

    set_command_form(program.command_form())
    from paddle_resnet.cli import parsing

    if name is None:
        name = program.chosen_command(COMMANDS)
        del sys.argv[1]
    program.NAME = name
    command = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    parser = parsing.command_parser(command.__doc__)
    command.add_arguments(parser)
    program.run(parser, command.main, only_prints=name in ONLY_PRINT, results_in_files=name in WITH_FILES)
