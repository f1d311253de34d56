"""The content tells a file's format; weights are found wherever they lie; what is no weights file is named.

tests/fixtures/write_torch_fixtures.py wrote the files of PyTorch.
"""

import gzip
import logging
import pickle
import re
import struct
import tracemalloc

import numpy as np
import paddle
import pytest
from network_facts import arrays

from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model, load_weights, read_state_dict
from paddle_resnet.models.weights.naming import fit_names
from paddle_resnet.models.weights.weights_file import parse_source, read_weights_file


@pytest.fixture(scope="module")
def fixtures(project):
    return project / "tests" / "fixtures"


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def assert_same_bits(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["odd_tensors", "checkpoint"])
def test_old_and_zip_files_give_the_same_bits(fixtures, name):
    old, new = (read_weights_file(fixtures / f"{name}{kind}.pth") for kind in ("_old", ""))
    assert (old.format, new.format) == ("old format of torch.save", "zip archive of torch.save")
    assert_same_bits(old.entries, new.entries)


@pytest.mark.parametrize("name", ["odd_tensors.pth", "odd_tensors_old.pth", "resnext50.safetensors"])
@pytest.mark.parametrize(
    "suffix", [".th", ".ckpt", ".bin", ".pkl", ".tar", ".pth.tar", ".safetensors", ".pdparams", ""]
)
def test_suffix_does_not_matter(fixtures, tmp_path, name, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes((fixtures / name).read_bytes())
    assert_same_bits(read_state_dict(path), read_state_dict(fixtures / name))


def test_storages_are_little_endian_whatever_the_system(fixtures, tmp_path):
    """PyTorch swaps the bytes when it writes, and `torch.load` reads this file so."""
    content = (fixtures / "odd_tensors_old.pth").read_bytes()
    marked = content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89", 1)
    assert marked != content
    (tmp_path / "a.pth").write_bytes(marked)
    assert_same_bits(read_state_dict(tmp_path / "a.pth"), read_state_dict(fixtures / "odd_tensors.pth"))


def refusal_of(path, content):
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_weights_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 500
    return message


@pytest.mark.once
@pytest.mark.parametrize(
    "stride", [pytest.param(7, id="every seventh"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_every_truncation_of_an_old_file_is_one_line(fixtures, tmp_path, stride):
    content = (fixtures / "odd_tensors_old.pth").read_bytes()
    for length in range(0, len(content), stride):
        refusal_of(tmp_path / "cut.pth", content[:length])
    assert refusal_of(tmp_path / "cut.pth", content[:-1]).endswith(
        "ends within its numbers; it is cut short: get it again"
    )


# Old files by hand: magic number, protocol, system, object, keys of the storages, storages.

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def view_of(key, length, view=None, *, shape=(2,), kind=b"FloatStorage"):
    """The object {"a": tensor} of an old file, its tensor a view of a storage."""
    reference = b"(Vstorage\nctorch\n" + kind + b"\nV" + key.encode() + b"\nVcpu\nI%d\n" % length
    reference += (b"N" if view is None else b"(V%s\nI%d\nI%d\nt" % (view[0].encode(), view[1], view[2])) + b"tQ"
    numbers = b"(" + b"".join(b"I%d\n" % each for each in shape) + b"t"
    return b"}Va\nctorch._utils\n_rebuild_tensor\n(" + reference + b"I0\n" + numbers + b"(I1\nttRs."


def old_file(content, keys=("0",), lengths=(4,), numbers=(1.0, 2.0, 3.0, 4.0)):
    storages = b"".join(struct.pack("<q", length) + np.asarray(numbers, "<f4").tobytes() for length in lengths)
    return MAGIC + content + pickle.dumps(list(keys), 2) + storages


def test_views_of_storages_before_pytorch_0_4_are_read(tmp_path):
    (tmp_path / "a.pth").write_bytes(old_file(view_of("0", 4, ("7", 1, 2))))
    assert read_state_dict(tmp_path / "a.pth")["a"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (old_file(view_of("0", 4), lengths=(3,)), "storage 0 has 3 numbers where its tensors need 4"),
        (old_file(view_of("0", -4), lengths=(-4,)), "ends within its numbers"),
        (old_file(view_of("0", 1 << 60), lengths=(1 << 60,)), "ends within its numbers"),
        (old_file(view_of("0", 4), keys=("1",)), "its list of storages does not fit its tensors"),
        (old_file(view_of("0", 4), keys=([],)), "its list of storages does not fit its tensors"),
        (old_file(view_of("0", 4), keys=()), "has no storage 0 as its tensors need"),
        (old_file(view_of("0", 4, ("7", 3, 2))), "a is not inside its storage"),
        (old_file(view_of("0", 4, ("7", 1 << 62, 2))), "a is not inside its storage"),
        (old_file(view_of("0", 4), keys=("0", "0"), lengths=(4, 5)), "storage 0 has 5 numbers"),
        (old_file(view_of("0", 4, kind=b"Bits8Storage")), "an unknown kind of storage"),
        (MAGIC.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)), "has protocol 1002 of torch.save, expected 1001"),
    ],
)
def test_other_old_files_are_refused(tmp_path, content, complaint):
    assert complaint in refusal_of(tmp_path / "a.pth", content)


def test_a_plain_pickle_with_tensors_is_refused(tmp_path):
    assert "a pickle whose tensors are in no file" in refusal_of(tmp_path / "a.pkl", view_of("0", 4))
    for content in (b"", b"x", MAGIC, old_file(b"N."), old_file(b"cos\nsystem\n."), 3, None):
        written = b"ctorch.storage\n_load_from_bytes\n(" + pickle.dumps(content, 3)[2:-1] + b"tR."
        assert "cannot be read as a pickle" in refusal_of(tmp_path / "a.pkl", written)


def test_memory_of_an_old_file_is_bounded(tmp_path):
    numbers = np.zeros(1 << 20, "float32")
    content = old_file(view_of("0", 1 << 20, shape=(1 << 20,)), lengths=(1 << 20,), numbers=numbers)
    (tmp_path / "a.pth").write_bytes(content)
    tracemalloc.start()
    assert read_state_dict(tmp_path / "a.pth")["a"].shape == (1 << 20,)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * len(content)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; expected a weights file"),
        (b"\n <!DOCTYPE html><title>404</title>", "an HTML or XML page, as of a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a git-lfs pointer, .*'git lfs pull'"),
        (gzip.compress(b"x" * 99, mtime=0), "compressed by gzip; unpack it first"),
        (bytes(4096), "zeros: an unfinished download, or the .pdiparams of an exported network"),
        (b"404: Not Found", "it begins with 404: Not Found; expected a weights file of torch.save, paddle.save or"),
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path, content, what):
    message = refusal_of(tmp_path / "x.pth", content)
    assert re.search(what, message)


