"""Finding the image files below a folder, for training and for prediction."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from paddle_resnet.images.decode import FORMATS
from paddle_resnet.images.find import EXTENSIONS, SkippedFile, find_image_files, summarize_skipped
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("b.PNG", "a.jpg", "sub/c.webp", ".hidden/d.jpg", "sub/.e.jpg", "notes.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def names(folder, found):
    return [str(path.relative_to(folder)) for path in found]


def test_known_suffixes_are_found_in_order(folder):
    assert names(folder, find_image_files(folder)) == ["a.jpg", "b.PNG", "sub/c.webp"]


def test_linked_folders_are_entered_once(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f.gif").write_bytes(b"")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "sub" / "up").symlink_to(folder)
    expected = ["a.jpg", "b.PNG", "linked/f.gif", "sub/c.webp"]
    assert names(folder, find_image_files(folder)) == expected
    assert names(folder, find_pictures([folder])) == expected


def test_a_link_to_the_folder_of_all_classes_is_not_entered(tmp_path):
    for name in ("photos/cat/1.jpg", "photos/dog/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "photos" / "cat" / "up").symlink_to("..")
    (tmp_path / "photos" / "cat" / "top").symlink_to(tmp_path)
    cat = tmp_path / "photos" / "cat"
    assert names(cat, find_image_files(cat)) == ["1.jpg"]
    (tmp_path / "short").symlink_to(cat)
    assert names(tmp_path, find_image_files(tmp_path / "short")) == ["short/1.jpg"]
    (gone,) = find_image_files(tmp_path / "gone" / "cat")
    assert gone.reason.endswith("cat: this folder cannot be read (No such file or directory)")


def test_every_suffix_of_a_readable_format_is_known():
    """Pillow's own list, less PFM, whose floating-point pixels are of no known range, and films of AVIF."""
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert readable - {".pfm", ".avifs"} <= set(EXTENSIONS)


@pytest.fixture
def unreadable_folder(monkeypatch):
    """Make folders of this name unreadable, also for root."""

    def scandir(path, scan=os.scandir):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_unreadable_folder_is_named_in_order(folder, unreadable_folder):
    *pictures, lost = find_pictures([folder])
    assert names(folder, pictures) == ["a.jpg", "b.PNG"]
    assert isinstance(lost, Unreadable)
    assert lost.reason == f"{folder}/sub: this folder cannot be read (Permission denied)"


def test_a_folder_that_vanishes_is_named(folder):
    found = find_image_files(folder)
    assert next(found).name == "a.jpg"
    (folder / "sub" / "c.webp").unlink()
    (folder / "sub" / ".e.jpg").unlink()
    (folder / "sub").rmdir()
    assert [str(each.path.relative_to(folder)) for each in found if isinstance(each, SkippedFile)] == ["sub"]


def test_link_to_itself_is_a_file(tmp_path):
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "gone")
    assert names(tmp_path, find_image_files(tmp_path)) == ["gone.jpg", "self.jpg"]


def test_skipped_files_are_counted_by_suffix(folder):
    for name in ("a.HEIC", "b.heic", "sub/x.cr2", "README", "Thumbs.db", "labels.CSV", "c.xml", ".DS_Store"):
        (folder / name).touch()
    counts = Counter()
    assert all(isinstance(found, Path) for found in find_pictures([folder], counts))
    assert counts == {".heic": 2, ".cr2": 1, "": 1}
    assert summarize_skipped(counts) == (
        "4 files are left out by suffix: 2 .heic (convert them, e.g. to JPEG), 1 without one, 1 .cr2"
    )
    heic = next(each for each in find_image_files(folder) if isinstance(each, SkippedFile) and each.suffix == ".heic")
    assert heic.reason.endswith(
        'a.HEIC: skipped, the suffix ".heic" is not one of an image that can be read; convert it, e.g. to JPEG'
    )


@pytest.mark.posix
@pytest.mark.parametrize("pattern", ["**/*", "**/*.webp", "*"])
def test_pattern_reports_pipes_suffixes_and_unreadable_folders(folder, unreadable_folder, pattern):
    os.mkfifo(folder / "pipe.webp")
    (folder / "x.cr2").touch()
    counts = Counter()
    found = list(find_pictures([folder / pattern], counts))
    assert folder / "pipe.webp" in found  # which decoding names
    assert [each.path for each in found if isinstance(each, Unreadable)] == [folder / "sub"]
    assert counts == ({} if pattern.endswith(".webp") else {".cr2": 1})
