"""``data.json``: the images and classes a run was trained on, because a folder of pictures may change afterwards."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from paddle_resnet.config.schema import Config
from paddle_resnet.config.value_types import SPLIT_NAMES, SplitName
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Split, Splits, open_splits
from paddle_resnet.data.datasets.file_split import FileSplit, read_source, size_of, source_of
from paddle_resnet.data.datasets.found_files import LabelledFiles
from paddle_resnet.data.datasets.open_files import files_root, find_files, reopen_files
from paddle_resnet.data.datasets.open_splits import mean_and_std, resize_size
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.system.portable import IS_POSIX
from paddle_resnet.text_files import write_json
from paddle_resnet.training.schemas import Count, JsonSchema, Text, first_error

IMAGES_COMPARED = 32
READ_WHOLE = 1 << 30
"""Bytes of pictures up to which every file has a checksum; of more, a few have, and all have their size."""
REMEDY = "put them back as they were, say with -o data.root=FOLDER where they are now, or train a new run"


class FileList(JsonSchema):
    """The files of a split in order, relative to the folder: label, bytes, and CRC-32 or None.

    Of more files than are read before training, only those with a checksum have their size.
    """

    names: list[Text]
    labels: list[Count]
    sizes: list[Count | None]
    crc32: list[Annotated[int, Field(ge=0, lt=1 << 32)] | None]

    @model_validator(mode="after")
    def _is_of_equal_lengths(self) -> FileList:
        if not len(self.names) == len(self.labels) == len(self.sizes) == len(self.crc32):
            raise ValueError("expected as many labels, sizes and crc32 as names")
        return self

    @classmethod
    def of(cls, split: FileSplit, all_checksums: bool) -> FileList:
        """List the readable files of a split; `all_checksums` or those of a few files."""
        count = len(split)
        few = np.arange(count) if all_checksums else np.unique(_spread_indices(split))
        sizes: list[int | None] = [*split.sizes()] if split.table.examined else [None] * count
        crc32: list[int | None] = [None] * count
        for index, source in zip(few, split.sources(few), strict=True):
            with contextlib.suppress(OSError, UsageError):  # a file that has not been read yet may be unreadable
                content = read_source(source)
                sizes[index], crc32[index] = len(content), zlib.crc32(content)
        return cls(names=split.names(np.arange(count)), labels=split.labels.tolist(), sizes=sizes, crc32=crc32)

    def contents(self) -> list[tuple[int | None, int | None]]:
        return list(zip(self.sizes, self.crc32, strict=True))

    def changes(self, root: Path, in_shards: bool) -> Iterator[str]:
        """Yield a message such as ``name is missing`` for each file that changed."""
        for name, size, crc32 in zip(self.names, self.sizes, self.crc32, strict=True):
            if size is None:
                continue
            try:
                source = source_of(root, name, in_shards)
                changed = size_of(source) != size or (crc32 is not None and zlib.crc32(read_source(source)) != crc32)
            except FileNotFoundError:
                yield f"{shown(name)} is missing"
            except UsageError as error:
                yield str(error)
            except OSError as error:
                yield f"{shown(name)} cannot be read ({error.strerror or error})"
            else:
                if changed:
                    yield f"{shown(name)} has another content"


class _CheckpointData(JsonSchema):
    """The part of ``checkpoints/last/state.json`` about the data."""

    data: dict[str, Any] | None = None


class DataManifest(JsonSchema):
    """The content of ``data.json``. A run of an early version has only classes and fingerprint.

    `left_out` are the files that could not be read, if all were `examined` before training.
    """

    classes: Annotated[list[Text], Field(min_length=1)]
    fingerprint: dict[str, Any]
    source: str | None = None
    image_size: Count | None = None
    resize: Count | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    files: dict[SplitName, FileList] | None = None
    left_out: list[Text] = Field(default_factory=list)
    examined: bool = True

    @model_validator(mode="after")
    def _files_have_classes_and_lie_below_the_folder(self) -> DataManifest:
        if self.files is None:
            return self
        if set(self.files) != set(SPLIT_NAMES):
            raise ValueError(f"files: expected {', '.join(SPLIT_NAMES)}")
        if any(max(part.labels, default=0) >= len(self.classes) for part in self.files.values()):
            raise ValueError("files: a label is of no class")
        for name in (name for part in self.files.values() for name in part.names):
            # Of a shard, as its members may have any names.
            path = name.partition(".tar/")[0] if self.source == "image_shards" else name
            on_drive = not IS_POSIX and (":" in path or "\\" in path)
            if path.startswith("/") or on_drive or (".." in path and ".." in path.split("/")):
                raise ValueError(f"files: {shown(name)} lies outside of the folder")
        return self

    @classmethod
    def of(cls, config: Config, splits: Splits, normalize: Normalize) -> DataManifest:
        parts = {name: getattr(splits, name) for name in SPLIT_NAMES}
        folder = {name: part for name, part in parts.items() if isinstance(part, FileSplit)}
        examined = all(part.table.examined for part in folder.values())
        all_checksums = examined and sum(sum(part.sizes()) for part in folder.values()) <= READ_WHOLE
        return cls.model_validate(
            {
                "classes": list(splits.classes),
                "fingerprint": fingerprint(splits),
                **preprocessing(config, normalize),
                "files": {name: FileList.of(part, all_checksums) for name, part in folder.items()} or None,
                "examined": examined,
                "left_out": sorted({name for part in folder.values() for name in part.table.unreadable()}),
            }
        )

    @classmethod
    def of_checkpoint(cls, path: Path) -> DataManifest | None:
        """Read what a run of an early version recorded in its ``state.json``; raise `UsageError` if it is damaged."""
        data = _CheckpointData.read(path).data
        if data is None or "classes" not in data:
            return None
        try:
            return cls(classes=data["classes"], fingerprint=data)
        except ValidationError as error:
            raise UsageError(f"{path}: damaged: data.{first_error(error)}") from None

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump())

    def require_config(self, path: Path, config: Config, normalize: Normalize) -> None:
        """Raise `UsageError` if the config in the file `path` has another preprocessing than the training."""
        for key, value in preprocessing(config, normalize).items():
            trained = getattr(self, key)
            if trained is not None and trained != value:
                raise UsageError(
                    f"{path}: data.{key} is {shown(value)} now, but the run was trained with "
                    f"{shown(trained)}, as data.json says; put it back"
                )

    def open(self, run: Path, config: Config, report: ProgressFn | None = None) -> Splits:
        """Open the images in the splits of the training; raise `UsageError` if one changed or is missing.

        Newer files are not used; a warning counts them.
        """
        if self.files is None:
            splits = open_splits(config.data, report)
            require_same_fingerprint(run, self.fingerprint, fingerprint(splits))
            return splits
        root = files_root(config.data)
        if not root.is_dir():
            raise UsageError(f"{root}: no such folder, and {run} was trained on its pictures; {REMEDY}")
        parts = [self.files[part] for part in SPLIT_NAMES]
        changes = [change for part in parts for change in part.changes(root, config.data.source == "image_shards")]
        known = {name for part in parts for name in part.names}
        if changes:
            others = f" (and {len(changes) - 1} more of {len(known)} files)" if len(changes) > 1 else ""
            raise UsageError(f"{root}: not the pictures that {run} was trained on: {changes[0]}{others}; {REMEDY}")
        with contextlib.suppress(UsageError):  # a new run could not begin
            self._warn_of_news(root, run, list(find_files(config.data).parts.values()))
        resize = resize_size(config.data)
        entries = [(part.names, part.labels) for part in parts]
        train, validation, test = reopen_files(root, config.data, resize, entries, self.examined)
        return Splits(train, validation, test, tuple(self.classes), *mean_and_std(config.data), resize)

    def _warn_of_news(self, root: Path, run: Path, now: Sequence[LabelledFiles]) -> None:
        """Log which files that a new run would use are new or have other labels, both of which are not used."""
        known, left_out = dict(self._labelled()), set(self.left_out)
        files = [file for part in now for file in zip(part.names, part.labels, strict=True)]
        changed = [file for file in files if known.get(file[0], file[1]) != file[1]]
        if changed:  # or in two splits with different labels, then as now
            changed = sorted(set(changed).difference(self._labelled()))
        new = sorted({name for name, _ in files if name not in known and name not in left_out})
        for what, count, first in (
            ("new", len(new), shown(new[0]) if new else ""),
            ("labelled anew", len(changed), " as ".join(map(shown, changed[0])) if changed else ""),
        ):
            if count:
                others = f" (and {count - 1} more)" if count > 1 else ""
                since = f"since {run} was divided for training"
                logger.warning(f"warning: {root}: {what} {since}, and not used: {first}{others}")

    def _labelled(self) -> Iterator[tuple[str, str]]:
        for part in (self.files or {}).values():
            for name, label in zip(part.names, part.labels, strict=True):
                yield name, self.classes[label]


def preprocessing(config: Config, normalize: Normalize) -> dict[str, Any]:
    """Return what turns pictures into a network's input, by keys of `DataManifest` and of the config's `data`."""
    return {
        "source": config.data.source,
        "image_size": config.data.image_size,
        "resize": resize_size(config.data),
        "mean": list(normalize.mean),
        "std": list(normalize.std),
    }


def fingerprint(splits: Splits) -> dict[str, Any]:
    """Return the number of images, the classes, and checksums of all labels and of a few images."""
    held_out, names = [splits.validation, splits.test], 0
    for split in (splits.train, *held_out):
        names = zlib.crc32("\n".join(split.names(np.arange(len(split)))).encode("utf-8", "surrogateescape"), names)
    return {
        "training images": len(splits.train),
        "validation images": len(splits.validation),
        "test images": len(splits.test),
        "classes": list(splits.classes),
        "labels' checksum": zlib.crc32(splits.train.labels.tobytes()),
        "images' checksum": splits.train.checksum(_spread_indices(splits.train)),
        "held-out labels' checksums": [zlib.crc32(split.labels.tobytes()) for split in held_out],
        "held-out images' checksums": [split.checksum(_spread_indices(split)) for split in held_out if len(split)],
        "names' checksum": names,
    }


def require_same_fingerprint(run: Path, began: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `UsageError` if the fingerprint changed since the `run` began, in a key that both have."""
    for what, value in began.items():
        if now.get(what, value) != value:
            raise UsageError(
                f"{run}: the data changed: {what} {shown(now[what])} now, {shown(value)} when the run began; "
                "put the images back as they were, or start a new run"
            )


def _spread_indices(split: Split) -> np.ndarray:
    """Return the indices of a few images spread evenly over a split."""
    return np.linspace(0, len(split) - 1, IMAGES_COMPARED if len(split) else 0).astype(np.int64)
