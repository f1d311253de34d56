"""Weights under other projects' names give the logits of their own networks.

tests/fixtures/write_project_logits.py wrote the logits, with PyTorch and Paddle. The weights are made here from the
tensors' names, as there.
"""

from __future__ import annotations

import functools
import json
import logging
import pickle

import numpy as np
import paddle
import pytest
from network_facts import arrays
from safetensors.numpy import load_file, save_file
from seeded_weights import seeded_images, seeded_tensor

from paddle_resnet.errors import UsageError
from paddle_resnet.models import convert_weights, create_model, load_weights, read_state_dict, write_state_dict
from paddle_resnet.models.weights.naming import to_torch_names
from paddle_resnet.zoo.matching import matching_models

# The network here, its stem, and how the log names the project.
CASES = {
    "torchvision resnet18": ("resnet18", None, None),
    "timm resnet18d": ("resnet18_d", None, None),
    "pytorch_resnet_cifar10 resnet20": ("resnet20", None, None),
    "option A at the end, fc.1": ("resnet20", None, None),
    "pytorch-cifar ResNet18": ("resnet18", "cifar", "pytorch-cifar"),
    "pytorch-cifar PreActResNet18": ("preact_resnet18_pc", None, "pytorch-cifar"),
    "pytorch-cifar PreActResNet50": ("preact_resnet50_pc", None, "pytorch-cifar"),
    "Hugging Face resnet-50": ("resnet50", None, "Hugging Face"),
    "Sequential of torchvision's resnet18 and a head": ("resnet18", None, "nn.Sequential"),
    "pytorch-cifar100 ResNet18": ("resnet18", "cifar", "pytorch-cifar100"),
    "pytorch-cifar100 ResNet50": ("resnet50", "cifar", "pytorch-cifar100"),
    "Detectron2 R-18": ("resnet18", None, "Detectron2"),
    "PaddleClas ResNet18": ("resnet18_vb", None, "PaddleClas"),
    "PaddleClas ResNet18_vd": ("resnet18_vd", None, "PaddleClas"),
    "PaddleClas ResNet50_vd": ("resnet50_vd", None, "PaddleClas"),
    "PaddleClas 2.0 ResNet18": ("resnet18_vb", None, "PaddleClas"),
    "PaddleClas 2.0 ResNet18_vd": ("resnet18_vd", None, "PaddleClas"),
    "PaddleClas ResNet50_vc": ("resnet50", "deep", "PaddleClas"),
    "PaddleNLP ERNIE-Layout's ResNet18": ("resnet18_vb", None, "PaddleClas"),
}
AKAMASTER = "pytorch_resnet_cifar10 resnet20"


@pytest.fixture(scope="module")
def cases(project):
    files = [project / "tests/fixtures" / f"project_logits_{library}.json" for library in ("torch", "paddle")]
    return functools.reduce(lambda both, file: both | json.loads(file.read_text()), files, {})


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def state_of(case):
    return {name: seeded_tensor(name, tuple(shape)) for name, shape in case["shapes"].items()}


def write(path, name, case, prefix=""):
    """Write a case's weights in the format that its project uses."""
    state = {f"{prefix}{tensor}": array for tensor, array in state_of(case).items()}
    path = path / ("theirs.pdparams" if name.startswith("Paddle") else "theirs.safetensors")
    if path.suffix == ".pdparams":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        save_file(state, path)
    return path


def logits_of(network, case):
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(seeded_images(case["size"]))).numpy()