@pytest.mark.parametrize("kind", ["", "_old"])
def test_what_programs_save_beside_the_weights_is_dropped(fixtures, kind):
    file = read_weights_file(fixtures / f"checkpoint{kind}.pth")
    assert file.place == "state_dict" and file.others == ("state_dict_ema",)
    assert "args (argparse.Namespace)" in file.left_out and "meter (write_torch_fixtures.Meter)" in file.left_out
    assert len(file.entries) == 17


SHAPES = {
    "conv1.weight": (2, 1, 3, 3),
    "fc.weight": (2, 3),
    "fc.bias": (3,),
    **{f"bn1.{each}": (2,) for each in ("weight", "bias", "_mean", "_variance")},
}


def test_one_network_of_several_is_taken(fixtures):
    """The script added 1 to the second encoder's tensors, and 2 to the averages."""
    named = {}
    for wanted, place in {None: "state_dict", "encoder_k": "state_dict", "ema": "state_dict_ema"}.items():
        file = read_weights_file(fixtures / "checkpoint.pth", wanted)
        assert file.place == place
        found = fit_names(file.entries, file.layout, SHAPES)
        assert found.prefix == f"module.{wanted if wanted == 'encoder_k' else 'encoder_q'}."
        assert set(found.arrays) == set(SHAPES)
        named[wanted] = found
    assert named[None].rivals == ("module.encoder_k.",) and "module.queue" in named[None].left_out
    for name in SHAPES:
        np.testing.assert_array_equal(named["encoder_k"].arrays[name], named[None].arrays[name] + np.float32(1))
        np.testing.assert_array_equal(named["ema"].arrays[name], named[None].arrays[name] + np.float32(2))
    whole_prefix = read_weights_file(fixtures / "checkpoint.pth", "module.encoder_k")  # as the log names it
    assert len(whole_prefix.entries) == 8 and "module.queue" in whole_prefix.left_out
    with pytest.raises(UsageError, match=r"holds no weights called teacher; it holds state_dict, state_dict_ema"):
        read_weights_file(fixtures / "checkpoint.pth", "teacher")


