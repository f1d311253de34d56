"""Weights are copied into a network, official ones too, and what does not fit is refused."""

import hashlib
import logging

import numpy as np
import paddle
import pytest
from network_facts import arrays, assert_same
from paddle.vision import models as vision
from paddle.vision.models.resnet import model_urls

from paddle_resnet import download
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model, load_weights, write_state_dict
from paddle_resnet.models.blocks import ZeroPadShortcut
from paddle_resnet.zoo import imagenet_weights as official_files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_paddle_vision_weights_give_the_same_logits(tmp_path, name):
    theirs = getattr(vision, name)(num_classes=10)
    theirs.eval()
    random = np.random.default_rng(0)
    for key, tensor in theirs.state_dict().items():  # running statistics other than a new network's
        if key.endswith("._mean"):
            tensor.set_value(random.normal(0, 0.1, tensor.shape).astype("float32"))
        elif key.endswith("._variance"):
            tensor.set_value(random.uniform(0.8, 1.2, tensor.shape).astype("float32"))
    path = tmp_path / f"{name}.pdparams"
    paddle.save(theirs.state_dict(), str(path))
    ours = create_model(name, 10, pretrained=path)
    ours.eval()
    images = paddle.to_tensor(random.normal(size=(2, 3, 64, 64)).astype("float32"))
    with paddle.no_grad():
        got, expected = ours(images).numpy(), theirs(images).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_all_weights_are_copied_running_statistics_included(network):
    state = {key: array + 0.5 for key, array in arrays(network).items()}
    report = load_weights(network, state, label="a.pdparams")
    assert_same(arrays(network), state)
    assert report.loaded == tuple(state)
    assert "bn1._variance" in report.loaded
    assert report.summary() == f"a.pdparams: {len(state)} of {len(state)} tensors loaded"


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_other_floating_point_types_are_converted(network, precision):
    state = {key: array.astype(precision) for key, array in arrays(network).items()}
    load_weights(network, state)
    assert_same(arrays(network), {key: array.astype("float32") for key, array in state.items()})


def test_another_number_of_classes_gets_a_new_head(tmp_path, network):
    path = tmp_path / "resnet8.pdparams"
    paddle.save(network.state_dict(), str(path))
    tuned = create_model("resnet8", 3)
    fresh_head = tuned.fc.weight.numpy()
    report = load_weights(tuned, path)
    assert report.skipped_head == ("fc.weight", "fc.bias")
    total = len(network.state_dict())
    assert report.summary() == (
        f"{path}: {total - 2} of {total} tensors loaded; new head for 3 classes (fc.weight, fc.bias)"
    )
    np.testing.assert_array_equal(tuned.fc.weight.numpy(), fresh_head)
    np.testing.assert_array_equal(tuned.layer3[0].conv2.weight.numpy(), network.layer3[0].conv2.weight.numpy())


def test_a_new_head_can_be_ruled_out(network):
    three = create_model("resnet8", 3)
    with pytest.raises(UsageError, match=r"fc\.weight is \[64, 10\], expected \[64, 3\]"):
        load_weights(three, arrays(network), new_head=False)
    headless = {key: array for key, array in arrays(network).items() if not key.startswith("fc.")}
    with pytest.raises(UsageError, match=r"2 missing \(fc\.weight, fc\.bias\)"):
        load_weights(network, headless, new_head=False)


def test_weights_without_a_head_get_a_new_head(network):
    state = {key: array for key, array in arrays(network).items() if not key.startswith("fc.")}
    assert load_weights(network, state).skipped_head == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("classes", [3, 10])
def test_a_head_without_a_bias_is_replaced_by_a_new_one(network, classes):
    """Such as ArcFace's."""
    state = {key: array + 1 for key, array in arrays(network).items() if key != "fc.bias"}
    tuned = create_model("resnet8", classes)
    fresh_head = tuned.fc.weight.numpy()
    report = load_weights(tuned, state)
    assert report.skipped_head == ("fc.weight", "fc.bias")
    assert f"new head for {classes} classes (fc.weight, fc.bias)" in report.summary()
    np.testing.assert_array_equal(tuned.fc.weight.numpy(), fresh_head)
    np.testing.assert_array_equal(tuned.conv1.weight.numpy(), state["conv1.weight"])


