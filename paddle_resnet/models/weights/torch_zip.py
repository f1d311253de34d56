"""The zip archive of `torch.save` since PyTorch 1.6: one pickle, and a record for each storage."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.torch_pickle import ByteOrder, Storage

_PICKLE = "data.pkl"
# Bytes; a thousand layers take less than one megabyte of either.
_PICKLE_LIMIT = 16 << 20
_LIST_LIMIT = 2 << 20  # zipfile takes a kilobyte for each record, and quadratic time for its extra fields
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OverflowError, struct.error)


class _File(io.BufferedReader):
    """A file that refuses to read a long list of records, which zipfile reads in one call."""

    listed = False
    """Whether zipfile has read the list of records."""

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.listed and (size or 0) > _LIST_LIMIT:
            raise zipfile.BadZipFile(f"a list of records of {size:,} bytes, expected at most {_LIST_LIMIT:,}")
        return super().read(size)


class TorchArchive:
    """The records of one file. They must be stored uncompressed, so that none can be larger than the file."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        """Check the records.

        Raises:
            UsageError: there is no pickle, or two records have one name.
        """
        self._archive = archive
        self._path = path
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{_PICKLE}")]
        if len(pickles) != 1:
            raise UsageError(f"{path}: a zip archive, but not of torch.save: it has no {_PICKLE}")
        self._folder = pickles[0].removesuffix(_PICKLE)
        if len(archive.NameToInfo) != len(archive.filelist):
            raise UsageError(f"{path}: holds two records of one name; the file is damaged: get it again")

    @property
    def byte_order(self) -> ByteOrder:
        """The records' byte order: ``"<"`` (little-endian; all files before PyTorch 2.1) or ``">"``."""
        has_record = f"{self._folder}byteorder" in self._archive.NameToInfo
        return ">" if has_record and self._read("byteorder") == b"big" else "<"

    def pickle(self) -> bytes:
        return self._read(_PICKLE)

    def storage(self, storage: Storage) -> bytes:
        """Return the bytes of a storage.

        Raises:
            UsageError: there is no such record, it has another size, or it is damaged.
        """
        return self._read(f"data/{storage.key}", storage.nbytes)

    def _read(self, name: str, size: int | None = None) -> bytes:
        try:
            record = self._archive.getinfo(self._folder + name)
        except KeyError:
            raise UsageError(f"{self._path}: has no record {shown(name)}; the file is damaged: get it again") from None
        # zipfile reads the compressed size of a stored record, so both sizes must be equal.
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise UsageError(
                f"{self._path}: record {shown(name)} is compressed, which torch.save does not do; save it again"
            )
        if size is not None and record.file_size != size:
            raise UsageError(
                f"{self._path}: record {shown(name)} has {record.file_size:,} bytes where its tensor needs {size:,}; "
                "the file is damaged: get it again"
            )
        if size is None and record.file_size > _PICKLE_LIMIT:
            raise UsageError(
                f"{self._path}: record {shown(name)} has {record.file_size:,} bytes, expected at most {_PICKLE_LIMIT:,}"
            )
        try:
            return self._archive.read(record)
        except _ZIP_ERRORS as error:
            raise _damaged(self._path, error) from error


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[TorchArchive]:
    """Open a file of `torch.save`.

    Raises:
        UsageError: the file is damaged, cut short, or no archive of `torch.save`.
        OSError: the file cannot be read.
    """
    with _File(io.FileIO(path)) as file:
        try:
            archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise _damaged(path, error) from error
        file.listed = True
        with archive:
            yield TorchArchive(archive, path)


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = shown(str(error), 200) or type(error).__name__
    return UsageError(f"{path}: cannot be read as a zip archive ({reason}): damaged or cut short; get it again")
