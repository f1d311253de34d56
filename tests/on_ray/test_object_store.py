"""Pictures named by URIs: found by the rules of folders, and decoded as files are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/ray.txt)")

from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference.find_pictures import find_pictures
from paddle_resnet.on_ray.object_store import decode_object, find_objects

NAMES = ("b/2.PNG", "b/c/1.png", "a.png", "z.jpg", "b/.hidden.png", "b/words.txt", "b/film.mov", ".git/c.png")
ODD_NAMES = ("plain.png", "my pictures/a b?#%20.png", "ü/红.png")


def test_objects_are_found_as_files_are(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    skipped, expected = Counter(), Counter()
    found = [str(each) for each in find_objects(tmp_path.as_uri(), skipped)]
    assert found == [each.as_uri() for each in find_pictures([tmp_path], expected)]
    assert skipped == expected == {".mov": 1}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_object_is_decoded_by_the_uri_that_was_found(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)).save(file)
    (uri,) = find_objects(tmp_path.as_uri(), Counter())
    np.testing.assert_array_equal(decode_object(uri, 18, 16), decode_image(file, 18, 16))
    assert [*find_objects(uri, Counter())] == [uri]


@pytest.mark.parametrize("uri", ["nosuch://bucket/a.png", "file:///no/such/a.png"])
def test_what_cannot_be_read_is_named(uri):
    ((found,), decoded) = find_objects(uri, Counter()), decode_object(uri, 16, 16)
    assert found.reason.startswith(f"{uri}: cannot be read (") and decoded.reason.startswith(f"{uri}: cannot be read (")


def test_folder_without_pictures_is_named(tmp_path):
    (found,) = find_objects(tmp_path.as_uri(), Counter())
    assert found.reason.startswith(f"{tmp_path.as_uri()}: no pictures in this folder")
