"""The public names of the package: complete, cheap to import, and their examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import logging
import os
import re
import subprocess
import sys

import pytest

import paddle_resnet
from paddle_resnet.data import Loader
from paddle_resnet.errors import UsageError

WITH_A_RUN = ("train", "resume", "evaluate", "export", "Run", "Predictor")
"""In this order: those after `train` use its run."""
OTHERS = ("Config", "create_model", "load_weights", "accelerate", "prepare")
EXAMPLES = {name: getattr(paddle_resnet, name) for name in (*WITH_A_RUN, *OTHERS, "Lesson")} | {"Loader": Loader}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in WITH_A_RUN),
        *OTHERS,
        "Loader",
        pytest.param("Lesson", marks=[pytest.mark.slow, pytest.mark.once]),
    ],
)
def test_examples_of_docstrings_run(name, folder, monkeypatch, request):
    monkeypatch.chdir(folder)
    if name in WITH_A_RUN:
        request.getfixturevalue("without_plots")
    # A command that a fixture ran in this process may have left a handler, which writes among the examples' results.
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "handlers", [])
    thing = EXAMPLES[name]
    (test,) = doctest.DocTestFinder(recurse=False).find(thing, name, module=inspect.getmodule(thing), globs={})
    said = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert results.attempted >= 2
    assert results.failed == 0, "".join(said)


@pytest.mark.slow
def test_code_of_the_page_on_own_loops_runs(folder, project, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    pages = (project / "docs/own_loop.md", project / "docs/zh/own_loop.md")
    english, chinese = (page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"^```python\n(.*?)^```$", english, re.MULTILINE | re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert len(blocks) == 8 and all(block in chinese for block in blocks)
    assert float(capsys.readouterr().out.split()[-1]) > 0.5  # top-1 after two epochs; chance is 0.1
    assert len(namespace["whole"]) == 29


def test_every_public_name_has_an_example():
    assert {*EXAMPLES} - {"Loader"} == {*paddle_resnet.__all__} - {"data", "list_models"}


def test_dir_shows_the_public_names_alone():
    assert [name for name in dir(paddle_resnet) if not name.startswith("__")] == sorted(paddle_resnet.__all__)
    assert {"Loader", "open_splits"} <= {*dir(paddle_resnet.data)}


def test_a_public_name_survives_the_import_of_all_modules():
    """A subpackage of the same name would take its place when it is imported."""
    for name in paddle_resnet.__all__:
        importlib.import_module(f"paddle_resnet.{name}") if name == "data" else getattr(paddle_resnet, name)
    assert all(callable(getattr(paddle_resnet, name)) for name in paddle_resnet.__all__ if name != "data")


CHEAP = """
import sys
import paddle_resnet
dir(paddle_resnet)
print(sorted({"paddle", "numpy", "matplotlib", "pydantic", "rich"} & {*sys.modules}))
"""


BEFORE_THE_FIRST_STEP = """
import sys
import paddle_resnet
paddle_resnet.train
splits = paddle_resnet.data.open_splits(paddle_resnet.Config.load("quickstart").data)
print(sorted({"matplotlib", "scipy", "sklearn"} & {*sys.modules}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [CHEAP, BEFORE_THE_FIRST_STEP])
def test_import_loads_nothing_that_takes_long(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


OF_PATHS = [paddle_resnet.Config.load, *(EXAMPLES[name] for name in ("resume", "evaluate", "export", "Predictor"))]


@pytest.mark.parametrize("function", OF_PATHS)
def test_what_is_no_path_is_one_line(function):
    with pytest.raises(UsageError, match=r"expected the path of a file or folder, got None"):
        function(None)


@pytest.mark.parametrize("function", OF_PATHS)
def test_a_path_may_begin_in_the_home_folder(function, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "absent"))):
        function("~/absent")
