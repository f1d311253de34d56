"""A run's network saved as a program of the running Paddle."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import paddle
from paddle.static import InputSpec

from paddle_resnet.export.folding import fold
from paddle_resnet.files import require_space, write_text
from paddle_resnet.paddle_compat import paddle_2_programs

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
    with paddle.utils.unique_name.guard("exported_"), output_hidden():
        paddle.jit.save(layer, str(stem), input_spec=[InputSpec([batch, size, size, 3], dtype="uint8", name="images")])
    require_space(stem)
    program = next(stem.with_suffix(suffix) for suffix in PROGRAM_SUFFIXES if stem.with_suffix(suffix).is_file())
    return program, stem.with_suffix(".pdiparams")


def write_graph(run: RunFolder, checkpoint: Which = "best") -> Path:
    """Write the graph of what `export_run` exports to the run's ``vdl/graph/<name>``, in the place of an earlier one.

    VisualDL 2.5.3 knows the programs of Paddle 2 alone, so one of those is made for it, on Paddle 3 too.

    Raises:
        UsageError: the run has no such checkpoint.
        RunFailure: the file cannot be written.
    """
    from visualdl.component.graph import translate_graph

    import paddle_resnet.tracking.records  # noqa: F401 (imports the package where the home folder cannot be written)

    size = run.config.data.image_size
    layer = fold(run.load_network(checkpoint), run.normalize(), size, flip=run.config.evaluation.flip)
    spec = InputSpec([None, size, size, 3], dtype="uint8", name="images")
    with paddle.utils.unique_name.guard("graph_"), output_hidden(), paddle_2_programs():
        graph = translate_graph(layer, [spec], verbose=False)
    # VisualDL names a graph by its folder alone.
    path = run.vdl_path / "graph" / run.config.name / "vdlgraph.log"
    write_text(path, graph)
    return path


STANDARD_STREAMS = (1, 2)


@contextlib.contextmanager
def output_hidden() -> Iterator[None]:
    """Keep what is written to standard output and error, by compiled code too, to itself; show it on failure."""
    sys.stdout.flush()
    sys.stderr.flush()
    terminals = [os.dup(stream) for stream in STANDARD_STREAMS]
    with tempfile.TemporaryFile() as said:
        for stream in STANDARD_STREAMS:
            os.dup2(said.fileno(), stream)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(terminals[-1], said.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, terminal in zip(STANDARD_STREAMS, terminals, strict=True):
                os.dup2(terminal, stream)
                os.close(terminal)
