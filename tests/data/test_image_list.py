"""Lists of images with labels, and tables of them: forms, faults, and files that are missing."""

import csv
import os
import shutil

import numpy as np
import pytest
from image_lists import cats_and_dogs, content, draw, make_lists, opened
from PIL import Image

from paddle_resnet.config import Config, DataConfig
from paddle_resnet.config.loading import check_config
from paddle_resnet.data.datasets.file_report import report_files
from paddle_resnet.data.datasets.found_files import natural_sort_key
from paddle_resnet.data.datasets.open_files import open_labelled
from paddle_resnet.errors import UsageError

EXPECTED = [cats_and_dogs(range(6)), cats_and_dogs(range(6, 8)), cats_and_dogs(range(8, 10))]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"line": "images/{i}.png\t{i%2}"},
        {"line": "images/{i}.png, {i%2}\r"},
        {"line": "./images//{i}.png;{i%2}"},
        {"line": "images\\{i}.png {i%2}"},
        {"line": ".\\images/{i}.png {i%2}"},
        {"line": "images/{i}.png {i%2}", "header": "# from 2026\n#\n"},
        {"line": "{i}.png {i%2}"},
        {"line": "{i} {i%2}"},
        {"line": "images/../images/{i} {i%2}"},
        {"line": "my images, all/{i}.png {i%2}", "folder": "my images, all"},
        {"line": '"images/{i}.png" "{i%2}"'},
        {"line": "images/{i}.png {i%2}", "header": "\ufeff\n"},
        {"line": "images/{i}.png {i%2}", "header": "path label\n"},
        {"line": "{i%2},x,images/{i}.png", "header": "label,note,path\n", "suffix": "csv"},
        {"line": '{i},"{i%2}"', "header": "id,label\n", "suffix": "csv"},
        {"line": "{i}\t{i%2}", "header": "Image_ID\tBreed\n", "suffix": "tsv"},
        {"line": "{i}.png,{i%2}", "header": "Image,Id\n", "suffix": "csv"},
        {"line": "7,{i}.png,{i%2}", "header": "id,image_name,label\n", "suffix": "csv"},
        {"line": "images/{i}.png,{i%2}", "suffix": "csv"},
        {"line": "images/{i}.png,{i%2},"},
        {"line": "images/{i}.png;{i%2};; "},
        {"line": '"images/{i}.png", "{i%2}"', "header": "path, label,\n", "suffix": "csv"},
        {"line": "images/{i}.png,{i%2},,", "header": "path,label\n", "suffix": "csv"},
        {"line": "images/{i}.png,{i%2},train", "header": "path,label,split\n", "suffix": "csv"},
        {"classes": "0 cat\n1 dog\n"},
        {"classes": "1,dog\n0,cat\n"},
    ],
)
def test_lists_are_read_in_any_form(tmp_path, layout):
    splits = opened(make_lists(tmp_path, **layout))
    assert splits.classes == ("cat", "dog")
    assert content(splits) == EXPECTED
    np.testing.assert_array_equal(
        splits.test.batch([1])[0], np.asarray(Image.open(tmp_path / splits.test.names([1])[0]))
    )


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (("cat", "dog"), "cat\ndog\n", ("cat", "dog")),
        (("a long name", "dog"), None, ("a long name", "dog")),
        (("10", "9"), None, ("9", "10")),  # natural order
        (("1", "2"), "1 tench, Tinca tinca\n2 goldfish\n", ("tench, Tinca tinca", "goldfish")),
        (("0", "1"), "1\n2\n", ("1", "2")),  # numbers of lines, not names: no line is called 0
        (("1", "2"), "1\n2\n", ("1", "2")),
        (("0", "1"), "dog\t1\n# a comment\ncat 0\n", ("cat", "dog")),
        (("0", "1"), "level 1\nlevel 0\n", ("level 1", "level 0")),
        (("1", "2"), "2 crane\n1 crane\n", ("1 crane", "2 crane")),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, classes, expected):
    make_lists(tmp_path, classes=classes)
    for split in ("train", "val", "test"):
        path = tmp_path / f"{split}.txt"
        lines = (line.split() for line in path.read_text().splitlines())
        path.write_text("".join(f"{name} {labels[int(label)]}\n" for name, label in lines))
    splits = opened(tmp_path)
    assert splits.classes == expected
    even, odd = sorted(expected, key=lambda name: (labels[0] != name, expected.index(name)))
    assert content(splits)[0] == cats_and_dogs(range(6), even, odd)


