"""Tar archives of images: written from any source, read in WebDataset's layout, resumed and reopened."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from paddle_resnet.config import AugmentConfig, Config, DataConfig
from paddle_resnet.data import Normalize, TrainLoader, open_splits
from paddle_resnet.data.datasets.image_shards import write_shards
from paddle_resnet.errors import UsageError
from paddle_resnet.images.decode import decode_image
from paddle_resnet.training.data_manifest import DataManifest

SIZE = 16
NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def encoded(seed, size=(20, 26), kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def write_tar(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def sample(number, label, name="{:04d}"):
    return [(f"{name.format(number)}.png", encoded(number)), (f"{name.format(number)}.cls", str(label).encode())]


def samples(count, classes=2, first=0, **options):
    return [each for number in range(first, first + count) for each in sample(number, number % classes, **options)]


def config(root, **options):
    return DataConfig(**{"source": "image_shards", "root": root, "image_size": SIZE, **options})


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 12), ("val", 3), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            path = tmp_path / "photos" / part / name
            path.mkdir(parents=True)
            for number in range(count):
                (path / f"{number}.png").write_bytes(encoded(1000 * label + number + len(part) * 100))
    return tmp_path / "photos"


@pytest.mark.parametrize("names", [("0 cat", "1 dog"), ("apple 1", "pear 0"), ("# cat", "dog"), ("2", "3")])
def test_names_of_classes_survive_shards(folder, tmp_path, names):
    for part in ("train", "val", "test"):
        for name, new in zip(("cat", "dog"), names, strict=True):
            (folder / part / name).rename(folder / part / new)
    splits = open_splits(DataConfig(source="image_folder", root=folder, image_size=SIZE))
    write_shards(splits, tmp_path / "shards", 1, seed=0)
    read = open_splits(config(tmp_path / "shards"))
    assert read.classes == splits.classes == names
    assert sorted(read.test.labels) == sorted(splits.test.labels)


def test_shards_hold_the_files_bytes_and_labels(folder, tmp_path):
    splits = open_splits(DataConfig(source="image_folder", root=folder, image_size=SIZE))
    assert write_shards(splits, tmp_path / "shards", 1, seed=0) == {"train": 24, "val": 6, "test": 8}
    assert (tmp_path / "shards/classes.txt").read_text() == "cat\ndog\n"
    for part in ("train", "val", "test"):
        with tarfile.open(tmp_path / f"shards/{part}-000000.tar") as archive:
            content = {member.name: archive.extractfile(member).read() for member in archive}
        found = {(content[name], content[name[:-4] + ".cls"]) for name in content if name.endswith(".png")}
        expected = {
            (file.read_bytes(), str(label).encode())
            for label, name in enumerate(("cat", "dog"))
            for file in (folder / part / name).iterdir()
        }
        assert found == expected
    with pytest.raises(UsageError, match="exists already"):
        write_shards(splits, tmp_path / "shards", 1, seed=0)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        write_shards(splits, tmp_path / "link", 1, seed=0)


def test_a_run_on_shards_has_the_same_pictures(folder, tmp_path):
    splits = open_splits(DataConfig(source="image_folder", root=folder, image_size=SIZE))
    write_shards(splits, tmp_path / "shards", 1, seed=0)
    again = open_splits(config(tmp_path / "shards"))
    assert again.classes == ("cat", "dog")
    for one, other in ((splits.train, again.train), (splits.validation, again.validation), (splits.test, again.test)):
        known = {
            (picture.tobytes(), label) for picture, label in zip(one.batch(range(len(one))), one.labels, strict=True)
        }
        found = zip(other.batch(range(len(other))), other.labels, strict=True)
        assert {(picture.tobytes(), label) for picture, label in found} == known


@pytest.mark.once
@pytest.mark.slow
def test_images_in_memory_become_png_files(tmp_path):
    splits = open_splits(DataConfig(source="digits", image_size=8))
    write_shards(splits, tmp_path / "shards", 1, seed=3)
    again = open_splits(config(tmp_path / "shards", image_size=8))
    assert len(list((tmp_path / "shards").glob("train-*.tar"))) == 3
    order = np.random.default_rng(3).permutation(len(splits.train))
    np.testing.assert_array_equal(again.train.batch(range(50)), splits.train.batch(order[:50]))
    np.testing.assert_array_equal(again.train.labels, splits.train.labels[order])


@pytest.mark.parametrize("options", [{}, {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "x" * 600}}])
@pytest.mark.parametrize(
    "name", ["{:04d}", "folder/{:04d}", "a" * 90 + "/" + "b" * 80 + "/{:04d}", "c" * 200 + "{:04d}"]
)
def test_other_writers_archives_are_read(tmp_path, options, name):
    members = samples(20, name=name)
    members[6:6] = [(f"{name.format(3)}.json", b'{"a": 1}')]
    write_tar(tmp_path / "train-000000.tar", members, **options)
    write_tar(tmp_path / "train-000001.tar", samples(4, first=20), format=tarfile.GNU_FORMAT)
    write_tar(tmp_path / "ds_test-0.tar", samples(6, first=24))
    splits = open_splits(config(tmp_path, validation_fraction=0.25))
    assert [len(each) for each in (splits.train, splits.validation, splits.test)] == [18, 6, 6]
    assert splits.classes == ("0", "1")
    expected = [decode_image(encoded(number), SIZE, SIZE) for number in range(24, 30)]
    np.testing.assert_array_equal(splits.test.batch(range(6)), expected)
    assert splits.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert splits.test.names([1])[0].startswith("ds_test-0.tar/0025.png@")


@pytest.mark.parametrize(
    "order", [".jpg .mask.png .cls", ".cls .jpg .mask.png", ".mask.png .jpg .cls", ".cls .mask.png .jpg"]
)
def test_a_mask_beside_a_picture_is_not_taken_for_it(tmp_path, order):
    contents = [
        {".jpg": encoded(number), ".mask.png": encoded(50), ".cls": str(number % 2).encode()} for number in range(10)
    ]
    members = [
        (f"{number:04d}{each}", content[each]) for number, content in enumerate(contents) for each in order.split()
    ]
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "test-0.tar", members)
    splits = open_splits(config(tmp_path, validation_fraction=0.2))
    expected = [decode_image(encoded(number), SIZE, SIZE) for number in range(10)]
    np.testing.assert_array_equal(splits.test.batch(range(10)), expected)
    alike = [("1.jpg", b""), ("1.png", b""), ("1.cls", b"0")]
    for members in (alike, alike[-1:] + alike[:-1]):
        write_tar(tmp_path / "test-0.tar", members)
        with pytest.raises(UsageError, match=r"test-0\.tar: 1\.png is a second image of its sample; expected one"):
            open_splits(config(tmp_path))


def test_a_range_of_shards_is_named_in_braces(tmp_path):
    for number in range(4):
        write_tar(tmp_path / f"part-{number:03d}.tar", samples(10, first=10 * number))
    splits = open_splits(config(None, train_list=tmp_path / "part-{001..003}.tar", test_fraction=0.2))
    names = {name.split("/")[0] for split in (splits.train, splits.test) for name in split.names(range(len(split)))}
    assert names == {f"part-{number:03d}.tar" for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:3000], "cut short|unexpected end"),
        (lambda data: b"x" * 4096, "no header at byte 0"),
        (lambda data: data[: -tarfile.RECORDSIZE], "cut short"),
        (lambda data: data.replace(b"0003.cls", b"0003.clx"), "no header at byte"),
        (lambda data: b"", "empty"),
        (lambda data: data[:124] + b"zzzzzzzzzzz" + data[135:], "no header"),
        (lambda data: data + data, r"no header at byte [\d,]+, but more at byte"),
        (lambda data: zeroed(data, b"0003.cls"), "no header at byte .*, but more at byte"),
    ],
)
@pytest.mark.parametrize("before", [0, 1], ids=["short-names", "after-a-long-name"])
def test_a_damaged_archive_is_one_line(tmp_path, damage, words, before):
    path = write_tar(tmp_path / "train-0.tar", samples(before, name="c" * 200 + "{:04d}") + samples(8, first=before))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=rf"train-0\.tar: cannot be read as a tar archive \(.*({words})"):
        open_splits(config(tmp_path))


def zeroed(data, name):
    """Lose the block of a member's header, as a disk does."""
    start = data.index(name + b"\0")
    return data[:start] + bytes(512) + data[start + 512 :]


