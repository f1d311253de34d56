"""A folder of pictures: its layouts, its classes, and what is wrong with it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from paddle_resnet.config import DataConfig
from paddle_resnet.data import decode_image, open_splits
from paddle_resnet.errors import UsageError


def fill(folder, counts, size=(20, 30)):
    """Write `counts[class]` pictures of noise below `folder`."""
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


def test_val_alone_is_the_test_split(tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "val", {"cat": 2, "dog": 2})
    splits = open_splits(config(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 4]
    assert names(splits.test)[0] == "val/cat/0000.png"


def test_val_and_test_are_what_they_say(tmp_path):
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


def test_hidden_and_other_files_are_passed_over_and_any_depth_is_found(tmp_path):
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


def test_the_first_file_that_is_no_picture_is_named_at_opening(tmp_path):
    fill(tmp_path / "train", {"cat": 60, "dog": 60})
    fill(tmp_path / "test", {"cat": 1, "dog": 1})
    (tmp_path / "train/cat/aaa.jpg").write_text("not a picture")
    (tmp_path / "train/dog/zzz.jpg").write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        open_splits(config(tmp_path))
    assert "aaa.jpg: cannot be read as a picture" in str(caught.value)
    assert "remove or replace it" in str(caught.value)
    assert "(and 1 more of 124 files)" in str(caught.value)


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_a_file_damaged_behind_its_head_is_named_when_decoded(tmp_path, memory_mb):
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "test", {"cat": 1, "dog": 1})
    victim = tmp_path / "test/dog/0000.png"
    victim.write_bytes(victim.read_bytes()[:500])
    splits = open_splits(config(tmp_path, memory_mb=memory_mb))
    with pytest.raises(UsageError, match=r"test/dog/0000\.png: cannot be read as a picture"):
        splits.test.batch([0, 1])


def test_a_test_class_that_train_lacks(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"cat": 1, "dogs": 1})
    with pytest.raises(UsageError, match=r'"dogs" is no class of the training folder \(did you mean "dog"\?\)'):
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
        (tmp_path / "hollow", "no pictures found"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        for name in ("cat", "dog"):
            (tmp_path / "hollow" / name).mkdir(parents=True, exist_ok=True)
        with pytest.raises(UsageError, match=complaint) as caught:
            open_splits(config(root))
        assert str(root) in str(caught.value)
        assert "<class>" in str(caught.value)


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "eel").mkdir()
    with pytest.raises(UsageError, match="eel: no pictures found"):
        open_splits(config(tmp_path))
