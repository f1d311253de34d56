"""Pictures named by URIs, in object stores and distributed file systems: found and decoded as files are.

pyarrow knows ``s3://``, ``gs://``, ``abfs://``, ``hdfs://`` and ``file://``. It takes credentials from their usual
places, and options from the part of a URI after ``?``. Other characters than letters, digits and ``_.-~/`` are
percent-encoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pyarrow import fs

from paddle_resnet.errors import UsageError
from paddle_resnet.images import Pixels
from paddle_resnet.images.decode import decode_image
from paddle_resnet.images.find import EXTENSIONS, check_suffix, is_hidden
from paddle_resnet.images.image_file import MAX_BYTES
from paddle_resnet.inference.find_pictures import Unreadable


def find_objects(uri: str, skipped: Counter[str]) -> Iterator[str | Unreadable]:
    """Yield the URIs of pictures: the object itself, or all below it, by the rules and in the order of folders.

    Patterns are not expanded. `skipped` counts the other objects by suffix, as in `find_pictures`.
    """
    address, question_mark, options = uri.partition("?")
    empty = True
    try:
        store, root = _open_store(uri)
        if store.get_file_info(root).type == fs.FileType.File:
            yield uri
            return
        for path in _walk(store, root):
            checked = check_suffix(Path(path))
            if isinstance(checked, Path):
                empty = False
                name = quote(path.removeprefix(root).lstrip("/"))
                yield f"{address.rstrip('/')}/{name}{question_mark}{options}"
            elif checked is not None:
                skipped[checked.suffix or ""] += 1
        if empty:
            yield Unreadable(Path(uri), f"{uri}: no pictures in this folder; expected {', '.join(EXTENSIONS)}")
    except (OSError, ValueError) as error:
        yield _unreadable(uri, error)


def decode_object(uri: str, resize: int, image_size: int) -> Pixels | Unreadable:
    """Decode the picture of a URI as `decode_image` does; return the reason where it cannot be read."""
    try:
        store, path = _open_store(uri)
        with store.open_input_file(path) as file:
            if file.size() > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES // 1_000_000} MB")
            content = file.read()
        return decode_image(content, resize, image_size, uri)
    except UsageError as error:  # no picture
        return Unreadable(Path(uri), str(error))
    except (OSError, ValueError) as error:
        return _unreadable(uri, error)


def _walk(store: fs.FileSystem, folder: str) -> Iterator[str]:
    """Yield the paths of all files, folder by folder in the order of names, without hidden ones."""
    found = [each for each in store.get_file_info(fs.FileSelector(folder)) if not is_hidden(each.base_name)]
    found.sort(key=lambda each: each.base_name)
    yield from (each.path for each in found if each.type == fs.FileType.File)
    for each in found:
        if each.type == fs.FileType.Directory:
            yield from _walk(store, each.path)


def _unreadable(uri: str, error: Exception) -> Unreadable:
    return Unreadable(Path(uri), f"{uri}: cannot be read ({str(error).partition(chr(10))[0]})")


def _open_store(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI, and the path in it."""
    parts = urlsplit(uri, allow_fragments=False)
    store, root = _open_root(f"{parts.scheme}://{parts.netloc}/{'?' if parts.query else ''}{parts.query}")
    return store, f"{root.rstrip('/')}/{unquote(parts.path).strip('/')}".rstrip("/")


@lru_cache(64)
def _open_root(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a bucket, which its pictures share: it holds connections and credentials."""
    return fs.FileSystem.from_uri(uri)