def changed(state, **changes):
    """A copy with some entries replaced (dots written as two underscores), or taken out where None."""
    edited = dict(state)
    for name, value in changes.items():
        key = name.replace("__", ".")
        edited.pop(key, None)
        if value is not None:
            edited[key] = value
    return edited


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"bn1___mean": None}, r"1 missing \(bn1\._mean\)"),
        (
            {"extra": np.zeros(1)},
            r"1 unexpected \(extra\); all other tensors are those of the network: save them alone",
        ),
        (
            {"layer2__0__bn1__bias": None},
            r"1 missing \(.*\); probably weights of this network, but incomplete or changed",
        ),
        ({"conv2d_0.w_0": np.zeros(1), "bn1__bias": None}, "its names are Paddle's numbers of parameters"),
        ({"bn1___variance": -np.ones(16)}, r"bn1\._variance has 16 negative ones among 16 numbers"),
        ({"bn1__bias": np.full(16, 1e300)}, r"bn1\.bias has 16 NaN or infinite ones"),  # in float32
        (
            {"conv1__weight": np.zeros((16, 1, 3, 3))},
            r"conv1\.weight is \[16, 1, 3, 3\], expected \[16, 3, 3, 3\].*input channels",
        ),
        ({"bn1__bias": np.zeros(16, "int64")}, "bn1.bias is of type int64"),
        (
            {"fc__weight": np.zeros((512, 10)), "fc__bias": np.zeros(10)},
            r"fc\.weight is \[512, 10\], expected \[64, 10\]",
        ),
        ({"fc__weight": None}, r"1 missing \(fc\.weight\)"),
        ({"fc__weight": np.zeros((512, 10)), "fc__bias": None}, r"1 missing \(fc\.bias\)"),
    ],
)
def test_misfit_is_refused_and_nothing_copied(network, changes, complaint):
    before = arrays(network)
    state = changed({key: array + 1 for key, array in before.items()}, **changes)
    with pytest.raises(UsageError, match=rf"b\.pdparams: does not fit the network: .*{complaint}"):
        load_weights(network, state, label="b.pdparams")
    assert_same(arrays(network), before)


@pytest.mark.parametrize(
    "convert",
    [
        lambda tensor: tensor,
        lambda tensor: tensor.numpy().tolist(),
        lambda tensor: np.asfortranarray(tensor.numpy()),
        lambda tensor: tensor.numpy().astype(">f8"),
        lambda tensor: np.ma.masked_array(tensor.numpy()),
    ],
    ids=["tensor", "list", "order", "bytes", "masked"],
)
def test_tensors_and_arrays_of_every_kind_are_loaded(network, convert):
    expected = create_model("resnet8")
    load_weights(network, {name: convert(tensor) for name, tensor in expected.state_dict().items()})
    assert_same(arrays(network), arrays(expected))


def test_the_table_of_names_that_paddle_adds_is_passed_over(network, tmp_path):
    expected = create_model("resnet8")
    paddle.save(expected.state_dict(), str(tmp_path / "w.pdparams"))
    loaded = paddle.load(str(tmp_path / "w.pdparams"), keep_name_table=True)
    assert "StructuredToParameterName@@" in loaded
    load_weights(network, loaded)
    assert_same(arrays(network), arrays(expected))


def test_paddles_bfloat16_tensors_are_loaded(network):
    halves = {name: tensor.astype("bfloat16") for name, tensor in create_model("resnet8").state_dict().items()}
    load_weights(network, halves)
    assert_same(arrays(network), {name: tensor.astype("float32").numpy() for name, tensor in halves.items()})


class GpuTensor:
    def __array__(self, *_arguments, **_options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({3: np.zeros(3)}, "weights: expected arrays by name, .* found the name 3"),
        (
            {"fc.bias": GpuTensor()},
            r"weights: fc\.bias is no array \(can't convert cuda:0 .*\); give arrays of float32",
        ),
        (True, "expected a weights file, imagenet, cifar10 or arrays by name, got True"),
        (b"a.pdparams", "expected a weights file, .*, got a.pdparams"),
    ],
)
def test_sources_of_other_types_are_refused(source, complaint):
    with pytest.raises(UsageError, match=complaint):
        create_model("resnet8", pretrained=source)


def test_networks_of_other_packages_are_refused(network):
    with pytest.raises(UsageError, match="expected a network of create_model, got Linear"):
        load_weights(paddle.nn.Linear(2, 2), arrays(network))