def test_order_of_classes_is_one_where_numbers_are_equal():
    names = ["c10", "c01", "c1", "c001", "c2", "01", "1"]
    expected = ["01", "1", "c001", "c01", "c1", "c2", "c10"]  # else that of the hash seed, as classes are a set first
    assert all(sorted(order, key=natural_sort_key) == expected for order in (names, names[::-1]))


def test_lines_may_end_as_on_an_old_macintosh(tmp_path):
    make_lists(tmp_path)
    for split in ("train", "val", "test"):
        path = tmp_path / f"{split}.txt"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert content(opened(tmp_path)) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [" ", ","])
def test_lists_may_have_the_encodings_and_line_ends_of_windows(tmp_path, encoding, separator):
    make_lists(tmp_path, classes=None)
    classes = ("\u732b", "\u72d7")
    for split in ("train", "val", "test"):
        path = tmp_path / f"{split}.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        text = "".join(f"{name}{separator}{classes[int(label)]}\r\n" for name, label in lines)
        path.write_bytes(text.encode(encoding))
    (tmp_path / "label.txt").write_bytes("\u732b\r\n\u72d7\r\n".encode(encoding))
    assert opened(tmp_path).classes == classes
    assert content(opened(tmp_path))[0] == cats_and_dogs(range(6), *classes)


