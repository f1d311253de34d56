"""The project's ``configs/`` and ``requirements/``: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.paths import expand_home

PACKAGE = Path(__file__).resolve().parent


def project_folder(folder: str) -> Path:
    """Return the path of a folder of the project."""
    return PACKAGE / folder if (PACKAGE / folder).is_dir() else PACKAGE.parent / folder


def requirements_file(name: str) -> str:
    """Return a requirements file as an argument for ``pip install -r``: relative in a checkout."""
    path = project_folder("requirements") / name
    return f"requirements/{name}" if path.parent.parent == PACKAGE.parent else str(path)


def config_path(name: str | Path) -> Path:
    """Return the file of a config, given as a path or as the name of one of the project, such as ``quickstart``.

    Raises:
        UsageError: the project has no config of this name.
    """
    path = expand_home(name)
    own = project_folder("configs") / f"{path.stem}.yaml"
    is_there = path.exists() and not path.is_dir()
    if is_there or not own.is_file():
        if is_there or path.suffix or len(path.parts) != 1:
            return path
        known = [each.stem for each in sorted(own.parent.glob("*.yaml"))]
        raise UsageError(
            f"-c {shown(str(name))}: neither a file nor a config of the project{did_you_mean(path.stem, known)}; "
            f"these are {', '.join(known)}"
        )
    return own if path in (Path(path.stem), Path("configs", own.name)) else path
