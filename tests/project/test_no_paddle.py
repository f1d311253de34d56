"""What tests/conftest.py says needs no Paddle is imported where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COLLECT = """
import sys
sys.modules["paddle"] = None  # an import of it raises ModuleNotFoundError
import pytest
sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_marked_tests_are_imported_without_paddle(project: Path, pytestconfig: pytest.Config) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(project / "tests" / "conftest.py"))
    paths = [project / "tests" / name for name in conftest.WITHOUT_PADDLE]
    done = subprocess.run([sys.executable, "-c", COLLECT, *paths], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
