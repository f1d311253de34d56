"""PyTorch's files without PyTorch: the same logits as PyTorch gave, and nothing in a file can harm.

tests/fixtures/write_torch_fixtures.py wrote the files and logits.
"""

import pickle
import struct
import tarfile
import zipfile

import numpy as np
import paddle
import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.models import ResNet, convert_weights, create_model, load_weights, read_state_dict
from paddle_resnet.models.blocks import BasicBlock, BlockOptions, Bottleneck, average_pool_shortcut, projection_shortcut


def narrow(block, depths, **options):
    return ResNet(block, depths, widths=(2, 4, 8, 16), num_classes=10, in_channels=3, **options)


NETWORKS = {
    # float32, as torch.save(model.state_dict()) leaves it
    "resnet18.pth": lambda: narrow(BasicBlock, (2, 2, 2, 2), stem="imagenet", shortcut=projection_shortcut),
    # float16, windows on one storage, a DataParallel checkpoint with its options
    "resnet50.pth.tar": lambda: narrow(Bottleneck, (3, 4, 6, 3), stem="imagenet"),
    # bfloat16
    "resnext50.safetensors": lambda: narrow(
        Bottleneck, (3, 4, 6, 3), stem="imagenet", block_options=BlockOptions(groups=4, group_width=32)
    ),
    # bfloat16, timm's names of the deep stem and of the average-pooling shortcut
    "resnet18_d.pt": lambda: narrow(BasicBlock, (2, 2, 2, 2), stem="deep", shortcut=average_pool_shortcut),
}


@pytest.fixture(scope="module")
def fixtures(project):
    return project / "tests" / "fixtures"


def logits(network, fixtures):
    images = np.load(fixtures / "logits.npz")["pixels"].astype("float32") / 64 - 2
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_pytorchs(fixtures, tmp_path, name):
    expected = np.load(fixtures / "logits.npz")[name.split(".")[0]]
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # the images matter
    network = NETWORKS[name]()
    report = load_weights(network, fixtures / name)
    assert set(report.loaded) == set(network.state_dict())
    np.testing.assert_allclose(logits(network, fixtures), expected, rtol=0, atol=1e-4)

    # The way over both formats, under both names, changes no bit.
    convert_weights(fixtures / name, tmp_path / "there.pdparams")
    convert_weights(tmp_path / "there.pdparams", tmp_path / "back.safetensors", "torch")
    original, back = read_state_dict(fixtures / name), read_state_dict(tmp_path / "back.safetensors")
    assert back.keys() == original.keys()
    for key in original:
        np.testing.assert_array_equal(back[key], original[key])


@pytest.mark.parametrize("name", ["odd_tensors.pth", "odd_tensors_old.pth", "odd_tensors.pkl"])
def test_every_type_and_layout_in_memory_is_read(fixtures, name):
    expected = np.load(fixtures / "odd_tensors.npz")
    found = read_state_dict(fixtures / name)
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == expected[name].dtype


@pytest.mark.parametrize("name", ["whole_module.pth", "whole_module_old.pth"])
def test_pickled_module_is_refused_with_advice(fixtures, name):
    with pytest.raises(UsageError, match=rf"{name}: a whole pickled module .*linear\.Linear.*save its state_dict"):
        read_state_dict(fixtures / name)


def test_another_architecture_and_another_number_of_classes(fixtures):
    with pytest.raises(UsageError, match=r"resnet18\.pth: does not fit the network: .*another architecture"):
        load_weights(NETWORKS["resnet50.pth.tar"](), fixtures / "resnet18.pth")
    six = NETWORKS["resnet18.pth"]()
    six.reset_classifier(6)
    fresh = six.fc.weight.numpy()
    report = load_weights(six, fixtures / "resnet18.pth")
    assert report.summary().endswith("100 of 102 tensors loaded; new head for 6 classes (fc.weight, fc.bias)")
    np.testing.assert_array_equal(six.fc.weight.numpy(), fresh)
    with pytest.raises(UsageError, match=r"fc\.weight is \[16, 10\], expected \[16, 6\]"):
        load_weights(six, fixtures / "resnet18.pth", new_head=False)


def test_square_linear_weight_is_transposed_by_origin(tmp_path):
    weight = np.arange(9, dtype="float32").reshape(3, 3)
    write_archive(tmp_path / "a.pth", pickle_of(name="fc.weight", length=9, shape=(3, 3), strides=(3, 1)), weight)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.pth")["fc.weight"], weight.T)


def test_checkpoint_with_other_tensors_is_read(tmp_path):
    """PyTorch's own ImageNet example keeps the best accuracy so."""
    tensor = pickle_of()[1:-2].split(b"\n", 1)[1]  # what stands between the name and the end
    content = b"}(Vepoch\nI90\nVbest_acc1\n" + tensor + b"Vstate_dict\n}Va\n" + tensor + b"su."
    write_archive(tmp_path / "model_best.pth.tar", content)
    assert read_state_dict(tmp_path / "model_best.pth.tar")["a"].tolist() == [1.0, 2.0, 3.0]


