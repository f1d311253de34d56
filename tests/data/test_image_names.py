"""Splits by the names of folders, classes by the names of files, and names whose letters have two forms."""

import csv
import ntpath
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest
from image_lists import cats_and_dogs, content, draw, make_lists, opened

from paddle_resnet.config import DataConfig
from paddle_resnet.data.datasets import image_list
from paddle_resnet.data.datasets.file_report import report_files
from paddle_resnet.data.datasets.found_files import split_of
from paddle_resnet.data.datasets.open_files import open_labelled
from paddle_resnet.errors import UsageError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train", "train"), ("Training", "train"), ("flowers_TRAIN", "train"), ("train_set", "train")),
        *(("val", "validation"), ("Valid", "validation"), ("validation", "validation"), ("dev", "validation")),
        *(("test", "test"), ("TESTING", "test"), ("my-test", "test"), ("test_list", "test")),
        *(("trains", None), ("latest", None), ("train_extra_list", None), ("cat", None), ("test1", None)),
    ],
)
def test_split_is_told_by_its_name(name, split):
    assert split_of(name) == split


def fill(root, *splits):
    for split in splits:
        for number in range(8):
            draw(root / split / ("cat", "dog")[number % 2] / f"{number}.png")
    return root


def test_folders_of_splits_may_have_any_usual_name(tmp_path, caplog):
    fill(tmp_path, "Training", "flowers_valid", "TEST", "extra")
    (tmp_path / "labels.csv").touch()
    splits = opened(tmp_path, "image_folder")
    assert splits.classes == ("cat", "dog")
    assert [names.names([0])[0] for names in (splits.train, splits.validation, splits.test)] == [
        "Training/cat/0.png",
        "flowers_valid/cat/0.png",
        "TEST/cat/0.png",
    ]
    assert caplog.messages == [f"{tmp_path}: not used: extra, labels.csv"]


def test_split_without_class_folders_says_why_it_is_unused(tmp_path, caplog):
    fill(tmp_path, "train")
    draw(tmp_path / "test/1.png")
    opened(tmp_path, "image_folder")
    assert caplog.messages == [f"{tmp_path}: not used: test (no class folders in it)"]


def test_doubled_folders_of_splits_are_entered(tmp_path, caplog):
    fill(tmp_path, "seg_train/seg_train", "seg_test/seg_test", "seg_pred/seg_pred")
    splits = opened(tmp_path, "image_folder")
    assert splits.classes == ("cat", "dog")
    assert splits.train.names([0]) + splits.test.names([0]) == [
        "seg_train/seg_train/cat/0.png",
        "seg_test/seg_test/cat/0.png",
    ]
    assert caplog.messages == [f"{tmp_path}: not used: seg_pred"]


def test_folders_of_archives_and_systems_are_no_classes(tmp_path):
    fill(tmp_path, ".")
    for name in ("__MACOSX", "@eaDir", "lost+found", "System Volume Information"):
        draw(tmp_path / name / "cat/0.png")
    assert opened(tmp_path, "image_folder").classes == ("cat", "dog")


def test_images_below_a_class_are_told_of(tmp_path, caplog):
    fill(tmp_path / "animals", ".")
    fill(tmp_path / "plants", ".")
    assert opened(tmp_path, "image_folder").classes == ("animals", "plants")
    assert caplog.messages == [
        f"{tmp_path}: subfolders of a class hold 16 images of that class, e.g. animals/cat/0.png"
    ]


def test_class_folder_that_links_to_nothing_is_reported(tmp_path):
    fill(tmp_path, ".")
    (tmp_path / "eel").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UsageError, match=r"eel: is a link to nothing; mend or remove it"):
        opened(tmp_path, "image_folder", strict=True)
    assert [each.reason for each in opened(tmp_path, "image_folder").train.table.skipped.values()] == [
        f"{tmp_path / 'eel'}: is a link to nothing; mend or remove it"
    ]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "training"], "train and training are both named for the train split; rename or move one"),
        (["val", "Test"], "holds Test and val but no training split; expected train beside them"),
        (["photos/train", "photos/test"], r'one class folder only, "photos".*; did you mean data\.root=.*photos\?'),
    ],
)
def test_unclear_folders_of_splits_are_refused(tmp_path, splits, message):
    with pytest.raises(UsageError, match=message):
        opened(fill(tmp_path, *splits), "image_folder")


def test_folder_without_classes_hints_at_the_other_sources(tmp_path):
    make_lists(tmp_path / "lists")
    draw(tmp_path / "flat/cat.1.png")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/train-0.tar").touch()
    for name, source in (("lists", "image_list"), ("flat", "image_names"), ("shards", "image_shards")):
        with pytest.raises(UsageError, match=f"class folder.*; or set data.source={source} for"):
            opened(tmp_path / name, "image_folder")


def test_split_names_alone_are_no_classes(tmp_path, caplog):
    for name in ("train", "val"):
        draw(tmp_path / name / "0.png")
    for source, files in (("image_names", []), ("image_list", ["labels.csv"])):
        [(tmp_path / name).touch() for name in files]
        with pytest.raises(UsageError, match=f"train: holds pictures but no class folders: .*source={source}"):
            opened(tmp_path, "image_folder")
    draw(tmp_path / "bus/0.png")  # vehicles, one of which is a train
    for name in ("train", "val", "bus"):
        for number in range(1, 5):
            draw(tmp_path / name / f"{number}.png")
    assert opened(tmp_path, "image_folder").classes == ("bus", "train", "val")
    assert "warning: " in caplog.text and "train, val hold no class folders and are taken for classes" in caplog.text


