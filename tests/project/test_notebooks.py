"""The tutorial's notebooks: those of their source, in both languages, with the outputs of a run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

jupytext = pytest.importorskip("jupytext", reason="requirements/notebook.txt is not installed")
import nbformat  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUILD = runpy.run_path(str(EXAMPLES / "build_notebooks.py"))
NOTEBOOKS = BUILD["NOTEBOOKS"]
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
MOST_BYTES = 400_000


def stored(language):
    return nbformat.read(EXAMPLES / NOTEBOOKS[language], 4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """Return what a cell has printed or shown as text; figures only count."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        parts.append("figure" if "image/png" in data else output.get("text", "") or data.get("text/plain", ""))
    return parts


@pytest.mark.parametrize("language", NOTEBOOKS)
def test_notebooks_have_the_cells_of_their_source(language):
    expected = BUILD["in_language"](jupytext.read(EXAMPLES / "tutorial.py"), language)
    cells = [(cell.cell_type, cell.source) for cell in stored(language).cells]
    assert cells == [(cell.cell_type, cell.source) for cell in expected.cells]


@pytest.mark.parametrize("language", NOTEBOOKS)
def test_every_cell_was_run_in_order_without_an_error(language):
    cells = code_cells(stored(language))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert not [cell.source for cell in cells if any(output.get("name") == "stderr" for output in cell.outputs)]
    assert (EXAMPLES / NOTEBOOKS[language]).stat().st_size < MOST_BYTES


def test_both_languages_have_the_same_outputs_headings_and_links():
    english, chinese = stored("en"), stored("zh")
    assert [cell.outputs for cell in code_cells(english)] == [cell.outputs for cell in code_cells(chinese)]
    prose = [
        "\n".join(cell.source for cell in each.cells if cell.cell_type == "markdown") for each in (english, chinese)
    ]
    marks = [re.findall(r"^#+ |^\|", text, re.MULTILINE) for text in prose]
    assert marks[0] == marks[1]
    anchors = [re.findall(r"errata\.md#\w+", text) for text in prose]
    assert anchors[0] == anchors[1]
    assert not re.search("[\u4e00-\u9fff]", prose[0].replace("中文版", ""))


@pytest.mark.parametrize("language", NOTEBOOKS)
def test_links_of_the_notebooks_lead_to_files(language):
    for cell in stored(language).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#]+)", cell.source):
                assert (EXAMPLES / target).is_file()


@pytest.mark.slow
@pytest.mark.once
def test_a_new_run_gives_the_stored_outputs():
    """Numbers may differ by a cell's tolerance, `compare`; false: times, sizes and what a few pictures decide."""
    for cell, again in zip(code_cells(stored("en")), code_cells(BUILD["run_notebook"]()), strict=True):
        assert len(cell.outputs) == len(again.outputs) or cell.metadata.get("compare") is False
        tolerance = cell.metadata.get("compare", 1e-3)
        if tolerance is not False:
            before, after = ("\n".join(texts(each)) for each in (cell, again))
            assert NUMBER.sub("#", before) == NUMBER.sub("#", after)
            numbers = [[float(each.replace(",", "")) for each in NUMBER.findall(text)] for text in (before, after)]
            np.testing.assert_allclose(numbers[0], numbers[1], rtol=tolerance, atol=tolerance, err_msg=cell.source)