def rewrite(name, text):
    return lambda root: (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


TXT_LISTS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            rewrite("val.txt", "images/0.png 2\n"),
            r"val\.txt: the label 2, of images/0\.png, .* 2 classes .*; expected 0 to 1",
        ),
        (rewrite("val.txt", "images/0.png -1\n"), r"val\.txt: the label -1, .*is none of the 2 classes"),
        (rewrite("val.txt", "images/0.png 0,1\n"), r"val\.txt: the label 0,1, .*is none of the 2 classes"),
        (rewrite("train.txt", "images/0.png 0\nimages/1.png 1\nimages/0.png 1\n"), "named twice, as 0 and as 1"),
        (rewrite("train.txt", "images/0.png 0\nimages/1.png\n"), r"line 2: images/1\.png: expected a path and a label"),
        (
            rewrite("train.txt", "images/0.png\nimages/1.png 1\n"),
            r"line 2: images/1\.png 1: expected a path and a label",
        ),
        (
            rewrite("train.txt", "images/0.png,cat\nimages/1.png,dog, black\n"),
            r"line 2: .*: expected a path and a label",
        ),
        (rewrite("train.txt", "images/0.png\tcat\nimages/1.png\tdog\t0.9\n"), r"line 2: .*: expected a path and a lab"),
        (
            rewrite("train.txt", "images/0.png 0 20 20 30\nimages/1.png 1 20 20 30\n"),
            r"line 1: .*: expected a path and",
        ),
        (rewrite("train.txt", "images/0.png 9,8,30,30,0 5,6,7,8,1\n"), r"line 1: .*: expected a path and a label"),
        (rewrite("train.txt", "images/0.png 0\n../1.png 1\n"), r"\.\./1\.png: lies outside of .*; set data\.root"),
        (rewrite("train.txt", "images/0.png 0\n/etc/1.png 1\n"), r"/etc/1\.png: lies outside of .*; set data\.root"),
        (rewrite("train.txt", "pics/0.png 0\npics/1.png 1\n"), r"pics/0\.png: no such file, nor any other of 2"),
        (rewrite("train.txt", "images/0.png\nimages/1.png\n"), "has no labels; expected"),
        (rewrite("train.txt", ""), "names no image"),
        (rewrite("train.txt", "images/0.png 0\n".encode("utf-16-le")), "is no text in UTF-8"),
        (rewrite("train.txt", "images/0.png 猫\nimages/1.png 狗\n".encode("gbk")), r"train\.txt: is no text in UTF-8"),
        (rewrite("train.txt", "图/猫.png 0\n图/狗.png 1\n".encode("gbk")), r"train\.txt: is no text in UTF-8"),
        (rewrite("label.txt", "猫\n狗\n".encode("gbk")), r"label\.txt: is no text in UTF-8; save it as UTF-8 \(Not"),
        (rewrite("train.txt", "images/0.png 0\nimages/1.png 1\nimages/2.png -1\n"), "the label -1, of images/2.png"),
        (
            rewrite("train.txt", "C:\\a\\0.png 0\nC:\\a\\1.png 1\n"),
            r"C:\\a\\0\.png: lies outside of .*; set data",
        ),
        (
            lambda root: [rewrite(f"{split}.txt", "images/0.png 1\nimages/1.png 2\n")(root) for split in TXT_LISTS],
            r"train\.txt: the label 2, .*expected 0 to 1, or lines '1 cat' there if labels count from 1",
        ),
        (rewrite("label.txt", "cat\ncat\n"), "the class cat is named twice"),
        (rewrite("label.txt", "id,name\n0,cat\n1,dog\n"), "expected a number in the first line too; remove it if"),
        (rewrite("label.txt", "cat\ndog\x1b[31m\n"), r"the class dog\\x1b\[31m is not printable UTF-8 text"),
        (rewrite("classes.txt", "cat\ndog\n"), r"classes\.txt and label\.txt may both name the classes"),
        (rewrite("train.csv", "a,b\n"), r"train\.(csv|txt) and train\.(csv|txt) are both named for the train split"),
        (
            lambda root: (root / "train.txt").unlink(),
            r"holds test\.txt and val\.txt but no training split; .*data\.train_list",
        ),
        pytest.param(
            lambda root: os.mkfifo(root / "val.lst") or (root / "val.txt").unlink(),
            r"val\.lst: cannot be read",
            marks=pytest.mark.posix,
        ),
        (shutil.rmtree, "no such folder; data.root is expected to hold train.txt"),
    ],
)
def test_faulty_list_is_one_line(tmp_path, change, message):
    root = make_lists(tmp_path / "lists")
    change(root)
    with pytest.raises(UsageError, match=message) as caught:
        opened(root)
    assert str(caught.value).isprintable() and str(caught.value).startswith(str(root))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,a,b\n1,0,1\n", "has no labels; expected lines 'path label', or the columns path and label, found id,a,b"),
        ("first,second\n1,0\n", "expected a first line with the columns path .* and label, found first,second"),
        ("id,label\n1\n", "line 2: 1: expected a path and a label"),
        ("id,label\n1,\n", "line 2: 1,: expected a path and a label"),
        ("id,label\n1,cat\n2,cat, white\n", "line 3: 2,cat,white: expected a path and a label, in quotes if"),
        ("id,label,\n1,cat,\n2,cat, white\n", "line 3: 2,cat,white: expected a path and a label, in quotes if"),
        ("id label\n1 cat\n2 big cat\n", "line 3: 2,big,cat: expected a path and a label, in quotes if"),
        (
            "id,label,Usage\n1,cat,Train\n2,cat,\n3,cat,Test\n",
            "line 4: the column usage tells splits apart, .* expected a list for each: data.train_list, ",
        ),
        ("id,label\n", "names no image"),
        ('id,label\n1,"x\n2,y\n', "line 4: unexpected end of data"),
    ],
)
def test_faulty_table_is_one_line(tmp_path, table, message):
    (tmp_path / "train.csv").write_text(table)
    with pytest.raises(UsageError, match=rf"train\.csv: {message}"):
        opened(tmp_path)


