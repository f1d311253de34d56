"""Writing weights: both formats, both ways to name tensors, and never over another file."""

import json
import struct

import numpy as np
import paddle
import pytest
from network_facts import arrays

from paddle_resnet.errors import UsageError
from paddle_resnet.models import convert_weights, create_model, load_weights, read_state_dict, write_state_dict


@pytest.fixture(scope="module")
def state():
    """A resnet8's weights, with statistics unlike a new network's."""
    random = np.random.default_rng(0)
    shapes = {name: array.shape for name, array in arrays(create_model("resnet8")).items()}
    state = {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    return {name: np.square(array) if name.endswith("_variance") else array for name, array in state.items()}


def safetensors_bytes(tensors, metadata=None):
    """A file as the format's description has it: length, JSON header, numbers."""
    header, numbers = {"__metadata__": metadata} if metadata else {}, b""
    for name, (element_type, array) in tensors.items():
        offsets = [len(numbers), len(numbers) + array.nbytes]
        header[name] = {"dtype": element_type, "shape": list(array.shape), "data_offsets": offsets}
        numbers += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def header_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def test_unknown_home_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="home folder"):
        convert_weights("~no-such-user/a.pth", tmp_path / "b.pdparams")


def test_pdparams_are_for_paddle_load(tmp_path, state):
    write_state_dict(tmp_path / "a.pdparams", state)
    network = create_model("resnet8")
    missing, unexpected = network.set_state_dict(paddle.load(str(tmp_path / "a.pdparams")))
    assert not missing and not unexpected
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, state[name])


def test_safetensors_with_torch_names_fit_load_state_dict(tmp_path, state):
    write_state_dict(tmp_path / "a.safetensors", state, "torch")
    header = header_of(tmp_path / "a.safetensors")
    assert header.pop("__metadata__") == {"names": "torch"}
    assert header["fc.weight"]["shape"] == [10, 64]
    assert header["bn1.num_batches_tracked"]["shape"] == [] and header["bn1.num_batches_tracked"]["dtype"] == "I64"
    norms = [name.removesuffix("._mean") for name in state if name.endswith("._mean")]
    ours = {name.replace("._mean", ".running_mean").replace("._variance", ".running_var") for name in state}
    assert set(header) == ours | {f"{norm}.num_batches_tracked" for norm in norms}
    # The numbers of [out, in] lie in that order.
    start, end = header["fc.weight"]["data_offsets"]
    numbers = np.frombuffer((tmp_path / "a.safetensors").read_bytes()[-_payload(header) :][start:end], "<f4")
    np.testing.assert_array_equal(numbers.reshape(10, 64), state["fc.weight"].T)


def _payload(header):
    return max(entry["data_offsets"][1] for entry in header.values())


@pytest.mark.parametrize("names", ["paddle", "torch"])
@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
def test_written_weights_are_read_back(tmp_path, state, suffix, names):
    path = tmp_path / f"a.{suffix}"
    write_state_dict(path, state, names)
    found = read_state_dict(path)
    assert found.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(found[name], state[name])


WEIGHT = np.arange(4, dtype="float32").reshape(2, 2)


@pytest.mark.parametrize(
    ("metadata", "beside", "transposed"),
    [
        ({"names": "paddle"}, "bn.running_mean", False),
        ({"names": "torch"}, "bn._mean", True),
        ({"format": "pt"}, "bn.running_mean", True),
        (None, "bn.running_var", True),
        (None, "bn._mean", False),
        (None, "fc.bias", True),
    ],
)
def test_metadata_or_statistics_tell_safetensors_names(tmp_path, metadata, beside, transposed):
    tensors = {"fc.weight": ("F32", WEIGHT), beside: ("F32", np.ones(2, "float32"))}
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(tensors, metadata))
    found = read_state_dict(tmp_path / "a.safetensors")["fc.weight"]
    np.testing.assert_array_equal(found, WEIGHT.T if transposed else WEIGHT)


