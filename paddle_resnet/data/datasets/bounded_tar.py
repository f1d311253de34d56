"""Tar archives of unknown origin, read by `tarfile` in bounded time and memory."""

from __future__ import annotations

import tarfile

MAX_HEADER_BYTES = 1 << 12
"""Of a long name or a PAX header; tarfile reads them whole, and parses them in quadratic time."""
MAX_HEADERS = 20  # for one member; tarfile recurses into each
MAX_GLOBAL_ATTRIBUTES = 1000  # from PAX headers for all members; tarfile copies them for each


class BoundedTar(tarfile.TarFile):
    """An archive that raises `tarfile.ReadError` for headers that no program writes, but would take long to read."""

    headers = 0  # of the member that is being read, so far

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member; None at the end."""
        self.headers = 0
        member = super().next()
        if member is not None and member.size < 0:  # the next header would be one before it
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        return member


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: BoundedTar) -> tarfile.TarInfo:
        if not self.isreg() and not self.isdir():
            archive.headers += 1
            if archive.headers > MAX_HEADERS or not 0 <= self.size <= MAX_HEADER_BYTES:
                raise tarfile.ReadError(f"header {archive.headers} of a name or attributes, of {self.size:,} bytes")
            if len(archive.pax_headers) > MAX_GLOBAL_ATTRIBUTES:
                raise tarfile.ReadError(f"more than {MAX_GLOBAL_ATTRIBUTES} attributes of all members")
        return super()._proc_member(archive)  # type: ignore[misc]


BoundedTar.tarinfo = _Member
