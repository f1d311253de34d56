"""Which pictures stand below a folder: for training and for prediction alike."""

from __future__ import annotations

import pytest

from paddle_resnet.data.walk import pictures_below
from paddle_resnet.deploy.find_pictures import find_pictures


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


def test_known_suffixes_in_the_order_of_names_without_hidden_ones(folder):
    assert names(folder, pictures_below(folder)) == ["a.jpg", "b.PNG", "sub/c.webp"]


def test_linked_folders_count_and_a_link_into_itself_does_not_repeat_them(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f.gif").write_bytes(b"")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "sub" / "up").symlink_to(folder)
    expected = ["a.jpg", "b.PNG", "linked/f.gif", "sub/c.webp"]
    assert names(folder, pictures_below(folder)) == expected
    assert names(folder, find_pictures([folder])) == expected
