"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read from the official archive without unpacking it."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.data.datasets.bounded_tar import BoundedTar
from paddle_resnet.data.datasets.found_files import some_of
from paddle_resnet.data.splits import OfficialSplits
from paddle_resnet.download import OfficialFile, ProgressFn, check_md5, fetch_if_missing
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import open_regular
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.paths import paddle_cache

MAX_MEMBER_BYTES = 160 << 20  # CIFAR-100's training images take 155 MB
MAX_ARCHIVE_BYTES = 256 << 20
"""Unpacked, either takes 186 MB. A zip bomb is longer, in one member, one header or millions of members."""
MAX_MEMBERS = 100


@dataclass(frozen=True)
class CifarEdition:
    """The files and keys of CIFAR-10 or CIFAR-100."""

    archive: OfficialFile
    folder: str
    labels_key: bytes
    names_key: bytes
    classes: int
    md5_of_members: Mapping[str, str]  # the files of training images, that of test images, and the classes' names


_ADDRESS = "https://dataset.bj.bcebos.com/cifar/"
CIFAR10 = CifarEdition(
    archive=OfficialFile(f"{_ADDRESS}cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    folder="cifar-10-batches-py",
    labels_key=b"labels",
    names_key=b"label_names",
    classes=10,
    md5_of_members={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)

CIFAR100 = CifarEdition(
    archive=OfficialFile(f"{_ADDRESS}cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    folder="cifar-100-python",
    labels_key=b"fine_labels",
    names_key=b"fine_label_names",
    classes=100,
    md5_of_members={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)


def load_cifar(
    edition: CifarEdition, root: Path | None, verify: bool = True, progress: ProgressFn | None = None
) -> OfficialSplits:
    """Read all images and labels.

    Args:
        edition: `CIFAR10` or `CIFAR100`.
        root: the archive, its folder (into which it is downloaded), the unpacked folder, or the parent of that;
            None: Paddle's own cache.
        verify: refuse files with another MD5 than the official one.
        progress: called with (bytes so far, bytes in all) during the download.

    Raises:
        UsageError: no network, another MD5, a truncated or damaged file, contents that are not CIFAR's.
    """
    *train, test, meta = edition.md5_of_members
    parts: dict[str, tuple[Pixels, Indices]] = {}
    classes: tuple[str, ...] = ()
    root = root or paddle_cache("dataset/cifar")
    for name, where, content in _members(edition, root, verify, progress):
        if name == meta:
            classes = _read_class_names(content, edition, where)
        else:
            parts[name] = _read_images(content, edition, where)
    missing = [name for name in (*train, test) if name not in parts]
    if missing or not classes:
        raise UsageError(
            f"{root}: holds no {(missing or [meta])[0]}: not the complete "
            f"{edition.archive.name}; get {edition.archive.url} again"
        )
    return OfficialSplits(
        np.concatenate([parts[name][0] for name in train]),
        np.concatenate([parts[name][1] for name in train]),
        *parts[test],
        classes,
    )


def _members(
    edition: CifarEdition, root: Path, verify: bool, progress: ProgressFn | None
) -> Iterator[tuple[str, str, dict[bytes, Any]]]:
    """Yield (member, its path for errors, its dictionary), one in memory at a time."""
    unpacked = _unpacked_folder(edition, root)
    if unpacked is not None:
        for name, md5 in edition.md5_of_members.items():
            if verify:
                check_md5(unpacked / name, md5)
            yield name, str(unpacked / name), _read_dictionary(_read_unpacked(unpacked / name), str(unpacked / name))
        return
    if root.is_file():
        archive = root
        if verify:
            check_md5(archive, edition.archive.md5)
    else:
        archive = fetch_if_missing(edition.archive, root, verify, progress)
    for name, content in _read_archive(archive, set(edition.md5_of_members)):
        where = f"{archive}: {name}"
        yield name, where, _read_dictionary(content, where)


def _unpacked_folder(edition: CifarEdition, root: Path) -> Path | None:
    """Return the unpacked folder at or in `root`, if any; raise `UsageError` for a part of it without the archive."""
    for folder in (root, root / edition.folder):
        missing = [name for name in edition.md5_of_members if not (folder / name).is_file()]
        if not missing:
            return folder
        # One file alone may be the user's: those of CIFAR-100 are called train, test and meta.
        is_begun = folder.name == edition.folder or len(missing) < len(edition.md5_of_members) - 1
        if is_begun and folder.is_dir() and not (root / edition.archive.name).is_file():
            raise UsageError(
                f"{folder}: holds no {some_of(missing)} of {edition.archive.name}; unpack it again, or remove the "
                "folder, so that it is downloaded"
            )
    return None


def _read_unpacked(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_MEMBER_BYTES:
        raise UsageError(f"{path}: holds more than {MAX_MEMBER_BYTES:,} bytes, which is not CIFAR; unpack it again")
    return content


def _read_archive(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted members in the archive's order."""
    try:
        with _BoundedGzip(path) as unpacked, BoundedTar(fileobj=unpacked) as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
                name = PurePosixPath(member.name).name
                if name not in wanted or not member.isreg() or member.issparse() or member.size > MAX_MEMBER_BYTES:
                    continue
                file = archive.extractfile(member)
                content = file.read() if file else b""
                if len(content) < member.size:
                    raise EOFError(f"{name} is cut short")
                yield name, content
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:  # ValueError: numbers in headers
        reason = shown(" ".join(str(error).split()), 200)
        raise UsageError(
            f"{path}: truncated or damaged ({reason}); delete it to download it again, or put a whole copy there"
        ) from error


class _BoundedGzip(gzip.GzipFile):
    """An archive that raises an error beyond the dataset's length, also as it seeks: gzip unpacks what it skips."""

    def seek(self, offset: int, whence: int = 0) -> int:
        self._require_within(offset)
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        self._require_within(self.tell() + (size or 0))
        return super().read(size)

    @staticmethod
    def _require_within(end: int) -> None:
        if not 0 <= end <= MAX_ARCHIVE_BYTES:
            raise tarfile.ReadError(f"it is longer than {MAX_ARCHIVE_BYTES:,} bytes")


def _read_dictionary(pickled: bytes, where: str) -> dict[bytes, Any]:
    content, _ = safe_pickle.load_at(pickled, 0, where, encoding="bytes")
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected a dictionary as CIFAR's authors wrote it, found {type(content).__name__}")
    return content


def _read_images(content: dict[bytes, Any], edition: CifarEdition, where: str) -> tuple[Pixels, Indices]:
    """Turn rows of 1024 red, 1024 green and 1024 blue values into ``[n, 32, 32, 3]``."""
    rows = content.get(b"data")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
        raise UsageError(f"{where}: expected b'data' as uint8 of shape [n, 3072]; this is not a CIFAR file")
    if not len(rows):
        raise UsageError(f"{where}: holds no images; the file is damaged: get {edition.archive.url} again")
    labels = content.get(edition.labels_key)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < edition.classes for label in labels):
        raise UsageError(
            f"{where}: expected {edition.labels_key!r} as a list of classes 0..{edition.classes - 1}; "
            "this is another dataset"
        )
    if len(labels) != len(rows):
        raise UsageError(f"{where}: {len(rows)} images but {len(labels)} labels; the file is damaged")
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, dtype=np.int64)


def _read_class_names(content: dict[bytes, Any], edition: CifarEdition, where: str) -> tuple[str, ...]:
    names = content.get(edition.names_key)
    names = names if isinstance(names, list) else []
    short = all(isinstance(name, bytes | str) and len(name) <= 100 for name in names)
    if len(names) != edition.classes or not short:
        raise UsageError(f"{where}: expected {edition.classes} class names under {edition.names_key!r}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)
