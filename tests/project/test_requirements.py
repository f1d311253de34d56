"""The requirements files: every package bounded, one common list, numpy as each Paddle needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CPU, GPU = "paddlepaddle==3.3.1", "paddlepaddle-gpu==2.6.2"


def read_requirements(path: Path) -> list[Requirement]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements/common.txt",
        "requirements/gpu.txt",
        "requirements/dev.txt",
        "requirements/docs.txt",
        "requirements/notebook.txt",
        "requirements/bench.txt",
        "requirements/serve.txt",
        "requirements/onnx.txt",
        "requirements/onnx_paddle2.txt",
        "requirements/tensorboard.txt",
        "requirements/ray.txt",
    ],
)
def test_every_requirement_has_a_lower_and_an_upper_bound(project: Path, name: str) -> None:
    requirements = read_requirements(project / name)
    assert requirements
    for requirement in requirements:
        operators = {bound.operator for bound in requirement.specifier}
        assert "==" in operators or {">=", "<"} <= operators, str(requirement)


@pytest.mark.parametrize(
    ("name", "paddle", "common"),
    [("requirements.txt", CPU, "requirements/common.txt"), ("requirements/gpu.txt", GPU, "common.txt")],
)
def test_both_builds_share_the_common_requirements(project: Path, name: str, paddle: str, common: str) -> None:
    assert [str(requirement) for requirement in read_requirements(project / name)] == [paddle]
    assert f"-r {common}" in (project / name).read_text().splitlines()


def test_paddle_2_is_kept_from_numpy_2(project: Path) -> None:
    numpy = {each.name: each.specifier for each in read_requirements(project / "requirements/paddle2.txt")}["numpy"]
    assert "1.26.4" in numpy and "2.0.0" not in numpy
    assert "-r paddle2.txt" in (project / "requirements/gpu.txt").read_text().splitlines()


LOCKS = ["requirements/locked-paddle3.txt", "requirements/locked-paddle2.txt"]


def locked(path: Path, python: str) -> dict[str, str]:
    """Return the versions that a lock file gives to Linux with that Python."""
    lines = path.read_text().replace("\\\n", "").splitlines()
    requirements = [Requirement(line.split(" --hash=")[0].strip()) for line in lines]
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    found = [each for each in requirements if each.marker is None or each.marker.evaluate(environment)]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in found}


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize(("lock", "onnx"), zip(LOCKS, ["onnx.txt", "onnx_paddle2.txt"], strict=True))
def test_lock_files_keep_the_bounds_of_the_requirements(project: Path, lock: str, onnx: str, python: str) -> None:
    versions = locked(project / lock, python)
    for name in ("common.txt", "dev.txt", "serve.txt", onnx):
        for requirement in read_requirements(project / "requirements" / name):
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(project: Path, lock: str) -> None:
    lines = (project / lock).read_text().replace("\\\n", "").splitlines()
    assert len(lines) > 90
    assert [line for line in lines if " --hash=sha256:" not in line] == []


def test_the_licence_of_every_locked_package_is_listed(project: Path) -> None:
    rows = (
        line.split("|")
        for line in (project / "requirements/licences.md").read_text().splitlines()
        if line.startswith("| ")
    )
    licences = {canonicalize_name(row[1].strip()): row[2].strip() for row in rows}
    for lock in LOCKS:
        for python in ("3.10", "3.11", "3.12"):
            for name in locked(project / lock, python):
                assert licences.get(name, "UNKNOWN") not in ("", "UNKNOWN"), name
