"""The exported network on VisualDL's page of graphs, as its own reader finds it."""

from __future__ import annotations

import pytest
from tiny_run import make_run
from visualdl.reader.graph_reader import GraphReader

from paddle_resnet.exporting.program import save_program, write_graph

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("graph"))
    write_graph(run)
    return run


def test_the_graph_nests_convolutions_in_blocks(run):
    """resnet8: a stem, three stages of one block with two convolutions, the two widening shortcuts folded into one."""
    reader = GraphReader(str(run.path))
    (folder,) = reader.runs()
    assert folder == str(run.vdl_path / "graph" / "tiny")
    nodes = {node["name"]: node for node in reader.get_all_nodes(folder)["nodes"]}
    convolutions = [name for name, node in nodes.items() if node["type"] in ("conv2d", "depthwise_conv2d")]
    assert len(convolutions) == 1 + 3 * 2 + 2
    assert sum("[layer2]" in name for name in convolutions) == 3


def test_later_exports_keep_their_format(run, tmp_path):
    """The format that was made for VisualDL is not the one that is exported."""
    import paddle

    program, _ = save_program(run, "best", tmp_path / "model")
    assert program.suffix == (".json" if paddle.__version__.startswith("3") else ".pdmodel")
