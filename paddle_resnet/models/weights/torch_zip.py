"""The zip archive of `torch.save` since PyTorch 1.6: one pickle, and a record for each storage."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.torch_pickle import ReadStorage, Storage, load_pickle

_PICKLE = "data.pkl"
# Bytes; a thousand layers take less than one megabyte of either.
_PICKLE_LIMIT = 16 << 20
_LIST_LIMIT = 2 << 20  # zipfile takes a kilobyte for each record, and quadratic time for its extra fields
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OverflowError, struct.error)


class _Content(io.BytesIO):
    """A file's bytes that refuse to be read as a long list of records, which zipfile reads in one call."""

    listed = False  # whether zipfile has read the list of records

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.listed and (size or 0) > _LIST_LIMIT:
            raise zipfile.BadZipFile(f"a list of records of {size:,} bytes, expected at most {_LIST_LIMIT:,}")
        return super().read(size)


def read_zip(content: bytes, path: Path) -> tuple[Any, ReadStorage]:
    """Read the pickle in an archive, and return how to read its storages; all are little-endian then.

    Records must be stored uncompressed, so that none can be larger than the file.

    Raises:
        UsageError: the file is damaged, cut short, or no archive of `torch.save`.
    """
    file = _Content(content)
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise _damaged(path, error) from error
    file.listed = True
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{_PICKLE}")]
    if len(pickles) != 1:
        raise UsageError(
            f"{path}: a zip archive, but not of torch.save: it has no {_PICKLE}; unpack what it holds, or save the "
            "network's state_dict() (of torch.export, numpy)"
        )
    if len(archive.NameToInfo) != len(archive.filelist):
        raise UsageError(f"{path}: holds two records of one name; the file is damaged: get it again")
    folder = pickles[0].removesuffix(_PICKLE)
    order = f"{folder}byteorder"  # since PyTorch 2.1; before, all files were little-endian
    big_endian = order in archive.NameToInfo and _record(archive, order, path) == b"big"

    def read(storage: Storage) -> bytes:
        numbers = _record(archive, f"{folder}data/{storage.key}", path, storage.nbytes)
        return np.frombuffer(numbers, storage.numpy_type).byteswap().tobytes() if big_endian else numbers

    return load_pickle(_record(archive, pickles[0], path), str(path))[0], read


def _record(archive: zipfile.ZipFile, name: str, path: Path, size: int | None = None) -> bytes:
    """Return the bytes of a record; `size` is their number according to the pickle."""
    shown_name = shown(name.partition("/")[2])
    try:
        record = archive.getinfo(name)
    except KeyError:
        raise UsageError(f"{path}: has no record {shown_name}; the file is damaged: get it again") from None
    # zipfile reads the compressed size of a stored record, so both sizes must be equal.
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise UsageError(f"{path}: record {shown_name} is compressed, which torch.save does not do; save it again")
    if size is not None and record.file_size != size:
        raise UsageError(
            f"{path}: record {shown_name} has {record.file_size:,} bytes where its tensor needs {size:,}; "
            "the file is damaged: get it again"
        )
    if size is None and record.file_size > _PICKLE_LIMIT:
        raise UsageError(
            f"{path}: record {shown_name} has {record.file_size:,} bytes, expected at most {_PICKLE_LIMIT:,}; "
            "save tensors, not numpy arrays"
        )
    try:
        return archive.read(record)
    except _ZIP_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = shown(str(error), 200) or type(error).__name__
    return UsageError(f"{path}: cannot be read as a zip archive ({reason}): damaged or cut short; get it again")
