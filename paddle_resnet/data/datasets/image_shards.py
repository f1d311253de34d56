"""Images in tar archives, as WebDataset has them: ``0123.jpg`` beside ``0123.cls``, in any number of shards.

The ``webdataset`` package shuffles a stream through a buffer: the order depends on the number of workers, and a place
in it cannot be restored. So the archives' headers are read once, and each image is then read at its place, in a seeded
order as files of their own are.
"""

from __future__ import annotations

import io
import itertools
import mmap
import os
import re
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from paddle_resnet.config.schema import DataConfig
from paddle_resnet.config.value_types import SplitName
from paddle_resnet.console import logger
from paddle_resnet.data.datasets.bounded_tar import BoundedTar
from paddle_resnet.data.datasets.file_report import file_splits, report_left_out
from paddle_resnet.data.datasets.file_split import FileSplit, read_source
from paddle_resnet.data.datasets.found_files import FoundFiles, LabelledFiles, by_split, class_name, split_of, visible
from paddle_resnet.data.datasets.image_list import class_list, relative_name, with_class_names
from paddle_resnet.data.splits import Split, Splits
from paddle_resnet.errors import UsageError, counted, printable, shown
from paddle_resnet.files import open_regular, write_folder
from paddle_resnet.images.decode import suffix_of
from paddle_resnet.images.find import SkippedFile, has_image_suffix, is_hidden
from paddle_resnet.images.image_file import FilePart
from paddle_resnet.text_files import write_text

LAYOUT = "train-000000.tar, train-000001.tar, ... and, if there are any, val-*.tar and test-*.tar"
BLOCK = 512
MAX_LABEL = 200  # bytes of a label
MAX_SHARDS = 100_000
CUT_SHORT = "it is cut short"
_NOT_ZERO = re.compile(rb"[^\0]")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_Member = tuple[str, int, int]  # name, first byte and number of bytes


def find_image_shards(root: Path, config: DataConfig) -> FoundFiles:
    """Find the images in the shards that the config names, or in those of `root` that are named for a split.

    Raises:
        UsageError: no shards, a file that is no tar archive, or an image without a label.
    """
    named = {split: _expand(pattern) for split, pattern in config.lists.items()}
    shards, unused = (named, []) if named else _shards_in(root)
    parts = {split: _find_images(root, files) for split, files in shards.items()}
    return with_class_names(root, parts, config.class_names, unused)


def _expand(pattern: Path) -> list[Path]:
    """Return the files of ``train-{000000..000146}.tar``."""
    found = _RANGE.search(str(pattern))
    if found is None:
        return [pattern]
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MAX_SHARDS:
        raise UsageError(f"{pattern}: expected a range such as {{000000..000146}}")
    width = len(found[1])
    return [Path(_RANGE.sub(f"{number:0{width}d}", str(pattern), count=1)) for number in range(first, last + 1)]


def _shards_in(root: Path) -> tuple[dict[SplitName, list[Path]], list[str]]:
    """Return the archives that are named for a split, and the names of the others."""
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {LAYOUT}")
    series: dict[str, list[Path]] = defaultdict(list)
    for entry in visible(root):
        if entry.name.endswith(".tar"):
            series[re.sub(r"[-_.]?\d*\.tar$", "", entry.name)].append(Path(entry.path))
    found = by_split(root, [name for name in series if split_of(name)])
    if not found:
        raise UsageError(f"{root}: holds no shards; expected {LAYOUT}, or data.train_list")
    unused = [path.name for name, paths in series.items() if name not in found.values() for path in paths]
    return {split: series[name] for split, name in found.items()}, unused


def _missing_shards(shards: list[Path]) -> Iterator[SkippedFile]:
    """Yield the first one, if the numbers of a series have gaps."""
    found = {int(end[1]): end for path in shards if (end := re.search(r"(\d{1,18})\.tar$", str(path)))}
    missing = max(found, default=0) - min(found, default=0) + 1 - len(found)
    if found and missing > 0:
        first = next(number for number in itertools.count(min(found)) if number not in found)
        before = found[first - 1]
        path = Path(f"{before.string[: before.start()]}{first:0{len(before[1])}d}.tar")
        lack = f"{counted(missing, 'shard')} of the series missing, the first: {shown(path.name)}; copy it there too"
        yield SkippedFile(path, f"{printable(str(path.parent))}: {lack}")