@pytest.mark.posix
def test_a_cell_of_a_table_may_hold_line_ends(tmp_path):
    names = [f"a\n{number}.png" for number in range(8)]
    for name in names:
        draw(tmp_path / name)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((name, "cd"[index % 2]) for index, name in enumerate(names))])
    splits = opened(tmp_path, test_fraction=0.25, validation_fraction=0.25)
    assert {name for part in content(splits) for name in part} == set(names)


def test_one_table_is_divided_and_unlabelled_ones_are_not_used(tmp_path, caplog):
    for number in range(20):
        draw(tmp_path / f"train/{number}.png")
    (tmp_path / "train.csv").write_text("id,breed\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20)))
    (tmp_path / "test.csv").write_text("id\n100\n")
    (tmp_path / "sample_submission.csv").write_text("id,a,b\n")
    splits = opened(tmp_path, test_fraction=0.2, validation_fraction=0.25)
    assert [len(each) for each in content(splits)] == [12, 4, 4]
    assert {name: label for part in content(splits) for name, label in part.items()} == cats_and_dogs(range(20), *"ab")
    assert caplog.records[0].getMessage().endswith("not used: test.csv (it has no labels), sample_submission.csv")


def test_lists_elsewhere_are_named_in_the_config(tmp_path):
    make_lists(tmp_path / "images_here", line="images/{i}.png {i%2}")
    lists = tmp_path / "lists"
    lists.mkdir()
    for old, new in (("train.txt", "a.txt"), ("val.txt", "b.txt"), ("test.txt", "c.txt"), ("label.txt", "d.txt")):
        (tmp_path / "images_here" / old).rename(lists / new)
    keys = {"train_list": "a.txt", "validation_list": "b.txt", "test_list": "c.txt", "class_names": "d.txt"}
    splits = opened(tmp_path / "images_here", **{key: str(lists / name) for key, name in keys.items()})
    assert content(splits) == EXPECTED
    shutil.move(tmp_path / "images_here/images", lists)
    assert content(opened(None, **{key: str(lists / name) for key, name in keys.items()})) == EXPECTED


def test_paths_may_leave_the_lists_folder_but_not_the_root(tmp_path):
    make_lists(tmp_path / "a", line="../b/images/{i}.png {i%2}")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a/images", tmp_path / "b")
    lists = {f"{key}_list": tmp_path / f"a/{name}.txt" for key, name in (("train", "train"), ("validation", "val"))}
    splits = opened(tmp_path, **lists)
    assert splits.train.names([0]) == ["b/images/0.png"]
    with pytest.raises(UsageError, match=r"\.\./b/images/0\.png: lies outside of .*; set data\.root"):
        opened(tmp_path / "a", **lists)


def test_missing_and_repeated_files_are_listed(tmp_path, caplog):
    root = make_lists(tmp_path / "lists")
    with (root / "train.txt").open("a") as file:
        file.write("images/gone.png 1\nimages/0.png 0\nimages/8.png 0\n")
    splits = opened(root)
    assert "train.txt: 1 file named twice, used once" in caplog.text
    report_files(splits, tmp_path)
    rows = list(csv.reader((tmp_path / "pictures.csv").read_text().splitlines()))[1:]
    assert [row[:2] for row in rows] == [["images/gone.png", "unreadable"], ["images/8.png", "copy, leakage"]]
    with pytest.raises(UsageError, match=r"gone\.png: no such file"):
        len(opened(root, strict=True).train)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{}\tlong name {}, (b)", "long name {}, (b)"),
        ("{},a long name {}", "a long name {}"),
        ('{}, "name, {}"', "name, {}"),
        ("{};'name; {}';", "name; {}"),
        ("{} name {}, (b; c)", "name {}, (b; c)"),
        ('{} "1 {}"', "1 {}"),
    ],
)
def test_a_label_may_hold_other_separators_and_its_own_in_quotes(tmp_path, line, expected):
    make_lists(tmp_path, line=line.format("images/{i}.png", "{i%2}"), classes=None)
    first, second = expected.format(0), expected.format(1)
    assert content(opened(tmp_path))[0] == cats_and_dogs(range(6), first, second)