def torch_state(network):
    named = {key: key.replace("_mean", "running_mean").replace("_variance", "running_var") for key in arrays(network)}
    return {named[key]: array.T if key == "fc.weight" else array for key, array in arrays(network).items()}


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("", ()),
        ("", ("a", "b", "c")),
        ("net.", ("checkpoint",)),
        ("model.backbone.", ()),
        ("student.module.0.", ("a", "b", "c")),
    ],
)
def test_prefix_and_place_are_found_by_what_fits(tmp_path, log, prefix, keys):
    trained, network = create_model("resnet20_b"), create_model("resnet20_b")
    content = {prefix + name: array for name, array in torch_state(trained).items()}
    content |= {"criterion.weight": np.ones(3, "float32")} if prefix else {}
    for key in keys:
        content = {"epoch": 3, "best": 0.5, key: content}
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    report = load_weights(network, tmp_path / "a.bin")
    loaded = arrays(network)
    for name, array in arrays(trained).items():
        np.testing.assert_array_equal(loaded[name], array)
    assert not report.missing and not report.unexpected
    lines = "\n".join(log.messages)
    assert ("leaves out criterion.weight" in lines) == bool(prefix)
    taken = [each for each in (".".join(reversed(keys)), prefix.rstrip(".")) if each]
    assert (f"a.bin: takes {' / '.join(taken)}" in lines) == bool(taken)


def test_a_projector_in_the_heads_place_is_left_out(log):
    network = create_model("resnet20_b")
    state = {name: array for name, array in torch_state(network).items() if not name.startswith("fc.")}
    report = load_weights(network, state | {"fc.0.weight": np.ones((64, 64)), "fc.2.bias": np.ones(8)})
    assert report.skipped_head == ("fc.weight", "fc.bias") and report.head == ("fc.0", "fc.2")
    assert "weights: its head is called fc.0, fc.2: a new one for 10 classes takes its place" in log.messages


def test_nested_files_of_paddle_save_are_read(tmp_path):
    network = create_model("resnet8")
    for protocol in (2, 4):
        paddle.save({"epoch": 1, "model": network.state_dict()}, str(tmp_path / "a.ckpt"), protocol=protocol)
        found = read_weights_file(tmp_path / "a.ckpt")
        assert (found.format, found.layout, found.place) == ("pickle", "paddle", "model")
        assert_same_bits(found.entries, arrays(network))


@pytest.mark.parametrize("wrap", [lambda both: both, lambda both: {"all": [both["model"], both["opt"]], "epoch": 3}])
def test_an_optimizer_is_never_taken_for_weights(tmp_path, wrap):
    network = create_model("resnet8")
    adam = paddle.optimizer.Adam(parameters=network.parameters())
    network(paddle.ones([2, 3, 8, 8])).sum().backward()
    adam.step()
    state = adam.state_dict()
    assert len(state) > 2 * len(network.state_dict())  # two moments and two powers a parameter
    paddle.save(wrap({"opt": state, "model": network.state_dict()}), str(tmp_path / "a"))
    found = read_weights_file(tmp_path / "a")
    assert_same_bits(found.entries, arrays(network))
    assert found.others == () and found.left_out[0] in ("opt", "all.1")