def test_images_before_a_long_name_are_found_once(tmp_path):
    members = [*samples(10), *samples(1, first=10, name="c" * 200 + "{:04d}"), *samples(9, first=11)]
    write_tar(tmp_path / "train-0.tar", members)
    splits = open_splits(config(tmp_path))
    names = [name for part in (splits.train, splits.validation, splits.test) for name in part.names(range(len(part)))]
    assert sorted(name.partition("@")[0] for name in names) == sorted(
        f"train-0.tar/{name}" for name, _ in members if name.endswith(".png")
    )


def header(kind, size):
    """A header whose size is written to base 256, as of numbers that need it."""
    info = tarfile.TarInfo("0000.png")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header(tarfile.GNUTYPE_LONGNAME, 1 << 33),
        (header(tarfile.GNUTYPE_LONGNAME, 5) + b"abcde".ljust(512, b"\0")) * 3000,
        header(tarfile.GNUTYPE_LONGNAME, 5) + b"abcde".ljust(512, b"\0") + header(tarfile.REGTYPE, -1024),
        header(tarfile.XHDTYPE, 14) + b"14 size=-1536\n".ljust(512, b"\0") + header(tarfile.REGTYPE, 0),
    ],
    ids=["huge-name", "row-of-names", "negative", "negative-by-pax"],
)
def test_an_archive_of_hostile_headers_ends_soon(tmp_path, content):
    (tmp_path / "train-0.tar").write_bytes(content + bytes(10240))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"train-0\.tar: cannot be read as a tar archive \(") as caught:
            open_splits(config(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 600


@pytest.mark.posix
def test_a_pipe_is_no_shard(tmp_path):
    write_tar(tmp_path / "train-0.tar", samples(8))
    os.mkfifo(tmp_path / "train-1.tar")
    with pytest.raises(UsageError, match=r"train-1\.tar: cannot be read as a tar archive \(not a regular file\)"):
        open_splits(config(tmp_path))
    (tmp_path / "train-1.tar").unlink()
    splits = open_splits(config(tmp_path, memory_mb=0))
    assert len(splits.train) == 5
    (tmp_path / "train-0.tar").unlink()
    os.mkfifo(tmp_path / "train-0.tar")
    with pytest.raises(UsageError, match="not a regular file"):
        splits.train.batch([0])


def test_missing_and_empty_shards_are_told(tmp_path):
    for number in (1, 2, 4, 7):
        write_tar(tmp_path / f"train-{number:03d}.tar", samples(8, first=8 * number))
    (tmp_path / "train-008.tar").write_bytes(bytes(10240))
    splits = open_splits(config(tmp_path))
    assert [each.reason for each in splits.train.table.skipped.values()] == [
        f"{tmp_path}: 3 shards of the series missing, the first: train-003.tar; copy it there too",
        f"{tmp_path}/train-008.tar: holds no images; copy or write it again",
    ]
    with pytest.raises(UsageError, match="the first: train-003"):
        open_splits(config(tmp_path, strict=True))


def test_shards_that_lack_something_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"holds no shards; expected train-000000\.tar"):
        open_splits(config(tmp_path))
    write_tar(tmp_path / "train-0.tar", [*samples(8), ("0009.png", encoded(9))])
    with pytest.raises(UsageError, match=r"train-0\.tar: 0009\.png has no label; expected a file with the suffix cls"):
        open_splits(config(tmp_path))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (b" \n", "0009.cls is empty"),
        (b"\xb9\xb7", "is not printable UTF-8 text"),
        (b"1" * 201, "0009.cls has 201 bytes; expected the number or name of a class"),
    ],
)
def test_labels_of_shards_are_text(tmp_path, label, words):
    write_tar(tmp_path / "train-0.tar", [*samples(8), ("0009.png", encoded(9)), ("0009.cls", label)])
    with pytest.raises(UsageError, match=words):
        open_splits(config(tmp_path))