def assert_logits(network, case):
    np.testing.assert_allclose(logits_of(network, case), case["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", CASES)
def test_other_projects_weights_give_their_logits(cases, tmp_path, log, name):
    model, stem, project = CASES[name]
    # Pickles of Paddle take seconds to write and read; test_the_command_says_what_a_file_is reads one.
    is_paddles = name.startswith("Paddle")
    path = tmp_path / "theirs.pdparams" if is_paddles else write(tmp_path, name, cases[name])
    network = create_model(model, 10, stem=stem)
    report = load_weights(network, state_of(cases[name]) if is_paddles else path, label=str(path))
    assert_logits(network, cases[name])
    assert report.skipped_head == () and len(report.loaded) == len(network.state_dict())
    assert [line for line in log.messages if "has the names of" in line] == (
        [f"{path}: has the names of {project}"] if project else []
    )
    is_ambiguous = name in ("PaddleClas 2.0 ResNet18_vd", "PaddleClas ResNet50_vc")
    assert any("may be of ResNet_vd" in line for line in log.messages) == is_ambiguous


@pytest.mark.parametrize(("option", "is_right"), [("", True), ("#pad=both", True), ("#pad=end", False)])
def test_padding_on_both_sides_is_assumed_for_a_linear_head(cases, tmp_path, log, option, is_right):
    case = cases[AKAMASTER]
    path = write(tmp_path, AKAMASTER, case, "module.")
    network = create_model("resnet20", 10, pretrained=f"{path}{option}")
    assert (np.abs(logits_of(network, case) - case["logits"]).max() < 1e-4) == is_right
    warnings = [line for line in log.messages if line.startswith("warning:")]
    assert len(warnings) == (not option)
    assert all("assumed: on both sides" in line and "write theirs.safetensors#pad=end" in line for line in warnings)
    assert f"{path}: its head is called linear: loaded" in log.messages


def test_both_sides_can_be_asked_for_under_any_head(cases, tmp_path):
    state = {name.replace("linear", "fc"): array for name, array in state_of(cases[AKAMASTER]).items()}
    save_file(state, tmp_path / "a.safetensors")
    network = create_model("resnet20", pretrained=tmp_path / "a.safetensors#pad=both")
    assert_logits(network, cases[AKAMASTER])
    with pytest.raises(UsageError, match=r"a\.safetensors#pad=both: this network has no shortcuts that add"):
        create_model("plain20", pretrained=tmp_path / "a.safetensors#pad=both")


@pytest.mark.parametrize("name", ["resnet20_b", "unknown"])
def test_padding_of_other_networks_is_refused_in_a_conversion(tmp_path, name):
    state = {"a.weight": np.ones((2, 2), "float32")} if name == "unknown" else arrays(create_model(name))
    write_state_dict(tmp_path / "a.pdparams", state)
    with pytest.raises(UsageError, match=r"a\.pdparams#pad=both: this network has no shortcuts that add"):
        convert_weights(f"{tmp_path / 'a.pdparams'}#pad=both", tmp_path / "b.pdparams")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdparams"]


def test_conversion_keeps_the_function_of_both_sides(cases, tmp_path, log):
    path = write(tmp_path, AKAMASTER, cases[AKAMASTER])
    for names in ("paddle", "torch"):
        written = tmp_path / f"{names}.safetensors"
        convert_weights(path, written, names)
        assert_logits(create_model("resnet20", pretrained=written), cases[AKAMASTER])
    assert log.messages.count(f"{path}: its head is called linear") == 2
    assert len([line for line in log.messages if "assumed: on both sides" in line]) == 2


@pytest.mark.parametrize("head", ["linear", "fc.1", "classifier", "head.fc", "classifier.1", "out"])
def test_a_head_of_any_name_is_loaded_or_replaced(tmp_path, log, head):
    trained = create_model("resnet20_b")
    state = {name.replace("fc.", f"{head}."): array for name, array in arrays(trained).items()}
    network = create_model("resnet20_b")
    report = load_weights(network, state, label="a.pth")
    assert report.summary() == "a.pth: 107 of 107 tensors loaded"
    np.testing.assert_array_equal(network.fc.weight.numpy(), trained.fc.weight.numpy())
    assert f"a.pth: its head is called {head}: loaded" in log.messages
    report = load_weights(create_model("resnet20_b", 3), state, label="a.pth")
    assert report.skipped_head == ("fc.weight", "fc.bias") and report.head == (head,)
    assert f"a.pth: its head is called {head}: a new one for 3 classes takes its place" in log.messages
    load_weights(create_model("resnet20_b", include_top=False), state, label="a.pth")
    assert f"a.pth: its head is called {head}: left out" in log.messages


@pytest.mark.parametrize(
    ("linear_layers", "called"),
    [(["head.fc"], ("head.fc",)), (["head.0", "head.2"], ()), (["student.head", "teacher.head"], ("student.head",))],
)
def test_only_one_layer_beside_is_the_head(log, linear_layers, called):
    trained = create_model("resnet20_b")
    prefix = "student.backbone." if called == ("student.head",) else "backbone."
    state = {f"{prefix}{name}": array for name, array in arrays(trained).items() if not name.startswith("fc.")}
    for layer in linear_layers:
        state |= {f"{layer}.{name}": trained.state_dict()[f"fc.{name}"].numpy() for name in ("weight", "bias")}
    network = create_model("resnet20_b")
    report = load_weights(network, state)
    assert report.head == called
    assert np.array_equal(network.fc.weight.numpy(), trained.fc.weight.numpy()) == bool(called)


def test_a_smaller_network_is_named_under_its_prefix():
    state = {f"backbone.{name}": array for name, array in arrays(create_model("resnet8")).items()}
    with pytest.raises(UsageError, match="its shapes are those of resnet8"):
        load_weights(create_model("resnet56"), state)


def test_a_misfit_of_the_head_alone_says_so():
    state = {name: array for name, array in arrays(create_model("resnet20")).items() if name != "fc.weight"}
    with pytest.raises(UsageError, match=r"1 missing \(fc\.weight\); all but the head fits; .*strict=False"):
        load_weights(create_model("resnet20"), state)


def test_a_profilers_counters_are_dropped():
    state = to_torch_names(arrays(create_model("resnet20")))
    state |= {"total_ops": np.zeros(1), "layer1.0.conv1.total_params": np.zeros(1)}
    assert load_weights(create_model("resnet20"), state).unexpected == ()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        pytest.param("resnet34", {}, "its shapes are those of resnet34", marks=pytest.mark.slow),
        ("resnet18", {"stem": "cifar"}, r"its shapes are those of resnet18 \(model\.stem: cifar\)"),
        ("resnet18_vb", {}, "its shapes are those of resnet18_vb"),
        ("resnet20", {}, "its shapes are those of resnet20 or plain20"),
        ("wrn_16_4", {}, "its shapes are those of wrn_16_4"),
    ],
)
def test_weights_of_another_network_name_it(model, options, words):
    with paddle.LazyGuard():
        shapes = {name: tensor.shape for name, tensor in create_model(model, 7, **options).state_dict().items()}
    state = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    with pytest.raises(
        UsageError, match=f"probably the weights of another architecture: {words}: set model.name to that$"
    ):
        load_weights(create_model("resnet18"), state)


