"""What a run was trained on, as its ``data.json`` says: a folder of pictures may change afterwards, a run may not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Split, Splits, open_splits
from paddle_resnet.data.datasets.folder_split import FolderSplit
from paddle_resnet.data.datasets.image_folder import image_names, reopen_image_folder
from paddle_resnet.data.datasets.open_splits import mean_and_std, resize_size
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import open_regular, write_json
from paddle_resnet.training.saved_state import Count, Saved, Text, explain

IMAGES_COMPARED = 32
READ_WHOLE = 1 << 30
"""Bytes of pictures of which each is read to compare it; of more, a few are, and the sizes of all."""
PARTS = ("train", "validation", "test")
WHAT_TO_DO = "put them back as they were, say with -o data.root=FOLDER where they are now, or train a new run"


class FileList(Saved):
    """The files of a split in its order, relative to the folder: class, bytes, and CRC-32 where it was taken."""

    names: list[Text]
    labels: list[Count]
    sizes: list[Count]
    crc32: list[Annotated[int, Field(ge=0, lt=1 << 32)] | None]

    @model_validator(mode="after")
    def _is_of_files_below(self) -> FileList:
        if not len(self.names) == len(self.labels) == len(self.sizes) == len(self.crc32):
            raise ValueError("expected as many labels, sizes and crc32 as names")
        for name in self.names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{shown(name)} lies outside of the folder")
        return self

    @classmethod
    def of(cls, split: FolderSplit, read_whole: bool) -> FileList:
        """Describe the readable files of a split."""
        everything = np.arange(len(split))
        files = split.files(everything)
        few = set(everything.tolist() if read_whole else _few(split).tolist())
        return cls(
            names=split.names(everything),
            labels=split.labels.tolist(),
            sizes=[file.stat().st_size for file in files],
            crc32=[_crc32(file) if index in few else None for index, file in enumerate(files)],
        )

    def changes(self, root: Path) -> Iterator[str]:
        """Say of each file that is not as it was what is, as ``name is missing``."""
        for name, size, crc32 in zip(self.names, self.sizes, self.crc32, strict=True):
            try:
                with open_regular(root / name) as file:
                    changed = file.seek(0, 2) != size
                changed = changed or (crc32 is not None and _crc32(root / name) != crc32)
            except FileNotFoundError:
                yield f"{shown(name)} is missing"
            except OSError as error:
                yield f"{shown(name)} cannot be read ({error.strerror or error})"
            else:
                if changed:
                    yield f"{shown(name)} has another content"


class _Begun(Saved):
    """Of ``checkpoints/last/state.json``."""

    data: dict[str, Any] | None = None


class DataRecord(Saved):
    """The whole of ``data.json``; `left_out` are the files that could not be read.

    Of a run that an earlier version began, the classes and the fingerprint alone are known.
    """

    classes: Annotated[list[Text], Field(min_length=1)]
    fingerprint: dict[str, Any]
    source: str | None = None
    image_size: Count | None = None
    resize: Count | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    files: dict[Literal["train", "validation", "test"], FileList] | None = None
    left_out: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _labels_are_classes(self) -> DataRecord:
        if self.files is not None:
            if set(self.files) != set(PARTS):
                raise ValueError(f"files: expected {', '.join(PARTS)}")
            if any(max(part.labels, default=0) >= len(self.classes) for part in self.files.values()):
                raise ValueError("files: a label is of no class")
        return self

    @classmethod
    def of(cls, config: Config, splits: Splits, normalize: Normalize) -> DataRecord:
        """Describe what a run is about to be trained on."""
        parts = {name: getattr(splits, name) for name in PARTS}
        folder = {name: part for name, part in parts.items() if isinstance(part, FolderSplit)}
        size = sum(file.stat().st_size for part in folder.values() for file in part.files(np.arange(len(part))))
        return cls.model_validate(
            {
                "classes": list(splits.classes),
                "fingerprint": fingerprint(splits),
                **preprocessing(config, normalize),
                "files": {name: FileList.of(part, size <= READ_WHOLE) for name, part in folder.items()} or None,
                "left_out": sorted({name for part in folder.values() for name in part.unreadable}),
            }
        )

    @classmethod
    def of_checkpoint(cls, path: Path) -> DataRecord | None:
        """Take what a run of an earlier version says in its checkpoint's ``state.json``; None: nothing.

        Raises:
            UsageError: the file is damaged.
        """
        data = _Begun.read(path).data
        if data is None or "classes" not in data:
            return None
        try:
            return cls(classes=data["classes"], fingerprint=data)
        except ValidationError as error:
            raise UsageError(f"{path}: damaged: data.{explain(error)}") from None

    def save(self, path: Path) -> None:
        """Write it to ``data.json``."""
        write_json(path, self.model_dump())

    def require_config(self, path: Path, config: Config, normalize: Normalize) -> None:
        """See that pictures become the network's input as in the run's training.

        Raises:
            UsageError: ``config.yaml`` says otherwise.
        """
        for key, value in preprocessing(config, normalize).items():
            trained = getattr(self, key)
            if trained is not None and trained != value:
                raise UsageError(
                    f"{path}: data.{key} is {shown(value)} now, but the run was trained with "
                    f"{shown(trained)}, as data.json says; put it back"
                )

    def open(self, run: Path, config: Config, report: ProgressFn | None = None) -> Splits:
        """Open the images, divided as they were; files that came later are not used.

        Raises:
            UsageError: an image is not as it was, or missing.
        """
        if self.files is None:
            splits = open_splits(config.data, report)
            require_same(run, self.fingerprint, fingerprint(splits))
            return splits
        root = config.data.root
        if root is None or not root.is_dir():
            raise UsageError(f"{root}: no such folder, and {run} was trained on its pictures; {WHAT_TO_DO}")
        parts = [self.files[part] for part in PARTS]  # type: ignore[index]
        changes = [change for part in parts for change in part.changes(root)]
        known = {name for part in parts for name in part.names}
        if changes:
            others = f" (and {len(changes) - 1} more of {len(known)} files)" if len(changes) > 1 else ""
            raise UsageError(f"{root}: not the pictures that {run} was trained on: {changes[0]}{others}; {WHAT_TO_DO}")
        if came := sorted(image_names(root) - known - set(self.left_out)):
            logger.warning(
                "warning: %s: new since %s was divided for training, and not used: %s%s",
                root,
                run,
                shown(came[0]),
                f" (and {len(came) - 1} more)" if len(came) > 1 else "",
            )
        resize = resize_size(config.data)
        train, validation, test = reopen_image_folder(
            root, config.data, resize, [(part.names, part.labels) for part in parts]
        )
        return Splits(train, validation, test, tuple(self.classes), *mean_and_std(config.data), resize)


def preprocessing(config: Config, normalize: Normalize) -> dict[str, Any]:
    """What makes pictures a network's input, by keys of `DataRecord` and of the config's `data`."""
    return {
        "source": config.data.source,
        "image_size": config.data.image_size,
        "resize": resize_size(config.data),
        "mean": list(normalize.mean),
        "std": list(normalize.std),
    }


def fingerprint(splits: Splits) -> dict[str, Any]:
    """What tells other data: how many images, which classes, and checksums of all labels and of a few images."""
    held_out = [splits.validation, splits.test]
    return {
        "training images": len(splits.train),
        "validation images": len(splits.validation),
        "test images": len(splits.test),
        "classes": list(splits.classes),
        "labels' checksum": zlib.crc32(splits.train.labels.tobytes()),
        "images' checksum": splits.train.checksum(_few(splits.train)),
        "held-out labels' checksums": [zlib.crc32(split.labels.tobytes()) for split in held_out],
        "held-out images' checksums": [split.checksum(_few(split)) for split in held_out if len(split)],
    }


def require_same(run: Path, began: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare fingerprints; what an earlier version did not write is not compared.

    Raises:
        UsageError: they differ; the line says in what.
    """
    for what, value in began.items():
        if now.get(what, value) != value:
            raise UsageError(
                f"{run}: the data changed: {what} {shown(now[what])} now, {shown(value)} when the run began; "
                "put the images back as they were, or start a new run"
            )


def _few(split: Split) -> np.ndarray:
    """Images spread evenly over a split."""
    return np.linspace(0, len(split) - 1, IMAGES_COMPARED if len(split) else 0).astype(np.int64)


def _crc32(path: Path) -> int:
    with open_regular(path) as file:
        return zlib.crc32(file.read())