def test_labels_without_image_and_unused_archives_are_told(tmp_path, caplog):
    heic = [("0009.heic", b"\0"), ("0009.cls", b"1")]
    write_tar(tmp_path / "train-0.tar", [*samples(8), *heic])
    write_tar(tmp_path / "extra-0.tar", samples(2))
    splits = open_splits(config(tmp_path))
    assert caplog.messages == [f"{tmp_path}: not used: extra-0.tar"]
    assert [each.reason for each in splits.train.table.skipped.values()] == [
        f"{tmp_path}/train-0.tar: 1 label without an image, such as that of 0009; add it, in a format that can be read"
    ]
    with pytest.raises(UsageError, match="1 label without an image"):
        open_splits(config(tmp_path, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("memory_mb", [0, 100])
def test_an_interrupted_epoch_of_shards_continues(tmp_path, memory_mb):
    write_tar(tmp_path / "train-0.tar", samples(40))
    split = open_splits(config(tmp_path, memory_mb=memory_mb, workers=2)).train
    augment = AugmentConfig(scale=(0.3, 1.0), flip=True)
    loader, fresh = (TrainLoader(split, 8, SIZE, SIZE, NORMALIZE, augment, seed) for seed in (1, 2))
    batches = iter(loader)
    next(batches)
    fresh.set_state_dict(loader.state_dict())
    fresh.first_batch = 1
    for _ in range(2):
        for (found, _), (expected, _) in zip(fresh, batches, strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
        batches = iter(loader)


def test_unreadable_images_of_shards_are_left_out(tmp_path):
    bad = [("0003.png", b"no picture"), ("0003.cls", b"1")]
    write_tar(tmp_path / "train-0.tar", samples(3) + bad + samples(20, first=4))
    splits = open_splits(config(tmp_path))
    assert sum(len(each) for each in (splits.train, splits.validation, splits.test)) == 23
    (reason,) = splits.train.table.unreadable().values()
    assert "train-0.tar: 0003.png: cannot be read as an image" in reason


def test_changed_shards_are_found_when_they_are_reopened(tmp_path):
    path = write_tar(tmp_path / "train-0.tar", samples(30))
    whole = Config(data=config(tmp_path))
    splits = open_splits(whole.data)
    manifest = DataManifest.of(whole, splits, NORMALIZE)
    again = manifest.open(Path("run"), whole)
    np.testing.assert_array_equal(again.test.batch([2, 0]), splits.test.batch([2, 0]))
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"train-0\.tar/0000\.png@512\+\d+ has another content"):
        manifest.open(Path("run"), whole)


@pytest.mark.parametrize("name", ["../{:04d}", "/x/{:04d}", "c:\\{:04d}", "b.tar/{:04d}@1+1", "a\n{:04d}\x1b[0m"])
def test_members_may_have_any_names(tmp_path, name):
    write_tar(tmp_path / "train-0.tar", samples(20, name=name))
    whole = Config(data=config(tmp_path))
    splits = open_splits(whole.data)
    manifest = DataManifest.model_validate_json(DataManifest.of(whole, splits, NORMALIZE).model_dump_json())
    again = manifest.open(Path("run"), whole)
    for one, other in ((splits.train, again.train), (splits.test, again.test)):
        np.testing.assert_array_equal(other.batch(range(len(one))), one.batch(range(len(one))))


@pytest.mark.parametrize("path", ["../train-0.tar/0.png@512+9", "/train-0.tar/0.png@512+9"])
def test_a_record_of_shards_elsewhere_is_refused(tmp_path, path):
    write_tar(tmp_path / "train-0.tar", samples(20))
    whole = Config(data=config(tmp_path))
    values = DataManifest.of(whole, open_splits(whole.data), NORMALIZE).model_dump()
    values["files"]["train"]["names"][0] = path
    with pytest.raises(ValidationError, match="lies outside of the folder"):
        DataManifest.model_validate(values)


@pytest.mark.parametrize("name", ["sub.tar/train-0.tar", "train-0.tgz"])
def test_names_that_a_record_could_not_hold_are_refused(tmp_path, name):
    write_tar(tmp_path / name, samples(20))
    with pytest.raises(UsageError, match=r"expected a name that ends in \.tar, in a folder whose name does not"):
        open_splits(config(tmp_path, train_list=tmp_path / name))


def test_files_without_a_suffix_get_that_of_their_format(tmp_path):
    kinds = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".tiff": "TIFF", ".webp": "WEBP"}
    contents = [encoded(number, kind=kind) for number, kind in enumerate([*kinds.values()] * 2)]
    (tmp_path / "images").mkdir()
    for number, content in enumerate(contents):
        (tmp_path / "images" / f"{number:x}{'.data' * (number % 2)}").write_bytes(content)
    lines = [f"images/{number:x}{'.data' * (number % 2)} {number // 2 % 2}\n" for number in range(len(contents))]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "test.txt").write_text("".join(lines))
    splits = open_splits(DataConfig(source="image_list", root=tmp_path, image_size=SIZE))
    assert write_shards(splits, tmp_path / "shards", 1, seed=0)["test"] == len(contents)
    with tarfile.open(tmp_path / "shards/test-000000.tar") as archive:
        written = {archive.extractfile(member).read(): Path(member.name).suffix for member in archive}
    assert {content: written[content] for content in contents} == dict(zip(contents, [*kinds] * 2, strict=True))
    assert len(open_splits(config(tmp_path / "shards")).test) == len(contents)


