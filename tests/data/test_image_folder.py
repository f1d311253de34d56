"""Image folders: layouts, classes, and the report of faults."""

import csv
import hashlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_resnet.config import DataConfig
from paddle_resnet.data import open_splits
from paddle_resnet.data.datasets import file_report
from paddle_resnet.data.datasets.file_report import report_files
from paddle_resnet.data.splits import within_limit
from paddle_resnet.errors import UsageError
from paddle_resnet.images.decode import check_readable, decode_image


def fill(folder, counts, size=(20, 30)):
    """Write `counts[class]` images of noise below `folder`."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:04d}.png")
    return folder


def config(root, **options):
    return DataConfig(**{"source": "image_folder", "root": root, "image_size": 16, **options})


def names(split):
    return split.names(np.arange(len(split)))


def test_train_and_test_hold_validation_out_of_train(tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 20})
    fill(tmp_path / "test", {"cat": 3, "dog": 2})
    splits = open_splits(config(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [27, 3, 5]
    assert splits.classes == ("cat", "dog")
    assert names(splits.test) == [*(f"test/cat/000{k}.png" for k in range(3)), "test/dog/0000.png", "test/dog/0001.png"]
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1]
    assert len({*names(splits.train), *names(splits.validation)}) == 30
    for part in (splits.train, splits.validation):
        assert [name.split("/")[1] for name in names(part)] == [splits.classes[label] for label in part.labels]


def test_val_alone_validates_and_is_the_test_too(tmp_path, caplog):
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "val", {"cat": 2, "dog": 2})
    splits = open_splits(config(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [20, 4, 4]
    assert names(splits.validation)[0] == "val/cat/0000.png" and splits.test is splits.validation
    assert [each.getMessage().partition(": ")[2] for each in caplog.records] == [
        f"{tmp_path}: there is no test split: the test is measured on the validation images, which also choose the "
        "best epoch; for both, add a test split, or name this one test: validation is then held out of train"
    ]


def test_val_and_test_are_used_as_named(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        fill(tmp_path / part, {"cat": count, "dog": count})
    splits = open_splits(config(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [10, 4, 6]
    assert names(splits.validation)[0] == "val/cat/0000.png"


@pytest.mark.parametrize("below", ["", "train"])
def test_class_folders_alone_are_divided_by_ratio(tmp_path, below):
    fill(tmp_path / below, {"cat": 50, "dog": 100})
    splits = open_splits(config(tmp_path, test_fraction=0.2, validation_fraction=0.1))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [108, 12, 30]
    assert np.bincount(splits.test.labels).tolist() == [10, 20]
    assert np.bincount(splits.validation.labels).tolist() == [4, 8]
    everything = [name for part in (splits.train, splits.validation, splits.test) for name in names(part)]
    assert len(set(everything)) == 150
    again = open_splits(config(tmp_path, test_fraction=0.2, validation_fraction=0.1))
    assert names(again.validation) == names(splits.validation)


def test_classes_are_in_natural_order(tmp_path):
    fill(tmp_path, {"class10": 4, "class9": 4, "class1": 4, "other": 4})
    assert open_splits(config(tmp_path, test_fraction=0.25)).classes == ("class1", "class9", "class10", "other")


def test_hidden_files_are_skipped_and_subfolders_searched(tmp_path):
    fill(tmp_path / "train", {"cat": 8, "dog": 8, "dog/young": 2})
    fill(tmp_path / "test", {"cat": 2, "dog": 2})
    cat = tmp_path / "train" / "cat"
    (cat / ".hidden.png").write_text("no picture")
    (cat / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "train" / "readme.md").write_text("no folder")
    shutil.copy(cat / "0000.png", cat / "UPPER.PNG")
    splits = open_splits(config(tmp_path))
    found = [*names(splits.train), *names(splits.validation)]
    assert splits.classes == ("cat", "dog")
    assert len(found) == 8 + 8 + 2 + 1
    assert {"train/cat/UPPER.PNG", "train/dog/young/0001.png"} <= set(found)


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_pictures_are_the_decoded_files(tmp_path, memory_mb):
    fill(tmp_path / "train", {"cat": 40, "dog": 41})
    fill(tmp_path / "test", {"dog": 2, "cat": 1})
    splits = open_splits(config(tmp_path, resize=18, memory_mb=memory_mb, workers=3))
    chosen = [70, 3, 3, 0]
    reference = [decode_image(tmp_path / name, 18, 18) for name in splits.train.names(chosen)]
    np.testing.assert_array_equal(splits.train.batch(chosen), reference)


def test_pictures_in_memory_are_read_once(tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "test", {"cat": 1, "dog": 1})
    kept, read_anew = (open_splits(config(tmp_path, memory_mb=size)) for size in (100, 0))
    before = kept.train.batch([5])
    shutil.rmtree(tmp_path / "train")
    np.testing.assert_array_equal(kept.train.batch([5]), before)
    with pytest.raises(UsageError, match="no such file"):
        read_anew.train.batch([5])


@pytest.mark.parametrize(("image_size", "resize"), [(32, 32), (64, 64), (96, 110), (224, 256)])
def test_the_resize_rule(tmp_path, image_size, resize):
    fill(tmp_path, {"cat": 10, "dog": 10})
    splits = open_splits(config(tmp_path, image_size=image_size))
    assert splits.resize == resize
    assert splits.train.batch([0]).shape == (1, resize, resize, 3)
    assert splits.mean == (0.485, 0.456, 0.406)


@pytest.fixture
def damaged(tmp_path):
    """Images in three splits, three unreadable files, and a duplicate of each kind."""
    fill(tmp_path / "train", {"cat": 6, "dog": 6})
    fill(tmp_path / "val", {"cat": 1, "dog": 1}, size=(21, 21))
    fill(tmp_path / "test", {"cat": 2, "dog": 2}, size=(25, 25))
    cat, dog, test = tmp_path / "train/cat", tmp_path / "train/dog", tmp_path / "test/dog"
    (cat / "aaa.jpg").write_text("not a picture")
    (dog / "zzz.jpg").write_bytes(b"")
    (test / "cut.png").write_bytes((cat / "0001.png").read_bytes()[:500])
    shutil.copy(cat / "0002.png", cat / "same.png")
    shutil.copy(cat / "0003.png", dog / "other.png")
    shutil.copy(cat / "0004.png", tmp_path / "val/cat/seen.png")
    return tmp_path


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_files_that_cannot_be_read_are_left_out(damaged, memory_mb):
    splits = open_splits(config(damaged, memory_mb=memory_mb))
    assert set(splits.train.table.unreadable()) == {"train/cat/aaa.jpg", "train/dog/zzz.jpg"}
    assert "aaa.jpg: cannot be read as an image" in splits.train.table.unreadable()["train/cat/aaa.jpg"]
    assert set(splits.test.table.unreadable()) == {"test/dog/cut.png"}
    assert names(splits.test) == [f"test/{name}/000{k}.png" for name in ("cat", "dog") for k in (0, 1)]
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert len(splits.train) == 6 + 6 + 2
    last = len(splits.train) - 1
    np.testing.assert_array_equal(
        splits.train.batch([last, 0]),
        [decode_image(damaged / name, 16, 16) for name in splits.train.names([last, 0])],
    )


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_strict_names_the_first_file_that_cannot_be_read(damaged, memory_mb):
    splits = open_splits(config(damaged, memory_mb=memory_mb, strict=True))
    with pytest.raises(UsageError) as caught:
        len(splits.train)
    assert "aaa.jpg: cannot be read as an image" in str(caught.value)
    assert "remove or replace it" in str(caught.value)
    assert "(and 1 more of 16 files)" in str(caught.value)
    with pytest.raises(UsageError, match=r"test/dog/cut\.png: cannot be read"):
        splits.test.batch([0])


def test_class_without_readable_file_is_an_error(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"cat": 1})
    (tmp_path / "test/dog").mkdir()
    (tmp_path / "test/dog/x.jpg").write_text("not a picture")
    with pytest.raises(UsageError, match=r"x\.jpg: cannot be read .*no other file of its class"):
        len(open_splits(config(tmp_path)).test)


def test_unreadable_files_and_copies_are_reported_once(damaged, tmp_path_factory, caplog, monkeypatch):
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        report_files(open_splits(config(damaged)), folder)
    log = caplog.text
    assert len(caplog.records) == 5
    assert "3 of 24 files cannot be read and are left out" in log
    assert "3 of 21 images are byte-for-byte duplicates" in log
    assert "LEAKAGE: 1 of them" in log
    assert "val/cat/seen.png is train/cat/0004.png" in log
    assert "1 of them are in two classes, one of which must be wrong: train/dog/other.png is train/cat/0003.png" in log
    rows = list(csv.DictReader((folder / "pictures.csv").open(encoding="utf-8")))
    assert {row["file"]: row["finding"] for row in rows} == {
        "train/cat/aaa.jpg": "unreadable",
        "train/dog/zzz.jpg": "unreadable",
        "test/dog/cut.png": "unreadable",
        "train/cat/same.png": "copy",
        "train/dog/other.png": "copy, two classes",
        "val/cat/seen.png": "copy, leakage",
    }
    assert [row["detail"] for row in rows if row["finding"] == "copy"] == ["the same as train/cat/0002.png"]


def test_clean_folder_and_other_sources_write_no_list(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    fill(tmp_path / "pictures", {"cat": 10, "dog": 10})
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        report_files(open_splits(config(tmp_path / "pictures")), tmp_path)
        report_files(open_splits(DataConfig(source="digits", image_size=8)), tmp_path)
    assert [record.getMessage() for record in caplog.records] == ["20 images, no duplicate files"]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_test_class_that_train_lacks(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"cat": 1, "dogs": 1})
    with pytest.raises(UsageError, match=r'"dogs" is no class of the training images \(did you mean "dog"\?\)'):
        open_splits(config(tmp_path))


def test_a_test_folder_may_lack_a_class(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"dog": 2})
    assert open_splits(config(tmp_path)).test.labels.tolist() == [1, 1]


def test_wrong_folders_are_named_with_the_layout(tmp_path):
    for root, complaint in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "empty", "holds no class folders"),
        (fill(tmp_path / "single", {"cat": 3}), "one class folder only"),
        (
            fill(tmp_path / "outer/train", {"train/cat": 3, "train/dog": 3, "val/cat": 3, "val/dog": 3}).parent,
            r"holds splits \(train, val\), no classes; expected .*; did you mean data\.root=.*outer.train\?",
        ),
        (tmp_path / "hollow", "no images found"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        for name in ("cat", "dog"):
            (tmp_path / "hollow" / name).mkdir(parents=True, exist_ok=True)
        with pytest.raises(UsageError, match=complaint) as caught:
            open_splits(config(root))
        assert str(root) in str(caught.value)
        assert "<class>" in str(caught.value)


def test_a_split_without_class_folders_names_the_sources(tmp_path):
    fill(tmp_path / "train", {"train": 3})
    words = r"train/train: holds pictures but no class folders: data\.source image_names .* or image_list"
    with pytest.raises(UsageError, match=words):
        open_splits(config(tmp_path))


def test_a_limit_takes_some_images_of_some_classes(tmp_path):
    """9 images are two classes with 4 each; the classes are all three, and numbers stay those of the whole folder."""
    fill(tmp_path / "train", {"ape": 9, "bat": 9, "cat": 9})
    fill(tmp_path / "test", {"ape": 1, "bat": 9, "cat": 9})
    splits = open_splits(config(tmp_path, limit=9, validation_fraction=0.25))
    assert splits.classes == ("ape", "bat", "cat")
    labels = np.concatenate([splits.train.labels, splits.validation.labels])
    assert np.bincount(labels).tolist() == [4, 0, 4]
    assert np.bincount(splits.test.labels).tolist() == [1, 0, 4]
    assert within_limit(list("aabbbb"), 100).tolist() == [0, 1, 2, 3, 4, 5]
    assert [within_limit(list("aabb"), limit).tolist() for limit in (1, 2)] == [[0], [0, 2]]
    kept = within_limit(np.repeat(np.arange(1000), 50).tolist(), 1000)
    assert len(kept) == 1000 and np.unique(kept // 50, return_counts=True)[1].tolist() == [4] * 250


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "eel").mkdir()
    with pytest.raises(UsageError, match="eel: no images found"):
        open_splits(config(tmp_path))


@pytest.mark.parametrize("split_seed", range(4))
@pytest.mark.parametrize("memory_mb", [0, 100])
def test_bad_file_is_left_out_of_any_split(tmp_path, split_seed, memory_mb):
    fill(tmp_path, {"cat": 10, "dog": 2, "eel": 10})
    for name in ("cat", "dog", "eel"):
        (tmp_path / name / "bad.png").write_text("not a picture")
    (tmp_path / "dog" / "0001.png").write_bytes(b"")  # a single picture is left: it is trained on
    splits = open_splits(config(tmp_path, split_seed=split_seed, memory_mb=memory_mb))
    found = [name for part in (splits.train, splits.validation, splits.test) for name in names(part)]
    assert sorted(found) == sorted([*(f"{c}/{k:04d}.png" for c in ("cat", "eel") for k in range(10)), "dog/0000.png"])
    assert "dog/0000.png" in names(splits.train)
    for part in (splits.train, splits.validation, splits.test):
        np.testing.assert_array_equal(part.batch([0]), [decode_image(tmp_path / names(part)[0], 16, 16)])


def test_division_of_a_folder_is_fixed(tmp_path):
    """A fixed value, so that earlier runs resume with the same images."""
    fill(tmp_path, {"cat": 20, "dog": 31}, size=(2, 2))
    splits = open_splits(config(tmp_path, split_seed=3, test_fraction=0.2, validation_fraction=0.1))
    parts = "|".join(" ".join(names(part)) for part in (splits.train, splits.validation, splits.test))
    assert hashlib.sha256(parts.encode()).hexdigest()[:16] == "412e7a59f48968c3"


def lines_of(caplog, monkeypatch, splits, folder):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        report_files(splits, folder)
    with (folder / "pictures.csv").open(encoding="utf-8") as file:
        return [record.getMessage() for record in caplog.records], list(csv.DictReader(file))


@pytest.fixture
def with_more(tmp_path, monkeypatch):
    """A folder with a pipe, an unreadable subfolder, an image without class, HEIC, and control characters in a name."""
    fill(tmp_path / "data", {"cat": 10, "dog": 10, "dog/sub": 5})
    os.mkfifo(tmp_path / "data/cat/pipe.png")
    os.mkfifo(os.fsencode(tmp_path) + b"/data/cat/\xff\x1b.png")
    (tmp_path / "data/cat/a.HEIC").touch()
    (tmp_path / "data/stray.png").touch()

    def scandir(path, scan=os.scandir):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return tmp_path / "data"


@pytest.mark.posix
def test_files_beside_the_images_are_reported(with_more, tmp_path, caplog, monkeypatch):
    lines, rows = lines_of(caplog, monkeypatch, open_splits(config(with_more)), tmp_path)
    assert lines[0] == "1 file is left out by suffix: 1 .heic (convert them, e.g. to JPEG)"
    assert lines[1].startswith("2 unreadable folders or images without a class are left out")
    assert "2 of 22 files cannot be read" in lines[2]
    assert {row["file"]: row["finding"] for row in rows} == {
        "cat/pipe.png": "unreadable",
        "cat/\\udcff\\x1b.png": "unreadable",
        "cat/a.HEIC": "skipped",
        "dog/sub": "unreadable",
        "stray.png": "unreadable",
    }
    assert "cat/pipe.png: is a named pipe, not a regular file" in rows[0]["detail"] + rows[1]["detail"]


@pytest.mark.posix
def test_strict_names_skipped_images(with_more):
    with pytest.raises(UsageError, match=r"stray\.png: is in no class folder; move it \(and 2 more\)"):
        open_splits(config(with_more, strict=True))


def test_error_of_the_system_is_given_as_such(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(UsageError, match=r"loop\.png: cannot be read \(Too many levels of symbolic links\)$"):
        check_readable(str(tmp_path / "loop.png"))


def test_class_folder_name_must_be_utf8(tmp_path):
    fill(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(
        UsageError, match=r"the class folder caf\\udce9 has a name that is not printable UTF-8 text; rename it"
    ):
        open_splits(config(tmp_path))


def test_unreadable_class_folder_gives_the_reason(tmp_path, monkeypatch):
    fill(tmp_path, {"cat": 2, "sub": 2})

    def scandir(path, scan=os.scandir):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"sub: this folder cannot be read \(Permission denied\); allow reading it"):
        open_splits(config(tmp_path))


def test_findings_are_added_to_a_table_that_a_spreadsheet_saved_in_another_encoding(tmp_path, monkeypatch):
    monkeypatch.setattr(file_report, "file_splits", lambda splits: [])
    monkeypatch.setattr(file_report, "_unreadable", lambda parts: [("\u72d7.jpg", "unreadable", "no picture")])
    table = tmp_path / "pictures.csv"
    earlier = "file,finding,detail\r\n\u732b.jpg,skipped,mine\r\n".encode("gbk")
    table.write_bytes(earlier)
    for _ in range(2):  # each finding once
        file_report.update_findings(None, tmp_path)
    assert table.read_bytes() == earlier + "\u72d7.jpg,unreadable,no picture\n".encode()