def test_the_weights_of_another_architecture_are_refused(network):
    with pytest.raises(UsageError) as caught:
        load_weights(network, arrays(create_model("resnet14")), label="resnet14.pdparams")
    message = str(caught.value)
    assert "unexpected (layer1.1.conv1.weight, layer1.1.bn1.weight, layer1.1.bn1.bias, ...)" in message
    assert message.endswith(
        "probably the weights of another architecture: its shapes are those of resnet14: set model.name to that"
    )


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Stand in for an official file: resnet8's weights, in a home of the test's own."""
    path = tmp_path / "server" / "resnet8.pdparams"
    path.parent.mkdir()
    paddle.save(create_model("resnet8", 1000).state_dict(), str(path))
    content = path.read_bytes()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    md5 = hashlib.md5(content).hexdigest()
    file = official_files.OfficialWeights("https://example.invalid/models/resnet8.pdparams", md5)
    monkeypatch.setitem(official_files.SOURCES["imagenet"], "resnet8", file)
    return content, md5, tmp_path / "home/.cache/paddle/hapi/weights/resnet8.pdparams"


def test_official_weights_are_fetched_once_into_paddles_cache(official, monkeypatch):
    content, md5, cached = official
    calls = []

    def fetch(url, destination, md5, report, sha256):
        calls.append((url, destination, md5))
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(content)

    monkeypatch.setattr(download, "fetch", fetch)
    network = create_model("resnet8", 4)
    for _ in range(2):
        report = load_weights(network, "imagenet")
        assert report.skipped_head == ("fc.weight", "fc.bias")
    assert calls == [("https://example.invalid/models/resnet8.pdparams", cached, md5)]


def test_a_damaged_file_in_the_cache_is_refused(official):
    content, md5, cached = official
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content[:-1])
    with pytest.raises(UsageError, match=rf"weights/resnet8\.pdparams: MD5 is [0-9a-f]{{32}}, .*{md5}; delete it"):
        load_weights(create_model("resnet8", 4), "imagenet")
    assert cached.exists()


def test_missing_official_weights_list_the_available():
    with pytest.raises(UsageError, match=r"for resnet20; there are some for resnet18, resnet34, resnet50, ") as caught:
        create_model("resnet20", pretrained="imagenet")
    named = set(str(caught.value).partition("some for ")[2].split(", "))
    assert {"resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"} <= named
    assert named <= set(model_urls)
    with pytest.raises(UsageError, match="for resnet20; there are some for resnet18"):
        load_weights(create_model("resnet20"), "imagenet")


def test_the_official_addresses_are_paddles():
    ours = {name: (file.url, file.md5) for name, file in official_files.SOURCES["imagenet"].items()}
    assert ours == model_urls


def test_other_number_of_classes_needs_num_classes(tmp_path):
    """The last layer would be random."""
    path = tmp_path / "three.pdparams"
    paddle.save(create_model("resnet8", num_classes=3).state_dict(), str(path))
    with pytest.raises(UsageError, match=r"new head for 10 classes .*give num_classes"):
        create_model("resnet8", pretrained=str(path))
    assert create_model("resnet8", num_classes=10, pretrained=str(path)).fc.weight.shape == [64, 10]
    assert create_model("resnet8", pretrained=str(path), include_top=False) is not None


def test_a_bfloat16_network_takes_the_weights_rounded(tmp_path):
    source = create_model("resnet8")
    network = create_model("resnet8")
    network.to(dtype="bfloat16")
    load_weights(network, {name: tensor.numpy() for name, tensor in source.state_dict().items()})
    expected = source.conv1.weight.numpy()
    # 2**-8 rounded; Paddle 2.6.2 cuts the other bits off.
    np.testing.assert_allclose(network.conv1.weight.astype("float32").numpy(), expected, rtol=2**-7)


def torch_state(network):
    named = {key.replace("_mean", "running_mean").replace("_variance", "running_var"): key for key in arrays(network)}
    values = arrays(network)
    return {name: values[key].T if key == "fc.weight" else values[key] for name, key in named.items()}


@pytest.mark.parametrize(("name", "warnings"), [("resnet8", 1), ("resnet20_b", 0)])
def test_foreign_weights_for_parameterless_shortcuts_warn_once(tmp_path, caplog, monkeypatch, name, warnings):
    from safetensors.numpy import save_file

    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    state = torch_state(create_model(name))
    path = tmp_path / "theirs.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, path)
    for source in (path, state):
        caplog.clear()
        network = create_model(name)
        load_weights(network, source)
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(lines) == warnings
        assert all("both sides" in line and "check the accuracy" in line for line in lines)
    caplog.clear()
    create_model(name, pretrained=path)
    assert len(caplog.records) == warnings


def test_own_weights_under_shortcuts_without_parameters_need_no_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    network = create_model("resnet8")
    assert any(isinstance(layer, ZeroPadShortcut) for layer in network.sublayers())
    for file, names in (("a.pdparams", "paddle"), ("a.safetensors", "paddle"), ("b.safetensors", "torch")):
        write_state_dict(tmp_path / file, arrays(network), names)
        load_weights(network, tmp_path / file)
    load_weights(network, arrays(network))
    assert not caplog.records


def test_names_in_a_report_are_short_and_printable(network):
    state = arrays(network) | {"\x1b[31m" + "x" * 10_000: np.zeros(1, "float32")}
    with pytest.raises(UsageError, match="1 unexpected") as caught:
        load_weights(network, state)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