def test_a_file_without_a_suffix_that_is_no_image_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"{number:x} {number % 2}\n" for number in range(16)))
    for number in range(16):
        (tmp_path / f"{number:x}").write_bytes(encoded(number) if number != 5 else b"no picture")
    splits = open_splits(DataConfig(source="image_list", root=tmp_path, image_size=SIZE))
    assert sum(write_shards(splits, tmp_path / "shards", 1, seed=0).values()) == 15
    (tmp_path / "7").write_bytes(b"no picture")  # it has become unreadable since
    with pytest.raises(UsageError, match="7: cannot be read as an image"):
        write_shards(splits, tmp_path / "again", 1, seed=0)
    assert not (tmp_path / "again").exists()


def test_a_training_part_without_images_is_one_line(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    write_tar(tmp_path / "train-0.tar", [(f"{number:04d}.cls", b"1") for number in range(8)])
    with pytest.raises(UsageError, match=r"holds no image with a class; .*train-0\.tar: 8 labels without an image"):
        open_splits(config(tmp_path))


def test_archives_of_macos_are_read_without_its_hidden_files(tmp_path):
    hidden = b"\0\5\x16\7"
    members = [each for name, content in samples(8) for each in ((f"./._{name}", hidden), (f"./{name}", content))]
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "test-0.tar", members)
    split = open_splits(config(tmp_path)).test
    assert [name.partition("@")[0] for name in split.names(range(8))] == [
        f"test-0.tar/./{number:04d}.png" for number in range(8)
    ]
    assert split.labels.tolist() == [0, 1] * 4
    assert not split.table.skipped


