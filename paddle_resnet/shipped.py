"""Files that come with the project: ``configs/`` and ``requirements/``, beside the package or, installed, inside it."""

from __future__ import annotations

from pathlib import Path

from paddle_resnet.errors import UsageError, did_you_mean, shown

PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Return where a folder of the project lies."""
    return PACKAGE / folder if (PACKAGE / folder).is_dir() else PACKAGE.parent / folder


def requirements_file(name: str) -> str:
    """Return a requirements file as an argument for ``pip install -r``: short in a checkout."""
    path = shipped("requirements") / name
    return f"requirements/{name}" if path.parent.parent == PACKAGE.parent else str(path)


def config_path(name: str | Path) -> Path:
    """Return a config's file: a path, or the name of one that comes with the project, as ``quickstart``.

    Raises:
        UsageError: a name without such a config.
    """
    path = Path(name)
    own = shipped("configs") / f"{path.stem}.yaml"
    if path.exists() or not own.is_file():
        if path.exists() or path.suffix or len(path.parts) != 1:
            return path
        known = [each.stem for each in sorted(own.parent.glob("*.yaml"))]
        raise UsageError(
            f"-c {shown(str(name))}: neither a file nor a config of the project{did_you_mean(path.stem, known)}; "
            f"these are {', '.join(known)}"
        )
    return own if path in (Path(path.stem), Path("configs", own.name)) else path
