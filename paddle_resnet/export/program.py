"""A run's network saved as a program of the running Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import paddle
from paddle.static import InputSpec

from paddle_resnet.export.folding import fold
from paddle_resnet.export.native_output import quiet
from paddle_resnet.files import require_space

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder, Which

PROGRAM_SUFFIXES = (".json", ".pdmodel")
"""Of 3.x and of 2.6."""


def save_program(
    run: RunFolder, checkpoint: Which, stem: Path, batch: int | None = None, *, one_level: bool = False
) -> tuple[Path, Path]:
    """Fold a checkpoint's network and save it; return the paths of the program and of its parameters.

    Args:
        run: the run's folder.
        checkpoint: "best" or "last".
        stem: the path without a suffix.
        batch: images at once; None: any number.
        one_level: see `folding.fold`.

    Raises:
        UsageError: the run has no such checkpoint.
        RunFailure: the disk is full.
    """
    size = run.config.data.image_size
    network = run.load_network(checkpoint)
    layer = fold(network, run.normalize(), size, flip=run.config.evaluation.flip, one_level=one_level)
    # Paddle numbers the tensors of a program through the whole process: here they begin at 0 again.
    with paddle.utils.unique_name.guard("exported_"), quiet():
        paddle.jit.save(layer, str(stem), input_spec=[InputSpec([batch, size, size, 3], dtype="uint8", name="images")])
    require_space(stem)
    program = next(stem.with_suffix(suffix) for suffix in PROGRAM_SUFFIXES if stem.with_suffix(suffix).is_file())
    return program, stem.with_suffix(".pdiparams")
