"""A run's network as a program of the running Paddle: saved for inference, and as a graph for VisualDL."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet import signals
from paddle_resnet.evaluation.scorer import Views
from paddle_resnet.exporting.folding import fold
from paddle_resnet.files import require_space, writable_home
from paddle_resnet.paddle_compat import paddle_2_programs
from paddle_resnet.paths import path_for_paddle
from paddle_resnet.text_files import write_text
from paddle_resnet.training.run_folder import Run, Which

PROGRAM_SUFFIXES = (".json", ".pdmodel")  # of Paddle 3 and of 2.6
STANDARD_STREAMS = (1, 2)
PADDLES_SCRATCH = ".cache/paddle/to_static_tmp"  # in the home folder: Paddle writes a network's code there to trace it


def save_program(
    run: Run, checkpoint: Which, stem: Path, batch: int | None = None, *, shared_mean: bool = False
) -> tuple[Path, Path]:
    """Fold a checkpoint's network (see `folding.fold`) and save it as `save_layer` does; a `batch` of None is any size.

    Raise a UsageError if the run has no such checkpoint.
    """
    return save_layer(folded_network(run, checkpoint, shared_mean), stem, _pixels(run, batch))


def _pixels(run: Run, batch: int | None = None) -> InputSpec:
    """Return the input of the exported network: raw pixels, uint8 ``[batch, S, S, 3]``."""
    size = run.config.data.image_size
    return InputSpec([batch, size, size, 3], dtype="uint8", name="images")


def save_layer(network: nn.Layer, stem: Path, spec: InputSpec) -> tuple[Path, Path]:
    """Save a network as a program to `stem` with suffixes; return the paths of the program and of its parameters.

    Raise a RunFailure if the disk is full, and a UsageError as `path_for_paddle` does.
    """
    path = path_for_paddle(stem)
    # Paddle numbers the tensors of a program through the whole process; here the numbers begin at 0 again.
    with tracing(), paddle.utils.unique_name.guard("exported_"), output_hidden():
        paddle.jit.save(network, path, input_spec=[spec])
    require_space(stem)
    program = next(stem.with_suffix(suffix) for suffix in PROGRAM_SUFFIXES if stem.with_suffix(suffix).is_file())
    return program, stem.with_suffix(".pdiparams")


def write_graph(run: Run, checkpoint: Which = "best") -> Path:
    """Write the graph of the exported network to the run's ``vdl/graph/<name>``, in place of an earlier one.

    VisualDL 2.5.3 reads only the programs of Paddle 2, so this writes one of those on Paddle 3 too. Raise a UsageError
    if the run has no such checkpoint, and a RunFailure if the file cannot be written.
    """
    from visualdl.component.graph import translate_graph

    import paddle_resnet.tracking.records  # noqa: F401 (imports visualdl where the home folder cannot be written)

    network = folded_network(run, checkpoint)
    with tracing(), paddle.utils.unique_name.guard("graph_"), output_hidden(), paddle_2_programs():
        graph = translate_graph(network, [_pixels(run)], verbose=False)
    path = run.vdl_path / "graph" / run.config.name / "vdlgraph.log"  # VisualDL names a graph by its folder
    write_text(path, graph)
    return path


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Let Paddle make a program of a network in the block: with a folder for its scratch files, and without signals.

    An exception in the middle of it would leave its compiled code undefined, up to a segmentation fault.
    """
    with signals.uninterrupted(), writable_home(PADDLES_SCRATCH):
        yield


@contextlib.contextmanager
def output_hidden() -> Iterator[None]:
    """Hide what Python and compiled code write to standard output and error in the block; show it on failure."""
    originals = [os.dup(stream) for stream in STANDARD_STREAMS]
    with tempfile.TemporaryFile() as captured:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in STANDARD_STREAMS:
            os.dup2(captured.fileno(), stream)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(originals[-1], captured.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, original in zip(STANDARD_STREAMS, originals, strict=True):
                os.dup2(original, stream)
                os.close(original)


def folded_network(run: Run, checkpoint: Which, shared_mean: bool = False) -> nn.Layer:
    """Return a checkpoint's network from raw pixels, uint8 ``[N, S, S, 3]``, to probabilities, see `folding.fold`."""
    network = run.load_network(checkpoint)
    views = Views.of_config(run.config.evaluation)
    return fold(network, run.normalize(), run.config.data.image_size, views, shared_mean=shared_mean)