def test_options_after_the_name_are_parsed(tmp_path):
    assert parse_source(tmp_path / "a.pth#ema&pad=both") == (tmp_path / "a.pth", "ema", {"pad": "both"})
    assert parse_source("a.pth").options == {} and parse_source("a.pth").take is None
    (tmp_path / "b#ema").write_bytes(b"")
    assert parse_source(tmp_path / "b#ema") == (tmp_path / "b#ema", None, {})
    for wrong in ("pad=left", "pas=both", "", "ema&"):
        with pytest.raises(UsageError, match=r"a\.pth#.*: unknown option .* after '#'; expected .*pad=both\|end"):
            parse_source(tmp_path / f"a.pth#{wrong}")


def test_averages_are_loaded_where_asked(tmp_path, log):
    usual, average, network = (create_model("resnet8") for _ in range(3))
    content = {"model": arrays(usual), "model_ema": arrays(average)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    for source, expected in (("a.pkl", usual), ("a.pkl#ema", average)):
        load_weights(network, tmp_path / source)
        np.testing.assert_array_equal(network.conv1.weight.numpy(), expected.conv1.weight.numpy())
    assert log.messages[1].endswith("a.pkl: holds other weights: model_ema; FILE#NAME takes them")


def test_a_place_of_exactly_that_name_is_taken_first(tmp_path):
    average, usual, network = (create_model("resnet8") for _ in range(3))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema_model": arrays(average), "model": arrays(usual)}))
    load_weights(network, tmp_path / "a.pkl#model")
    np.testing.assert_array_equal(network.conv1.weight.numpy(), usual.conv1.weight.numpy())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda state: state["conv1.weight"].fill(np.nan),
            "conv1.weight has 432 NaN or infinite ones among 432 numbers",
        ),
        (lambda state: state["fc.bias"].__setitem__(1, -np.inf), "fc.bias has 1 NaN or infinite ones among 3"),
        (lambda state: state.update({"bn1.weight": np.ones(16, np.int64)}), "bn1.weight is of type int64"),
    ],
)
def test_numbers_that_no_network_can_compute_with_are_refused(tool, tmp_path, damage, reason):
    network = create_model("resnet8", num_classes=3)
    state = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    damage(state)
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(state))
    with pytest.raises(
        UsageError, match=rf"1 that do not match \({reason}.*; the shapes are right, but not the numbers"
    ):
        load_weights(network, path)
    shown = tool("models", path).stdout
    assert f"numbers:       {'float32, int64' if 'int64' in reason else ''}" in shown
    assert "fits:          resnet8" in shown
    converted = tool("convert_weights", path, tmp_path / "x.safetensors")
    assert converted.exit_code == 0 and "its numbers: " in converted.stdout


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([None, 1]), "objects"),
        (np.array(["a", "b"]), "text"),
        (np.zeros(2, np.complex64), "complex numbers"),
        (np.zeros(2, "M8[s]"), "dates"),
    ],
)
def test_arrays_of_other_types_are_called_so(tmp_path, array, kind):
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(UsageError, match=f"'a' holds a numpy array of {kind}, and nothing else in the file is one"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({"a": array, "b.weight": np.ones(2), "c.weight": np.ones(2)}))
    assert read_weights_file(path).left_out == (f"a (numpy array of {kind})",)


def test_a_file_longer_than_any_weights_is_not_read(tmp_path):
    path = tmp_path / "x.pth"
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"x\.pth: has more than 4,294,967,296 bytes; save the network's state dict"):
        read_weights_file(path)