# Files made by hand: one tensor "a" of three float32 numbers, unless told otherwise.


def pickle_of(*, name="a", storage=b"ctorch\nFloatStorage\n", key="0", length=3, offset=0, shape=(3,), strides=(1,)):
    """The pickle that torch.save writes for one tensor, in protocol 0's spelling."""

    def text(value):
        return f"V{value}\n".encode()

    def numbers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    persistent_id = b"(" + text("storage") + storage + text(key) + text("cpu") + b"I%d\ntQ" % length
    tensor = b"(" + persistent_id + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"I00\nNt"
    return b"}" + text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + tensor + b"Rs."


def write_archive(path, content, numbers=(1.0, 2.0, 3.0), *, order="little"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", order)
        archive.writestr("a/data/0", np.asarray(numbers, "<f4" if order == "little" else ">f4").tobytes())


@pytest.mark.parametrize("order", ["little", "big"])
def test_both_byte_orders_are_read(tmp_path, order):
    write_archive(tmp_path / "a.pth", pickle_of(), order=order)
    assert read_state_dict(tmp_path / "a.pth")["a"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"cposix\nsystem\n(Vtouch ran\ntR.", r"other object \(posix\.system\)"),
        (b"cbuiltins\neval\n(V1\ntR.", r"other object \(builtins\.eval\)"),
        (pickle_of(storage=b"ctorch\nBits8Storage\n"), "an unknown kind of storage"),
        (pickle_of(storage=b"Vobject\n"), "cannot be read as a pickle"),
        (b"(Vstorage\nVx\ntQ.", "cannot be read as a pickle"),
        (pickle_of(length=2), "record data/0 has 12 bytes where its tensor needs 8"),
        (pickle_of(length=1 << 60), r"its tensors need 4,611,686,018,427,387,904 bytes, but the file has"),
        (pickle_of(length=-3), "record data/0 has 12 bytes where its tensor needs -12"),
        (pickle_of(key="1"), "has no record data/1"),
        (pickle_of(key="../data.pkl"), "has no record"),
        (pickle_of(offset=1), "a is not inside its storage"),
        (pickle_of(offset=-1), "a is not inside its storage"),
        (pickle_of(shape=(-3,)), "a is not inside its storage"),
        (pickle_of(strides=(2,)), "a is not inside its storage"),
        (pickle_of(strides=(1, 1)), "a is not inside its storage"),
        (pickle_of(shape=(1 << 40,), strides=(0,)), r"its tensors need 4,398,046,511,104 bytes, but the file has"),
        (pickle_of().replace(b"(I3\nt", b"(Vx\nt"), "shape is not of numbers"),
        (pickle.dumps([1]), "expected a state dict .* found a list"),
        (pickle.dumps({}), "expected a state dict .* found an empty dict"),
        (pickle.dumps({"epoch": 3}), "'epoch' holds a int"),
        (b"", "cannot be read as a pickle"),
    ],
)
def test_other_pickle_content_is_one_line(tmp_path, monkeypatch, content, complaint):
    monkeypatch.chdir(tmp_path)
    write_archive("bad.pth", content)
    with pytest.raises(UsageError, match=rf"^bad\.pth: .*{complaint}") as caught:
        read_state_dict("bad.pth")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def remembered(place, kind, content):
    return kind + struct.pack("<I", len(content)) + content + b"q%c" % place


STORAGE = b"".join(
    [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps([None] * 5000, 2),
        b"\x80\x02(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x00tQ.",
        pickle.dumps([], 2),
        bytes(8),
    ]
)
"""What PyTorch writes of an empty storage, with a long list of facts on the system."""