def _find_images(root: Path, shards: list[Path]) -> LabelledFiles:
    paths = [_name_below(root, shard) for shard in shards]
    shards = [root / path for path in paths]
    part = LabelledFiles(shards[0].parent, skipped=[*_missing_shards(shards)])
    for shard, path in zip(shards, paths, strict=True):
        for (name, start, size), label in _samples(shard, part.skipped):
            part.names.append(FilePart(path, start, size, name).as_name())
            part.labels.append(sys.intern(class_name(label)))
    return part


def _name_below(root: Path, shard: Path) -> str:
    path = relative_name(shard, root)
    if path.partition("/")[0] == "..":
        raise UsageError(f"{shard}: lies outside of {root}; set data.root to a folder that holds all shards")
    if not path.endswith(".tar") or ".tar/" in path:  # which ends the shard's name in `FilePart.as_name`
        raise UsageError(f"{shard}: expected a name that ends in .tar, in a folder whose name does not; rename it")
    return path


def _samples(shard: Path, skipped: list[SkippedFile]) -> Iterator[tuple[_Member, str]]:
    """Yield the image and the label of each sample, whose files follow each other and have one name before the dot.

    Labels without an image that can be read are `skipped`.
    """
    labels: dict[str, str] = {}
    is_empty = True
    try:
        with open_regular(shard) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            images: dict[str, _Member] = {}
            for key, members in itertools.groupby(_visible_members(file, data), _sample_of):
                for name, start, size in members:
                    suffix = name[len(key) + 1 :].lower()  # as webdataset does
                    if suffix == "cls":
                        label = data[start : start + min(size, MAX_LABEL)].decode("utf-8", "surrogateescape").strip()
                        if not label or size > MAX_LABEL:
                            found = f"has {size:,} bytes" if label else "is empty"
                            raise UsageError(f"{shard}: {shown(name)} {found}; expected the number or name of a class")
                        labels[key] = label
                    elif has_image_suffix(f".{suffix}"):
                        if "." in suffix and key in images:
                            continue  # another picture of the sample, such as 0123.mask.png beside 0123.jpg
                        if key in images and images[key][0].count(".") == name.count("."):
                            raise UsageError(f"{shard}: {shown(name)} is a second image of its sample; expected one")
                        images[key] = name, start, size
                if key in images and key in labels:
                    is_empty = False
                    yield images.pop(key), labels.pop(key)
            for name, _, _ in images.values():
                raise UsageError(f"{shard}: {shown(name)} has no label; expected a file with the suffix cls beside it")
    except (OSError, ValueError, tarfile.TarError) as error:
        reason = shown(str(error.strerror if isinstance(error, OSError) and error.strerror else error), 200)
        raise UsageError(f"{shard}: cannot be read as a tar archive ({reason}); copy or write it again") from error
    if labels:
        some = f"{counted(len(labels), 'label')} without an image, such as that of {shown(next(iter(labels)))}"
        skipped.append(SkippedFile(shard, f"{printable(str(shard))}: {some}; add it, in a format that can be read"))
    elif is_empty:
        skipped.append(SkippedFile(shard, f"{printable(str(shard))}: holds no images; copy or write it again"))


def _sample_of(member: _Member) -> str:
    """Return a member's name up to the first dot behind its folder."""
    folder, slash, last = member[0].rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _visible_members(file: BinaryIO, data: mmap.mmap) -> Iterator[_Member]:
    """Yield those of `_members` that are a user's, without such as macOS's ``._0123.jpg``."""
    return (member for member in _members(file, data) if not is_hidden(member[0].rpartition("/")[2]))