def test_suffixes_may_have_capital_letters(tmp_path):
    members = [(f"{name[:4]}{name[4:].upper()}", content) for name, content in samples(8)]
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "test-0.tar", members)
    split = open_splits(config(tmp_path)).test
    np.testing.assert_array_equal(split.batch([3]), [decode_image(encoded(3), SIZE, SIZE)])
    assert split.labels.tolist() == [0, 1] * 4


@pytest.mark.parametrize("root_is_absolute", [True, False])
def test_a_relative_path_of_shards_and_an_absolute_root_name_the_same(tmp_path, monkeypatch, root_is_absolute):
    monkeypatch.chdir(tmp_path)
    for number in (0, 1, 3):
        write_tar(tmp_path / f"shards/a/train-{number}.tar", samples(8, first=8 * number))
    shards, root = Path("shards/a/train-{0..1}.tar"), Path("shards")
    shards, root = (shards, root.absolute()) if root_is_absolute else (shards.absolute(), root)
    splits = open_splits(config(root, train_list=shards))
    names = [name for part in (splits.train, splits.validation, splits.test) for name in part.names(range(len(part)))]
    assert {name[:15] for name in names} == {"a/train-0.tar/0", "a/train-1.tar/0"}
    (tmp_path / "shards/a/train-1.tar").write_bytes(bytes(10240))
    (skipped,) = open_splits(config(root, train_list=shards)).train.table.skipped
    assert skipped == "a/train-1.tar"
    with pytest.raises(UsageError, match=r"train-0\.tar: lies outside of .*; set data\.root to a folder that holds"):
        open_splits(config(root / "b", train_list=root / "a/train-0.tar"))


def test_what_shards_leave_out_is_logged(folder, tmp_path, caplog):
    (folder / "train/cat/bad.png").write_bytes(b"no picture")
    (folder / "test/dog/bad.png").write_bytes(b"")
    (folder / "train/dog/phone.heic").write_bytes(b"\0")
    caplog.set_level("INFO")
    splits = open_splits(DataConfig(source="image_folder", root=folder, image_size=SIZE))
    assert write_shards(splits, tmp_path / "shards", 1, seed=0) == {"train": 24, "val": 6, "test": 8}
    lines = [line for line in caplog.messages if "left out" in line]
    assert lines[0] == "1 file is left out by suffix: 1 .heic (convert them, e.g. to JPEG)"
    assert lines[1].startswith("2 of 40 files cannot be read and are left out (data.strict makes this an error), the ")
    assert len(lines) == 2
