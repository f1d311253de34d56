"""Official data files: where they lie on this machine, whether they are the official ones, and fetching them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_resnet.download import Report, fetch
from paddle_resnet.errors import UsageError
from paddle_resnet.files import home_folder, md5_of


@dataclass(frozen=True)
class OfficialFile:
    """A file as its authors published it."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name, the last part of its address."""
        return self.url.rsplit("/", 1)[-1]


def cache_folder(name: str) -> Path:
    """Paddle's own cache of the data set `name`, so that what paddle.vision has downloaded is not fetched again."""
    return home_folder() / ".cache" / "paddle" / "dataset" / name


def obtain(file: OfficialFile, folder: Path, verify: bool, report: Report | None = None) -> Path:
    """Return the path of `file` in `folder`, downloading it there if it is absent.

    Raises:
        UsageError: no network, or `verify` and the MD5 is not the official one.
        RunFailure: the folder cannot be written to.
    """
    path = folder / file.name
    if path.is_file():
        check_md5(path, file.md5, verify)
    else:
        fetch(file.url, path, file.md5 if verify else None, report)
    return path


def check_md5(path: Path, official: str, verify: bool) -> None:
    """Refuse a file whose MD5 is not the official one, unless `verify` is off.

    Raises:
        UsageError: another MD5, or the file cannot be read.
    """
    if not verify:
        return
    try:
        found = md5_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if found != official:
        raise UsageError(
            f"{path}: its MD5 is {found}, the official file's is {official}: cut short, damaged or another edition; "
            "delete it to download it again, or accept it as it is with -o data.verify=false"
        )
