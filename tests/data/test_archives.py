"""Official archives: small ones in the authors' layout; complete, damaged, hostile and missing."""

import dataclasses
import gzip
import os
import pickle
import socket
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from tiny_archives import cifar10_contents, cifar_batch, write_archive, write_cifar10

from paddle_resnet.config import DataConfig
from paddle_resnet.data import open_splits
from paddle_resnet.data.datasets.cifar import CIFAR10, CIFAR100, load_cifar
from paddle_resnet.data.datasets.fashion_mnist import load_fashion_mnist, read_idx
from paddle_resnet.download import OfficialFile
from paddle_resnet.errors import UsageError


def cifar100_contents():
    return {
        "train": {**cifar_batch(300, 100, b"fine_labels", 1), b"coarse_labels": [0] * 300},
        "test": cifar_batch(100, 100, b"fine_labels", 2),
        "meta": {b"fine_label_names": [f"fine{k}".encode() for k in range(100)]},
    }


def as_image(row):
    """The layout as CIFAR's page states it: 1024 red, then green, then blue values, row by row."""
    image = np.empty((32, 32, 3), np.uint8)
    for channel in range(3):
        for line in range(32):
            image[line, :, channel] = row[channel * 1024 + line * 32 : channel * 1024 + line * 32 + 32]
    return image


def test_cifar10_images_labels_and_order(tmp_path):
    contents = cifar10_contents()
    write_cifar10(tmp_path, contents)
    found = load_cifar(CIFAR10, tmp_path, verify=False)
    rows = np.concatenate([contents[f"data_batch_{k}"][b"data"] for k in (1, 2, 3, 4, 5)])
    assert found.train_images.shape == (100, 32, 32, 3)
    for index in (0, 19, 20, 99):
        np.testing.assert_array_equal(found.train_images[index], as_image(rows[index]))
    np.testing.assert_array_equal(found.test_images[29], as_image(contents["test_batch"][b"data"][29]))
    assert found.train_labels.tolist() == list(range(10)) * 10
    assert found.test_labels.tolist() == list(range(10)) * 3
    assert found.classes == tuple(f"class{k}" for k in range(10))


def test_cifar10_splits(tmp_path):
    write_cifar10(tmp_path)
    splits = open_splits(DataConfig(source="cifar10", root=tmp_path, verify=False))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [90, 10, 30]
    assert np.bincount(splits.validation.labels).tolist() == [1] * 10
    assert splits.train.batch([0, 1]).shape == (2, 32, 32, 3)
    assert splits.test.names([3]) == ["test 3"]
    assert splits.mean == (0.4914, 0.4822, 0.4465)
    assert splits.resize == 32


def test_cifar100_takes_the_fine_labels(tmp_path):
    write_archive(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", cifar100_contents())
    splits = open_splits(DataConfig(source="cifar100", root=tmp_path, verify=False))
    assert len(splits.classes) == 100
    assert splits.classes[7] == "fine7"
    assert sorted(set(splits.train.labels)) == list(range(100))
    assert len(splits.test) == 100


def test_the_unpacked_folder_its_parent_and_the_archive_itself(tmp_path):
    archive = write_cifar10(tmp_path / "packed")
    with tarfile.open(archive) as file:
        for member in file:
            target = tmp_path / member.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.extractfile(member).read())
    reference = load_cifar(CIFAR10, tmp_path / "packed", verify=False)
    for root in (archive, tmp_path, tmp_path / "cifar-10-batches-py"):
        found = load_cifar(CIFAR10, root, verify=False)
        np.testing.assert_array_equal(found.train_images, reference.train_images)
    with pytest.raises(UsageError, match=r"data_batch_1: MD5"):
        load_cifar(CIFAR10, tmp_path)


def test_an_archive_unpacked_in_part_is_neither_used_nor_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_resnet.download.fetch", lambda *_: pytest.fail("downloaded"))
    archive = write_cifar10(tmp_path / "packed")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"-py: holds no data_batch_1, .* \(and 2 more\) of cifar-10-python\.tar\.gz"):
        load_cifar(CIFAR10, tmp_path)
    for name, content in cifar10_contents().items():
        if name != "data_batch_4":
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    for root in (tmp_path, folder):
        with pytest.raises(UsageError, match=r"cifar-10-batches-py: holds no data_batch_4 of .*; unpack it again, or"):
            load_cifar(CIFAR10, root)
    archive.rename(tmp_path / archive.name)
    assert len(load_cifar(CIFAR10, tmp_path, verify=False).train_images) == 100


