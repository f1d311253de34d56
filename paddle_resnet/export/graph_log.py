"""The exported network as a graph that VisualDL shows, layer within layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import paddle
from paddle.static import InputSpec

from paddle_resnet.export.folding import fold
from paddle_resnet.export.native_output import quiet
from paddle_resnet.files import write_text
from paddle_resnet.paddle_compat import paddle_2_programs

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder, Which


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
    with paddle.utils.unique_name.guard("graph_"), quiet(), paddle_2_programs():
        graph = translate_graph(layer, [spec], verbose=False)
    # VisualDL names a graph by its folder alone.
    path = run.vdl_path / "graph" / run.config.name / "vdlgraph.log"
    write_text(path, graph)
    return path