def test_names_of_files_tell_the_class(tmp_path, caplog):
    for number in range(10):
        for name in ("cat", "dog"):
            draw(tmp_path / "train" / f"{name}.{number}.png")
    draw(tmp_path / "train/sub/1234.png")
    draw(tmp_path / "Val/x_dog.0.png")
    draw(tmp_path / "test1/1.png")
    draw(tmp_path / "testing/1.png")
    splits = opened(tmp_path, "image_names", pattern=r"(?P<class>[a-z]+)[.]\d")
    assert content(splits)[0] == {f"{name}.{i}.png": name for name in ("cat", "dog") for i in range(10)}
    assert content(splits)[1] == content(splits)[2] == {"x_dog.0.png": "dog"}
    assert "not used: testing (no name in it matches data.pattern), test1" in caplog.text
    report_files(splits, tmp_path)
    rows = list(csv.reader((tmp_path / "pictures.csv").read_text().splitlines()))[1:]
    assert rows[0][0] == "train/sub/1234.png" and rows[0][2].endswith("1234.png: its name does not match data.pattern")
    with pytest.raises(UsageError, match="its name does not match"):
        opened(tmp_path, "image_names", pattern=r"(?P<class>[a-z]+)[.]\d", strict=True)
    with pytest.raises(UsageError, match=r"holds no image with a class; .*cat\.0\.png: its name does not match"):
        opened(tmp_path / "train", "image_names", pattern="(?P<class>eel)")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("train\\a.png", "train/a.png"),
        ("D:\\data\\train\\a.png", "train/a.png"),
        ("d:/data/train/a.png", "train/a.png"),
        ("./train//a.png", "train/a.png"),
        ("..\\data\\train\\a.png", "train/a.png"),
        ("E:\\other\\a.png", None),
        ("..\\a.png", None),
    ],
)
def test_paths_of_lists_on_windows(monkeypatch, given, name):
    monkeypatch.setattr(image_list, "os", SimpleNamespace(name="nt", path=ntpath, sep="\\"))
    root, path = PureWindowsPath("D:/data"), PureWindowsPath("D:/data/train.txt")
    if name is None:
        with pytest.raises(UsageError, match="lies outside of D:"):
            image_list._normalized(given, root, path)
    else:
        assert image_list._normalized(given, root, path) == name


# --- the same letters in two forms

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_a_class_is_one_whatever_form_its_accents_have(tmp_path):
    """Files packed on macOS have decomposed names; those written elsewhere mostly composed ones."""
    pictures = tmp_path / "pictures"
    for split, name in (("train", COMPOSED), ("train", DECOMPOSED), ("val", DECOMPOSED), ("test", COMPOSED)):
        draw(pictures / split / name / f"{split}{len(name)}.png")
        draw(pictures / split / "tea" / "9.png")
    found = content(opened(pictures, "image_folder"))
    of_both = {f"train{len(name)}.png": COMPOSED for name in (COMPOSED, DECOMPOSED)}
    assert found[0] == {**of_both, "9.png": "tea"}
    assert found[1]["val5.png"] == COMPOSED and found[2]["test4.png"] == COMPOSED

    lists = make_lists(tmp_path / "lists", classes=f"{DECOMPOSED}\ntea\n")
    assert content(opened(lists))[2] == cats_and_dogs((8, 9), COMPOSED, "tea")
    for split, name in (("train", COMPOSED), ("val", DECOMPOSED), ("test", DECOMPOSED)):
        text = (lists / f"{split}.txt").read_text()
        (lists / f"{split}.txt").write_text(text.replace("png 0", f"png {name}").replace("png 1", "png tea"))
    assert content(opened(lists))[1:] == [
        cats_and_dogs((6, 7), COMPOSED, "tea"),
        cats_and_dogs((8, 9), COMPOSED, "tea"),
    ]


def test_a_run_of_decomposed_classes_is_measured_on_composed_ones(tmp_path):
    draw(tmp_path / COMPOSED / "1.png")
    (tmp_path / "list.txt").write_text(f"{COMPOSED}/1.png {COMPOSED}\n", encoding="utf-8")
    config = DataConfig.model_validate({"source": "image_folder", "root": tmp_path, "image_size": 8})
    for path in (tmp_path, tmp_path / "list.txt"):
        assert open_labelled(path, config, 8, ["tea", DECOMPOSED]).labels.tolist() == [1]


def test_a_list_finds_files_whose_names_have_the_other_form(tmp_path):
    """Names from macOS are decomposed; archives and editors may compose those of the list or of the files."""
    for folder, listed, stored in ((1, COMPOSED, DECOMPOSED), (2, DECOMPOSED, COMPOSED)):
        root = tmp_path / str(folder)
        for number in range(3):
            draw(root / stored / f"{number} {stored}.png")
        lines = "".join(f"{listed}/{number} {listed}.png tea\n" for number in range(3))
        (root / "train.txt").write_text(lines, encoding="utf-8")
        config = DataConfig.model_validate({"source": "image_list", "root": root, "image_size": 8})
        found = image_list.find_image_list(root, config).parts["train"].names
        assert len(found) == 3 and all((root / name).is_file() for name in found)