def test_a_file_of_the_users_that_is_called_test_is_no_archive_in_part(tmp_path, monkeypatch):
    (tmp_path / "test").write_text("mine")

    def fetch(*_):
        raise UsageError("downloaded")

    monkeypatch.setattr("paddle_resnet.download.fetch", fetch)
    with pytest.raises(UsageError, match="downloaded"):
        load_cifar(CIFAR100, tmp_path)


def test_other_md5_says_how_to_accept_it(tmp_path):
    path = write_cifar10(tmp_path)
    with pytest.raises(UsageError, match=r"-o data\.verify=false") as caught:
        open_splits(DataConfig(source="cifar10", root=tmp_path))
    assert str(path) in str(caught.value)
    assert "c58f30108f718f92721af3b95e74349a" in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_archive_is_one_line(tmp_path, share):
    path = write_cifar10(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UsageError, match=r"cifar-10-python\.tar\.gz") as caught:
        load_cifar(CIFAR10, tmp_path, verify=False)
    assert "\n" not in str(caught.value)


class _RunsOnLoad:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_hostile_archive_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path, {**cifar10_contents(), "data_batch_3": pickle.dumps({b"data": _RunsOnLoad()})})
    with pytest.raises(UsageError, match=r"data_batch_3.*mkdir"):
        load_cifar(CIFAR10, tmp_path, verify=False)
    assert not (tmp_path / "ran").exists()


def without(contents, name):
    return {key: value for key, value in contents.items() if key != name}


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (without(cifar10_contents(), "data_batch_4"), "holds no data_batch_4"),
        (without(cifar10_contents(), "batches.meta"), r"holds no batches\.meta"),
        ({**cifar10_contents(), "test_batch": cifar_batch(0, 10, b"labels", 0)}, "test_batch: holds no images"),
        ({**cifar10_contents(), "test_batch": [1, 2]}, "expected a dictionary"),
        ({**cifar10_contents(), "test_batch": {b"labels": []}}, "expected b'data' as uint8"),
        ({**cifar10_contents(), "test_batch": cifar_batch(20, 11, b"labels", 0)}, r"classes 0\.\.9"),
        ({**cifar10_contents(), "test_batch": cifar_batch(20, 10, b"fine_labels", 0)}, "this is another dataset"),
        (
            {**cifar10_contents(), "test_batch": {b"data": np.zeros((3, 3072), np.uint8), b"labels": [1]}},
            "3 images but 1 labels",
        ),
        ({**cifar10_contents(), "batches.meta": {b"label_names": [b"cat"]}}, "expected 10 class names"),
        ({**cifar10_contents(), "batches.meta": {b"label_names": [b"x" * 101] * 10}}, "expected 10 class names"),
        ({**cifar10_contents(), "batches.meta": {b"label_names": [[b"cat"]] * 10}}, "expected 10 class names"),
    ],
)
def test_other_contents_are_refused(tmp_path, contents, complaint):
    write_cifar10(tmp_path, contents)
    with pytest.raises(UsageError, match=complaint):
        load_cifar(CIFAR10, tmp_path, verify=False)


def test_an_unpacked_member_of_any_length_is_read_within_bounds(tmp_path):
    for name, content in cifar10_contents().items():
        (tmp_path / name).write_bytes(pickle.dumps(content, 2))
    with (tmp_path / "data_batch_2").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="data_batch_2: holds more than 167,772,160 bytes"):
        load_cifar(CIFAR10, tmp_path, verify=False)


def test_nothing_is_downloaded_in_the_place_of_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_resnet.download.fetch", lambda *_: pytest.fail("downloaded"))
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.symlink_to(tmp_path / "unmounted" / "cifar-10-python.tar.gz")
    with pytest.raises(UsageError, match=r"cifar-10-python\.tar\.gz: is no regular file, or a link to none; remove it"):
        load_cifar(CIFAR10, tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for load in (lambda: load_cifar(CIFAR10, loop), lambda: load_fashion_mnist(loop)):
        with pytest.raises(UsageError, match="loop: is no folder; expected the one of "):
            load()


def test_missing_data_without_connection_give_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-10-python.tar.gz"
        edition = dataclasses.replace(CIFAR10, archive=OfficialFile(url, CIFAR10.archive.md5))
        monkeypatch.setattr("paddle_resnet.data.datasets.open_splits.CIFAR10", edition)
        with pytest.raises(UsageError) as in_cache:
            open_splits(DataConfig(source="cifar10"))
        with pytest.raises(UsageError) as in_root:
            open_splits(DataConfig(source="cifar10", root=tmp_path / "mine"))
    assert url in str(in_cache.value)
    assert str(tmp_path / ".cache/paddle/dataset/cifar/cifar-10-python.tar.gz") in str(in_cache.value)
    assert str(tmp_path / "mine/cifar-10-python.tar.gz") in str(in_root.value)


def idx(values):
    head = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes())