def test_the_closest_network_is_named_if_none_matches():
    state = arrays(create_model("resnet32"))
    with pytest.raises(UsageError, match=r"another architecture: the closest network is resnet32$"):
        load_weights(create_model("resnet20"), {**state, "attention.weight": np.zeros((2, 2, 1, 1), "float32")})
    with pytest.raises(UsageError, match=r"another architecture: no known network has such shapes$"):
        load_weights(create_model("resnet20"), {"attention.weight": np.zeros((2, 2, 1, 1), "float32")})


@pytest.mark.parametrize("model", ["preact_resnet20", "preact_resnet18_pc", "fast_resnet8", "resnet50_d", "lenet"])
def test_networks_are_recognised_by_their_shapes(model):
    with paddle.LazyGuard():
        network = create_model(model, 3, in_channels=3 if model == "lenet" else 5)
    assert list(matching_models({name: tensor.shape for name, tensor in network.state_dict().items()})) == [model]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PaddleClas ResNet18", "PaddleClas ResNet50_vd"])
def test_paddleclas_names_are_written(cases, tmp_path, name):
    state = state_of(cases[name])
    save_file(state, tmp_path / "theirs.safetensors", {"names": "paddle"})
    write_state_dict(tmp_path / "a.safetensors", read_state_dict(tmp_path / "theirs.safetensors"))
    convert_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "paddleclas")
    assert "layer1.0.conv1.weight" in load_file(tmp_path / "a.safetensors")
    written = load_file(tmp_path / "b.safetensors")
    assert written.keys() == state.keys()
    for tensor, array in state.items():
        np.testing.assert_array_equal(written[tensor], array)


@pytest.mark.parametrize("name", ["preact_resnet20", "resnet8", "plain18", "lenet"])
def test_networks_that_paddleclas_lacks_are_not_written(tmp_path, name):
    write_state_dict(tmp_path / "a.pdparams", arrays(create_model(name)))
    with pytest.raises(UsageError, match=r"b\.pdparams: PaddleClas has no such network: .*resnet18_vb"):
        convert_weights(tmp_path / "a.pdparams", tmp_path / "b.pdparams", "paddleclas")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdparams"]


# The command.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "Hugging Face resnet-50",
            ["Hugging Face's (huggingface/", "fits:          resnet50\n", "called classifier.1"],
        ),
        ("PaddleClas ResNet18_vd", ["PaddleClas's (PaddlePaddle/PaddleClas", "resnet18_vd\n", "10 classes\n"]),
        (AKAMASTER, ["torchvision's", "resnet20, plain20\n", "tensors:       97, with 269,722 trainable parameters"]),
        ("pytorch-cifar ResNet18", ["pytorch-cifar's", "resnet18 (model.stem: cifar)\n", "its head is called linear"]),
    ],
)
def test_the_command_says_what_a_file_is(cases, tool, tmp_path, name, facts):
    path = write(tmp_path, name, cases[name], "module.")
    done = tool("models", path)
    assert done.exit_code == 0
    for fact in [*facts, "under module\n"]:
        assert fact in done.stdout


@pytest.mark.parametrize("options", [["--size", 96], ["--classes", 3], ["--layers"], ["--netron", "--onnx", "x.onnx"]])
def test_the_command_refuses_the_options_of_a_network_for_a_file(tool, tmp_path, options):
    write_state_dict(tmp_path / "a.pdparams", {"a.weight": np.ones((2, 2), "float32")})
    done = tool("models", tmp_path / "a.pdparams", *options)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert f"a.pdparams: {options[0]} is for a network of the table" in done.stderr


def test_the_command_names_a_missing_file(tool, tmp_path):
    done = tool("models", tmp_path / "none.pth")
    assert done.exit_code == 2 and "none.pth: no such file" in done.stderr
