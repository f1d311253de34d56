"""Find, check and download the files of published datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_resnet.download import ProgressFn, fetch
from paddle_resnet.errors import UsageError
from paddle_resnet.files import home_folder, md5_of


@dataclass(frozen=True)
class OfficialFile:
    """A file as its authors published it."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def cache_folder(name: str) -> Path:
    """Return Paddle's own cache of the dataset `name`, which paddle.vision shares."""
    return home_folder() / ".cache" / "paddle" / "dataset" / name


def fetch_if_missing(file: OfficialFile, folder: Path, verify: bool, progress: ProgressFn | None = None) -> Path:
    """Return the path of `file` in `folder`; download it there if it is missing.

    Raises:
        UsageError: no network, or `verify` and the MD5 is not the official one.
        RunFailure: the folder cannot be written to.
    """
    path = folder / file.name
    if path.is_file():
        check_md5(path, file.md5, verify)
    else:
        fetch(file.url, path, file.md5 if verify else None, progress)
    return path


def check_md5(path: Path, official: str, verify: bool) -> None:
    """Refuse a file with another MD5 than the official one, if `verify` is set.

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
            f"{path}: MD5 is {found}, expected {official}: cut short, damaged or another edition; "
            "delete it to download it again, or accept it with -o data.verify=false"
        )
