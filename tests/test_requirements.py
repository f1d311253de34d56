"""The requirements files: every package bounded, one common list, numpy as each Paddle needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
        "requirements/bench.txt",
        "requirements/serve.txt",
        "requirements/onnx.txt",
        "requirements/onnx_paddle2.txt",
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