def _members(file: BinaryIO, data: mmap.mmap) -> Iterator[_Member]:
    """Yield the regular files of an archive; from the first long name on `tarfile` reads it, ten times as slowly."""
    position = 0
    while (header := data[position : position + BLOCK]).strip(b"\0"):
        kind, start = header[156:157], position + BLOCK
        if start > len(data):
            raise ValueError(CUT_SHORT)
        if sum(header[:148]) + sum(header[156:]) + 256 != _number(header[148:156]):
            raise ValueError(f"no header at byte {position:,}")
        if kind not in b"0\x005" or header[124] & 0x80:
            file.seek(position)
            with BoundedTar(fileobj=file) as archive:
                # Of the members whose bytes lie in the archive as they are.
                plain = (each for each in archive if each.isreg() and not each.issparse())
                yield from ((each.name, each.offset_data, each.size) for each in plain)
                position = archive.offset
            break
        size = _number(header[124:136])
        if not 0 <= size <= len(data) - start:
            raise ValueError(CUT_SHORT)
        name = header[:100].split(b"\0")[0].decode("utf-8", "surrogateescape")
        prefix = header[345:500].split(b"\0")[0].decode("utf-8", "surrogateescape")
        if kind != b"5":
            yield f"{prefix}/{name}" if prefix and header[257:262] == b"ustar" else name, start, size
        position = start + -(-size // BLOCK) * BLOCK
    if position + BLOCK > len(data):  # the end is a block of zeros, and nothing but zeros follow it
        raise ValueError(CUT_SHORT)
    if (rest := _NOT_ZERO.search(data, position)) is not None:
        raise ValueError(f"no header at byte {position:,}, but more at byte {rest.start():,}")


def _number(digits: bytes) -> int:
    """Return an octal number; -1 for other bytes."""
    found = re.fullmatch(rb"\s*([0-7]*)[\s\0]*", digits)
    return int(found[1] or b"0", 8) if found else -1


def write_shards(splits: Splits, folder: Path, megabytes: int, seed: int) -> dict[str, int]:
    """Write the images of all splits to shards in a new `folder`, in random order, with ``classes.txt``.

    Files are copied as they are; one whose name has no image's suffix gets that of its format. Images in memory become
    PNG files. A shard has about so many `megabytes`. A test split that is the validation split is written once. What
    cannot be read is left out, and the log says so.

    Returns:
        The number of images of each split.

    Raises:
        UsageError: the folder exists, or an image cannot be read any more, or at all where strict.
        RunFailure: the shards cannot be written.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder}: exists already; name a new folder")
    if files := file_splits(splits):
        report_left_out(files)
    parts = {"train": splits.train, "val": splits.validation, "test": splits.test}
    if splits.test is splits.validation:
        del parts["test"]

    def write(temporary: Path) -> None:
        write_text(temporary / "classes.txt", class_list(splits.classes))
        for name, split in parts.items():
            _write_split(split, temporary, name, megabytes * 1_000_000, seed)

    write_folder(folder, write)
    return {name: len(split) for name, split in parts.items()}


def _write_split(split: Split, folder: Path, name: str, shard_bytes: int, seed: int) -> None:
    waiting = np.random.default_rng(seed).permutation(len(split)).tolist()[::-1]
    written = shard = 0
    while waiting:
        path = folder / f"{name}-{shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            while waiting and archive.offset < shard_bytes:
                index = waiting.pop()
                suffix, content = _encoded(split, index)
                _add(archive, f"{written:08d}{suffix}", content)
                _add(archive, f"{written:08d}.cls", str(split.labels[index]).encode())
                written += 1
        shard += 1
        logger.info("%s: %s of %s images", path.name, f"{written:,}", f"{len(split):,}")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _encoded(split: Split, index: int) -> tuple[str, bytes]:
    """Return the suffix and the content of an image's file."""
    if isinstance(split, FileSplit):
        (source,) = split.sources([index])
        name = source.name if isinstance(source, FilePart) else source
        try:
            content = read_source(source)
        except OSError as error:
            raise UsageError(f"{printable(str(source))}: cannot be read ({error.strerror or error})") from error
        suffix = PurePosixPath(name).suffix.lower()
        return suffix if has_image_suffix(suffix) else suffix_of(content, str(source)), content
    file = io.BytesIO()
    Image.fromarray(split.batch([index])[0]).save(file, "PNG")
    return ".png", file.getvalue()
