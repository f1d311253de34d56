"""Multiply-adds, depth and shapes against published numbers, sums by hand and real forward passes."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from tiny_family import DESIGNS

from paddle_resnet.console import console
from paddle_resnet.errors import UsageError
from paddle_resnet.exporting.onnx import onnx_requirements, write_onnx
from paddle_resnet.models import BatchNorm, create_model, list_models, model_entry
from paddle_resnet.models.blocks import Fork
from paddle_resnet.models.summary import summarize
from paddle_resnet.zoo import cifar10_weights, registry
from paddle_resnet.zoo.shapes import costs

PROJECT = Path(__file__).resolve().parents[2]

# Torchvision's table of its weights, column GFLOPS, at 224 x 224: it counts multiply-adds. The depth is in the name.
PUBLISHED_GMACS = {
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnet152": 11.51,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.41,
    "wide_resnet50_2": 11.40,
    "wide_resnet101_2": 22.75,
}


def summary_of(name, size=None):
    entry = model_entry(name)
    size = size or entry.input_size
    with paddle.LazyGuard():
        network = create_model(name)
    return summarize(network, (1, entry.in_channels, size, size))


def first_number(name):
    return int("".join(letter if letter.isdigit() else " " for letter in name).split()[0])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if first_number(name) > 100 else []) for name in PUBLISHED_GMACS],
)
def test_imagenet_members_have_the_published_multiply_adds_and_depth(name):
    summary = summary_of(name)
    assert round(summary.macs / 1e9, 2) == PUBLISHED_GMACS[name]
    assert summary.depth == first_number(name)
    assert summary.output_shape == (1, 1000)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", DESIGNS)
def test_multiply_adds_by_arithmetic_are_those_traced(name):
    summary = summary_of(name)
    assert costs(model_entry(name)) == (summary.parameters, summary.macs, summary.depth)


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet56", 9), ("resnet110", 18)])
def test_cifar_members_have_the_papers_multiply_adds_and_depth(name, n):
    # By hand, section 4.2 with option A: the stem, 2n convolutions a stage whose cost is the same where the width
    # stays, half of it where the width doubles; the head. Often quoted as 41M, 126M and 255M.
    stage = 32 * 32 * 9 * 16 * 16
    expected = 32 * 32 * 9 * 3 * 16 + 6 * n * stage - 2 * stage // 2 + 64 * 10
    summary = summary_of(name)
    assert summary.macs == expected
    assert summary.depth == 6 * n + 2


def test_multiply_adds_equal_those_by_hand():
    network = nn.Sequential(
        nn.Conv2D(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), groups=2),
        nn.BatchNorm2D(8),
        nn.Conv2D(8, 4, 3, dilation=2),
        nn.Flatten(),
        nn.Linear(4 * 1 * 7, 3),
    )
    summary = summarize(network, (2, 6, 9, 11))
    # 9 x 11 becomes 5 x 11, then 1 x 7; two images.
    by_hand = [2 * 5 * 11 * 8 * (6 // 2) * 3 * 5, 0, 2 * 1 * 7 * 4 * 8 * 9, 0, 2 * 28 * 3]
    assert [row.macs for row in summary.layers] == by_hand
    assert summary.macs == sum(by_hand)
    assert summary.depth == 3
    assert summary.parameters == (8 * 3 * 15 + 8) + (8 + 8) + (4 * 8 * 9 + 4) + (28 * 3 + 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet18", 45), ("resnet8", 33), ("resnext50_32x4d", 40), ("lenet", 32)])
def test_shapes_are_those_of_the_real_forward_pass(name, size):
    network = create_model(name)
    network.train()
    expected = []
    hooks = [
        layer.register_forward_post_hook(lambda _, __, output, name=key: expected.append((name, tuple(output.shape))))
        for key, layer in network.named_sublayers()
        if not isinstance(layer, Fork)
    ]
    network(paddle.zeros([2, 3, size, size]))
    for hook in hooks:
        hook.remove()
    assert [(row.name, row.output_shape) for row in summarize(network, (2, 3, size, size)).layers] == expected


def test_summarize_leaves_the_network_unchanged():
    network = create_model("resnet8")
    network.train()
    network.bn1.eval()
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32"))
    state = {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}
    summarize(network, (2, 3, 8, 8))
    assert network.training and network.layer1.training and not network.bn1.training
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[key])
    assert float(network(images).abs().sum().item()) > 0, "its layers compute again"


def test_batch_norm_from_first_principles_counts_as_paddles():
    theirs = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4))
    ours = nn.Sequential(nn.Conv2D(3, 4, 3), BatchNorm(4))
    assert summarize(ours, (1, 3, 8, 8)).parameters == summarize(theirs, (1, 3, 8, 8)).parameters == 4 * 27 + 4 + 8


def test_a_layer_that_cannot_take_the_size_is_named():
    network = nn.Sequential(nn.Conv2D(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert summarize(network, (1, 3, 3, 3)).output_shape == (1, 2)
    with pytest.raises(UsageError, match=r"2 cannot take \[1, 16\]"):
        summarize(network, (1, 3, 4, 4))
    with pytest.raises(UsageError, match=r"0 cannot take \[1, 3, 2, 2\]"):
        summarize(network, (1, 3, 2, 2))
    with pytest.raises(UsageError, match=r"0 cannot take \[1, 1, 3, 3\]"):
        summarize(network, (1, 1, 3, 3))


# The tool.


@pytest.fixture
def models(tool, monkeypatch):
    """Run `paddle-resnet models` on a wide terminal."""
    monkeypatch.setattr(console, "_width", 160)  # chosen at the import, by another test's COLUMNS perhaps
    return partial(tool, "models")


def rows_of(output):
    """The cells of a table's rows by their first cell."""
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def listed(output):
    """The cells of the table of networks, which has no lines, by their first cell."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()[1:] if not line.startswith(" ")]
    return {name: rest for name, *rest in cells}


RECORD = {
    "model": "resnet20", "data": "CIFAR-10", "classes": [], "mean": [0, 0, 0], "std": [1, 1, 1], "recipe": {},
    "test_top1": 0.9123, "test_images": 10_000, "flip": False, "validation_top1": 0.9, "seed": 0, "epochs": 1,
    "seconds": 1, "machine": "", "paddle": "3.3.1", "sha256": "",
}  # fmt: skip


def test_the_table_has_every_name(models, monkeypatch, tmp_path):
    few = {name: registry._ENTRIES[name] for name in ("resnet18", "resnet18_d2l", "resnet20")}
    monkeypatch.setattr(registry, "_ENTRIES", few)
    monkeypatch.setattr(cifar10_weights, "FOLDER", tmp_path)
    cifar10_weights.record_path("resnet20").write_text(json.dumps(RECORD))
    done = models()
    rows = listed(done.stdout)
    assert done.exit_code == 0
    assert list(rows) == list(few)
    assert rows["resnet18"] == ["11,689,512", "1.81", "18", "3x224x224", "imagenet, :torchvision"]
    assert rows["resnet20"] == ["269,722", "0.0406", "20", "3x32x32", "cifar10 91.23%"]
    assert rows["resnet18_d2l"][3] == "1x224x224"


@pytest.mark.parametrize("columns", ["80", pytest.param(None, marks=pytest.mark.slow)])
def test_the_table_needs_no_paddle_and_cuts_nothing(tmp_path, columns):
    """On a narrow terminal, and in a pipe."""
    (tmp_path / "paddle.py").write_text("raise ImportError('paddle is imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)} | ({"COLUMNS": columns} if columns else {})
    command = [sys.executable, PROJECT / "tools" / "models.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(list_models()) <= set(listed(done.stdout))
    assert "…" not in done.stdout and max(map(len, done.stdout.splitlines())) <= int(columns or 200)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 3), ("resnet18_d2l", 1)])
def test_walk_follows_the_papers_table_1(models, name, channels):
    done = models(name, "--classes", "10")
    rows = rows_of(done.stdout)
    assert done.exit_code == 0
    assert rows["image"][1] == f"1x{channels}x224x224"
    stages = {"conv1": (64, 112), "maxpool": (64, 56), "layer1.1": (64, 56), "layer2.1": (128, 28)}
    stages |= {"layer3.1": (256, 14), "layer4.1": (512, 7), "avgpool": (512, 1)}
    for layer, (width, size) in stages.items():
        assert rows[layer][1] == f"1x{width}x{size}x{size}"
    assert rows["fc"][1] == "1x10"
    assert "layer1.0.conv1" not in rows


def test_every_layer_size_and_channels_can_be_asked_for(models):
    done = models("resnet18", "--layers", "--size", "64", "--channels", "1")
    rows = rows_of(done.stdout)
    assert done.exit_code == 0
    assert rows["image"][1] == "1x1x64x64"
    assert "layer2.0.downsample.0" in rows, done.stdout
    assert rows["layer2.0.downsample.0"] == ["Conv2D 1x1, stride 2", "1x128x8x8", "8,192", "0.52"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnt18"], ["resnt18", 'did you mean "resnet18"']),
        (["resnet18", "--size", "0"], ["--size", "from 1 to", "0"]),
        (["resnet18", "--classes", "0"], ["--classes", "from 1 to"]),
        (["resnet18", "--onnx", "x.onnx"], ["--onnx", "--netron"]),
        (["--netron"], ["--netron", "NAME"]),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(models, arguments, words):
    done = models(*arguments)
    (line,) = done.stderr.strip().splitlines()
    assert done.exit_code == 2
    for word in words:
        assert word in line


def test_missing_packages_for_netron_are_one_line(models, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "netron", None)
    done = models("resnet8", "--netron", "--onnx", tmp_path / "x.onnx")
    assert done.exit_code == 2
    assert f"pip install -r {onnx_requirements()}" in done.stderr
    assert (PROJECT / onnx_requirements()).is_file()
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(UsageError, match="needs paddle2onnx: pip install -r requirements/onnx"):
        write_onnx(create_model("resnet8"), tmp_path / "x.onnx", (1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_the_onnx_file_has_the_networks_graph(tmp_path):
    pytest.importorskip("paddle2onnx", reason="requirements/onnx.txt is not installed")
    onnx = pytest.importorskip("onnx", reason="requirements/onnx.txt is not installed")
    network = create_model("resnet8", 5)
    write_onnx(network, tmp_path / "model.onnx", (1, 3, 32, 32))
    graph = onnx.load(tmp_path / "model.onnx").graph
    convolutions = sum(isinstance(layer, nn.Conv2D) for layer in network.sublayers())
    assert sum(node.op_type == "Conv" for node in graph.node) == convolutions == 7
    (image,) = graph.input
    assert [size.dim_value for size in image.type.tensor_type.shape.dim][1:] == [3, 32, 32]