@pytest.fixture
def fashion(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for prefix, count in (("train", 40), ("t10k", 20)):
        arrays[f"{prefix}-images-idx3-ubyte.gz"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte.gz"] = (np.arange(count) % 10).astype(np.uint8)
    for name, values in arrays.items():
        (tmp_path / name).write_bytes(idx(values))
    return tmp_path, arrays


def test_fashion_mnist(fashion):
    root, arrays = fashion
    splits = open_splits(DataConfig(source="fashion_mnist", root=root, verify=False, image_size=28))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [36, 4, 20]
    pictures = splits.test.batch(np.arange(20))
    for channel in range(3):
        np.testing.assert_array_equal(pictures[..., channel], arrays["t10k-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(splits.test.labels, arrays["t10k-labels-idx1-ubyte.gz"])
    assert splits.classes[9] == "Ankle boot"


def test_fashion_mnist_agrees_with_paddle_vision(fashion):
    from paddle.vision.datasets import FashionMNIST

    root, _ = fashion
    found = load_fashion_mnist(root, verify=False)
    # paddle.vision reads 100 labels at a time and fails on less: give it whole hundreds.
    images = np.repeat(found.test_images[..., 0], 5, axis=0)
    (root / "images.gz").write_bytes(idx(images))
    (root / "labels.gz").write_bytes(idx(np.repeat(found.test_labels, 5).astype(np.uint8)))
    reference = FashionMNIST(str(root / "images.gz"), str(root / "labels.gz"), mode="test", backend="cv2")
    ours = read_idx(root / "images.gz")
    for index in (0, 57, 99):
        np.testing.assert_array_equal(reference[index][0], ours[index])


def test_fashion_mnist_damage(fashion):
    root, _ = fashion
    path = root / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz: MD5"):
        load_fashion_mnist(root)
    for damaged in (
        content[:1000],
        content[:5],
        b"",
        b"text",
        idx(np.zeros((40, 5, 28), np.uint8)),
        idx(np.zeros((0, 28, 28), np.uint8)),
        gzip.compress(b"xyz", mtime=0),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz: "):
            load_fashion_mnist(root, verify=False)


def test_fashion_mnist_labels_are_checked(fashion):
    root, _ = fashion
    path = root / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(idx(np.full(20, 10, np.uint8)))
    with pytest.raises(UsageError, match=r"label 10, expected 0\.\.9"):
        load_fashion_mnist(root, verify=False)
    path.write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(UsageError, match="expected 20 labels"):
        load_fashion_mnist(root, verify=False)


@pytest.mark.parametrize("rank", [0, 4, 65, 255])
def test_an_idx_file_of_another_rank_is_refused(tmp_path, rank):
    """numpy knows no more than 64 dimensions."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes((0, 0, 8, rank)) + b"\0\0\0\1" * rank + b"x"))
    with pytest.raises(UsageError, match="not an IDX file"):
        read_idx(tmp_path / "a.gz")


def test_idx_file_with_oversized_content_is_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + b"\4\0\0\0" + bytes(1 << 26), 1))
    with pytest.raises(UsageError, match="more than 67,108,864 bytes"):
        read_idx(tmp_path / "a.gz")


def header(size, kind, name=b"x"):
    """A member's header with the size as base 256, which any number fits."""
    info = tarfile.TarInfo(name.decode())
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [
        *(header(size, kind) + b"9" * size for size in (1 << 13, 1 << 20) for kind in (b"x", b"g", b"L", b"K")),
        *(header(size, b"0") for size in (1 << 30, 1 << 62, 1 << 80)),
        b"".join(header(0, b"0", b"m%d" % number) for number in range(200)),
        (header(512, b"x") + b"9" * 512) * 2000,
    ],
    ids=[
        *(f"{kind}-{size}" for size in (8, 1024) for kind in ("pax", "global-pax", "long-name", "long-link")),
        "large",
        "huge",
        "larger-than-a-number",
        "many",
        "row-of-headers",
    ],
)
def test_zip_bomb_is_refused_in_little_memory(tmp_path, content):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1024), 1))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"cifar-10-python\.tar\.gz: truncated or damaged") as caught:
            load_cifar(CIFAR10, tmp_path, verify=False)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 600