def test_arrays_under_pytorchs_names_are_loaded(state):
    theirs = {"module.bn1.num_batches_tracked": np.array(5)}
    for name, array in state.items():
        renamed = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        theirs[f"module.{renamed}"] = array.T if name == "fc.weight" else array
    network = create_model("resnet8")
    load_weights(network, theirs)
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, state[name])


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.0e38, 0.0, np.inf], "float32")
    halves = (values.view("uint32") >> 16).astype("uint16")
    expected = (halves.astype("uint32") << 16).view("float32")
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"a": ("BF16", halves)}))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.safetensors")["a"], expected)
    paddle.save({"a": paddle.to_tensor(values).astype("bfloat16")}, str(tmp_path / "a.pdparams"))
    np.testing.assert_allclose(read_state_dict(tmp_path / "a.pdparams")["a"], values, rtol=2**-8)


def test_a_type_that_weights_do_not_have_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"a": ("F8_E4M3", np.zeros(2, "uint8"))}))
    with pytest.raises(UsageError, match=r"a\.safetensors: a is of type F8_E4M3, expected one of F64, F32"):
        read_state_dict(tmp_path / "a.safetensors")


@pytest.mark.parametrize("element_type", ["uint32", "uint64"])
def test_types_that_paddle_has_not_are_named(tmp_path, element_type):
    state = {"fc.weight": np.ones((2, 2), "float32"), "steps": np.ones(1, element_type)}
    with pytest.raises(UsageError, match=rf"a\.pdparams: steps is of type {element_type}, which Paddle has not"):
        write_state_dict(tmp_path / "a.pdparams", state)
    assert not [*tmp_path.iterdir()]
    write_state_dict(tmp_path / "a.safetensors", state)


@pytest.mark.parametrize("length", [0x3C20, 0x3C])
def test_a_length_of_safetensors_may_begin_as_html(tmp_path, length):
    content = safetensors_bytes({"a": ("F32", np.arange(2, dtype="float32"))})
    head = content[8:-8].ljust(length)
    head = head if len(head) == length else b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(length)
    start = struct.pack("<Q", length)
    assert start.lstrip().startswith(b"<")
    (tmp_path / "a.safetensors").write_bytes(start + head + content[-8:])
    assert read_state_dict(tmp_path / "a.safetensors")["a"].tolist() == [0.0, 1.0]


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(UsageError, match=r"a\.h5: is no weights file but an HDF5 file \(of Keras\); save"):
        read_state_dict(tmp_path / "a.h5")
    with pytest.raises(UsageError, match=r"a\.pth: expected a \.pdparams or \.safetensors file to write"):
        write_state_dict(tmp_path / "a.pth", {})


def test_no_file_is_converted_onto_itself_or_another(tmp_path, state):
    write_state_dict(tmp_path / "a.pdparams", state)
    (tmp_path / "link.pdparams").symlink_to(tmp_path / "a.pdparams")
    (tmp_path / "b.pdparams").write_text("a person's")
    for destination, complaint in {"a": "is the file to convert", "link": "is the file", "b": "exists already"}.items():
        with pytest.raises(UsageError, match=rf"{destination}\.pdparams: {complaint}"):
            convert_weights(tmp_path / "a.pdparams", tmp_path / f"{destination}.pdparams")
    assert (tmp_path / "b.pdparams").read_text() == "a person's"


def test_failed_conversion_leaves_nothing(tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match=r"bad\.pth"):
        convert_weights(tmp_path / "bad.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_weights_that_fit_in_part_are_loaded_where_asked(state):
    network = create_model("resnet8")
    before = arrays(network)
    partial = {name: array for name, array in state.items() if not name.startswith("layer1.")}
    report = load_weights(network, {**partial, "extra": np.zeros(1, "float32")}, strict=False)
    assert report.unexpected == ("extra",)
    assert set(report.missing) == {name for name in state if name.startswith("layer1.")}
    assert "10 missing (layer1.0.conv1.weight, " in report.summary() and "1 unexpected (extra)" in report.summary()
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, before[name] if name in report.missing else state[name])


def test_command_reports_what_it_wrote(tool, tmp_path, state):
    write_state_dict(tmp_path / "a.pdparams", state)
    written = tmp_path / "a.safetensors"
    done = tool("convert_weights", tmp_path / "a.pdparams", written, "--names", "torch")
    assert done.exit_code == 0
    assert done.stdout == f"wrote {written}: 44 tensors under PyTorch's names, {written.stat().st_size:,} bytes\n"
    done = tool("convert_weights", tmp_path / "a.pdparams", written)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "exists already" in done.stderr
