"""The versions of Python, Paddle and other packages, compared with the requirements. Imports none of them."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from paddle_resnet.doctor.section import Section
from paddle_resnet.environment import package_version
from paddle_resnet.project_files import requirements_file

BUILDS = ("paddlepaddle", "paddlepaddle-gpu")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 12)


def examine_software(requirements: Path) -> Section:
    """Examine what is installed, by ``common.txt`` in the folder `requirements` and, for Paddle 2, ``paddle2.txt``."""
    section = Section("software")
    section.add("Python", platform.python_version())
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        section.advice.append(f"Python {platform.python_version()}: the project is tested with 3.10 to 3.12")
    builds = installed_builds()
    section.add("Paddle", ", ".join(f"{build} {version}" for build, version in builds.items()) or "missing", builds)
    if len(builds) > 1:
        both = " and ".join(builds)
        section.advice.append(f"both {both} are installed, and fill the same folder: uninstall both, then install one")
    files = [requirements / "common.txt"]
    if any(version.startswith("2.") for version in builds.values()):
        files.append(requirements / "paddle2.txt")
    versions: dict[str, str | None] = {}
    for file in files:
        _compare(section, file, versions)
    section.add("packages", ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items()), versions)
    return section


def installed_builds() -> dict[str, str]:
    """Return the versions of the installed builds of Paddle, by the names of their packages."""
    return {build: version for build in BUILDS if (version := package_version(build))}


def _compare(section: Section, file: Path, versions: dict[str, str | None]) -> None:
    """Add the version of each package of the file to `versions`, and advice where one is missing or does not fit."""
    wrong = []
    for name, bounds in _required(file):
        version = versions[name] = package_version(name)
        if version is None:
            wrong.append(f"{name} is missing")
        elif not _fits(version, bounds):
            wrong.append(f"{name} {version} is not {bounds}")
    if wrong:
        section.advice.append(f"{', '.join(wrong)}: python -m pip install -r {requirements_file(file.name)}")


def _required(file: Path) -> list[tuple[str, str]]:
    """Return the packages of a requirements file, each with its bounds (``">=1.26,<2"``)."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    names_and_bounds = (line.partition(">=") for line in lines if line and not line.startswith("-"))
    return [(name, operator + bounds) for name, operator, bounds in names_and_bounds]


def _fits(version: str, bounds: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return True  # packaging comes with matplotlib, which is reported as missing
    return SpecifierSet(bounds).contains(version, prereleases=True)
