"""What the tests of exports share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from paddle_resnet.training import Run


@pytest.fixture(scope="session")
def run_of_all_precisions(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run exported in all precisions that this environment can write, for tests that leave it as it is."""
    from requirements_met import HAS_ONNX
    from tiny_run import make_run

    from paddle_resnet.exporting import export

    run = make_run(tmp_path_factory.mktemp("precisions"))
    export(run, precisions=["bf16", *(["int8"] if HAS_ONNX else [])])
    return run