def test_two_files_of_a_name_without_suffix_are_refused(tmp_path):
    """One may be the picture and the other its mask."""
    make_lists(tmp_path, line="images/{i} {i%2}")
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "4.jpg")
    with pytest.raises(
        UsageError, match=r"images/4: is images/4\.jpg or images/4\.png; write the suffix into the list"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["labels.txt", "train_labels.txt", "Label_List.TXT"])
@pytest.mark.parametrize("line", ["images/{i}.png {i%2}", "{i} {i%2}"])
def test_a_list_is_not_its_own_file_of_class_names(tmp_path, name, line):
    make_lists(tmp_path, line=line, classes=None)
    for old, new in (("train.txt", name), ("val.txt", "val_labels.txt"), ("test.txt", "test_labels.txt")):
        (tmp_path / old).rename(tmp_path / new)
    lists = {"train_list": tmp_path / name, "validation_list": tmp_path / "val_labels.txt"}
    splits = opened(tmp_path, test_list=tmp_path / "test_labels.txt", **lists)
    assert splits.classes == ("0", "1")
    assert content(splits) == [cats_and_dogs(numbers, "0", "1") for numbers in (range(6), range(6, 8), range(8, 10))]


def test_lists_of_other_images_are_no_class_names(tmp_path):
    make_lists(tmp_path, classes=None, header="path label\n")
    (tmp_path / "test.txt").rename(tmp_path / "test_labels.txt")
    (tmp_path / "val.txt").rename(tmp_path / "val_labels.txt")
    splits = opened(tmp_path, train_list=tmp_path / "train.txt", validation_list=tmp_path / "val_labels.txt")
    assert splits.classes == ("0", "1")
    measured = open_labelled(tmp_path / "test_labels.txt", DataConfig(), 8, ["cat", "dog"])
    assert measured.labels.tolist() == [0, 1]
    with pytest.raises(UsageError, match=r"test_labels\.txt: lists images; expected names of classes"):
        opened(tmp_path, class_names=tmp_path / "test_labels.txt")


def test_class_names_are_found_in_any_case(tmp_path):
    make_lists(tmp_path, classes=None)
    (tmp_path / "Labels.txt").write_text("cat\ndog\n")
    assert opened(tmp_path).classes == ("cat", "dog")


def test_class_without_images_is_kept(tmp_path):
    splits = opened(make_lists(tmp_path, classes="cat\ndog\neel\n"))
    assert splits.classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=image_names", "data.pattern=(?P<class>[a-z]"], "is no regular expression"),
        (["data.source=image_names", "data.pattern=([a-z]+)[.]"], r"has no group \(\?P<class>"),
        (["data.source=image_names", f"data.pattern=(?P<class>{'a' * 500})"], "more than 500 characters"),
        (["data.source=image_names"], "pattern and source image_names need each other"),
        (["data.pattern=(?P<class>.)"], "pattern and source image_names need each other"),
        (["data.source=image_names", "data.root=null", "data.pattern=(?P<class>.)"], "image_names needs root"),
        (["data.source=image_list", "data.root=null"], "image_list needs train_list, or root"),
        (["data.source=image_list", "data.test_list=x.txt"], "image_list needs train_list"),
        (["data.train_list=x.txt"], "train_list is for sources image_list and image_shards, not for digits"),
    ],
)
def test_config_of_lists_and_names_is_checked(overrides, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_config(Config, {"name": "x", "data": {"root": "here"}}, overrides, "config")
    assert len(str(caught.value)) < 500