@pytest.mark.parametrize(
    "repeated",
    [
        remembered(0, b"B", STORAGE) + b"](" + b"ctorch.storage\n_load_from_bytes\nh\0\x85R" * 100 + b"e.",
        b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x00tQK\x00))"
        + b"N" * 20_000
        + b"tq\x00]("
        + b"ctorch._tensor\n_rebuild_from_type_v2\n"
        b"(ctorch._utils\n_rebuild_tensor_v2\nNh\0NtR" * 5 + b"e.",
    ],
    ids=["storage", "arguments"],
)
def test_one_long_argument_of_many_calls_is_refused(tmp_path, repeated):
    """Each call would read it again."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + repeated)
    with pytest.raises(UsageError, match=r"a\.pkl: .*it makes much more than the file holds"):
        read_state_dict(tmp_path / "a.pkl")


def test_a_long_key_of_a_storage_is_refused(tmp_path):
    """PyTorch counts storages; comparing long keys that are equal takes long."""
    write_archive(tmp_path / "a.pth", pickle_of(key="0" * 1000))
    with pytest.raises(UsageError, match=r"a\.pth: .*a storage without a short name"):
        read_state_dict(tmp_path / "a.pth")


def test_a_compressed_record_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle_of(length=1 << 20, shape=(1,)))
        archive.writestr("a/data/0", bytes(4 << 20), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    with pytest.raises(UsageError, match=r"bomb\.pth: its tensors need 4,194,304 bytes, but the file has"):
        read_state_dict(tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "small.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle_of(), zipfile.ZIP_DEFLATED)
        archive.writestr("a/padding", bytes(1000))
    with pytest.raises(UsageError, match=r"small\.pth: record data\.pkl is compressed"):
        read_state_dict(tmp_path / "small.pth")


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("photos/cat.jpg", b"\xff\xd8")
    with pytest.raises(UsageError, match=r"photos\.pth: a zip archive, but not of torch\.save: it has no data\.pkl"):
        read_state_dict(tmp_path / "photos.pth")


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_an_empty_file_and_text_are_refused(tmp_path, suffix):
    path = tmp_path / f"wrong.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=rf"wrong\.{suffix}: is empty; expected a weights file of torch"):
        read_state_dict(path)
    path.write_text("<!doctype html><title>404 Not Found</title>")
    with pytest.raises(
        UsageError, match=rf"wrong\.{suffix}: is no weights file but an HTML or XML page, as of a failed download"
    ) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18.pth", "resnext50.safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9, 0.9999])
def test_a_truncated_file_is_refused(fixtures, tmp_path, name, share):
    content = (fixtures / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=r"damaged") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(fixtures, tmp_path):
    content = bytearray((fixtures / "resnet18.pth").read_bytes())
    weight = read_state_dict(fixtures / "resnet18.pth")["layer4.1.conv2.weight"].tobytes()
    content[content.index(weight) + 5] ^= 1
    (tmp_path / "flipped.pth").write_bytes(content)
    with pytest.raises(UsageError, match=r"flipped\.pth: cannot be read as a zip archive .*CRC.*get it again"):
        read_state_dict(tmp_path / "flipped.pth")


def test_a_network_without_a_head_leaves_the_files_out(tmp_path):
    whole = create_model("resnet8")
    headless = create_model("resnet8", include_top=False)
    report = load_weights(headless, {name: tensor.numpy() for name, tensor in whole.state_dict().items()})
    assert report.summary() == "weights: 35 of 35 tensors loaded; its head left out (fc.weight, fc.bias)"


@pytest.mark.parametrize("letter", ["n", "\x1b", "\n"])
def test_zip_archive_with_differing_names_is_refused(tmp_path, letter):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr(f"a/{letter * 3000}", b"")
    path.write_bytes(path.read_bytes().replace(b"a/data.pkl", b"a/" + letter.encode() * 8, 1))
    with pytest.raises(UsageError, match="cannot be read as a zip archive") as caught:
        read_state_dict(path)
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_record_claiming_4_gb_is_refused_unread(tmp_path, monkeypatch):
    """zipfile would ask for as many bytes at once."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 20
    content[place : place + 4] = b"\xfe\xff\xff\xff"
    path.write_bytes(content)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it is read"))
    with pytest.raises(UsageError, match=r"record data\.pkl is compressed"):
        read_state_dict(path)


def test_negative_size_does_not_cancel_a_huge_one(tmp_path):
    """One of 2**34 bfloat16 numbers at a stride of 0 would take 64 GiB once it is widened."""
    kind = {"storage": b"ctorch\nBFloat16Storage\n", "length": 6}
    endless = pickle_of(shape=(1 << 34,), strides=(0,), **kind)[1:-2]
    negative = pickle_of(name="b", shape=(-(1 << 34),), **kind)[1:-2]
    write_archive(tmp_path / "a.pth", b"}(" + endless + negative + b"u.")
    with pytest.raises(UsageError, match=r"its tensors need 68,719,476,736 bytes, but the file has"):
        read_state_dict(tmp_path / "a.pth")
    write_archive(tmp_path / "a.pth", pickle_of(shape=(1 << 62,) * 30, strides=(0,) * 30))
    with pytest.raises(UsageError, match=r"its tensors need [0-9,.]{80} bytes, but the file has"):
        read_state_dict(tmp_path / "a.pth")


def test_list_of_records_is_bounded(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle_of())
        for number in range(34):
            record = zipfile.ZipInfo(f"a/{number}")
            record.extra = b"\xfe\xff\0\0" * 16_000  # zipfile copies the rest for each of its fields
            archive.writestr(record, b"")
    with pytest.raises(UsageError, match=r"a list of records of 2,17.,... bytes, expected at most 2,097,152"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused(tmp_path):
    write_archive(tmp_path / "a.pth", pickle_of())
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("a/data/0", np.zeros(3, "<f4").tobytes())
    with pytest.raises(UsageError, match=r"a\.pth: holds two records of one name"):
        read_state_dict(tmp_path / "a.pth")


def test_tar_archive_is_not_unpacked(tmp_path):
    """tarfile would unpack a header of any length to see whether it is one."""
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UsageError, match="a tar archive: unpack it, or, if PyTorch before"):
        read_state_dict(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UsageError, match="compressed by gzip; unpack it first"):
        read_state_dict(path)
