"""Run tutorial.py once, and write tutorial.ipynb and tutorial_zh.ipynb with its outputs.

pip install -e ".[cpu,notebook]"
python examples/build_notebooks.py
python examples/build_notebooks.py --data cifar10 --root FOLDER --output output/notebooks
"""

import argparse
import os
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent
NOTEBOOKS = {"en": "tutorial.ipynb", "zh": "tutorial_zh.ipynb"}
SECONDS = 3600


def main() -> None:
    """Parse the arguments, run the notebook and write it in both languages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--root", help="the folder of cifar-10-python.tar.gz; default: Paddle's cache")
    parser.add_argument("--output", type=Path, help="default: here; CIFAR-10's need another folder")
    options = parser.parse_args()
    if options.data != "digits" and options.output is None:
        parser.error("--output: the notebooks here are those of the digits; name another folder")
    output = options.output or EXAMPLES
    output.mkdir(parents=True, exist_ok=True)
    notebook = run_notebook(options.data, options.root)
    for language, name in NOTEBOOKS.items():
        nbformat.write(in_language(notebook, language), output / name)


def run_notebook(data: str = "digits", root: str | None = None) -> nbformat.NotebookNode:
    """Run all cells in a folder of their own; return them with their outputs, and with the prose in both languages."""
    notebook = jupytext.read(EXAMPLES / "tutorial.py")
    environment = {**os.environ, "TUTORIAL_DATA": data, "PYTHONPATH": str(EXAMPLES.parent)}
    environment.pop("MPLBACKEND", None)  # the kernel's own shows figures inline
    if root is not None:
        environment["TUTORIAL_ROOT"] = str(Path(root).resolve())
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, coalesce_streams=True, resources={"metadata": {"path": folder}}
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of day
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
    return notebook


def in_language(notebook: nbformat.NotebookNode, language: str) -> nbformat.NotebookNode:
    """Return the notebook with the prose of one language, numbered from 1."""
    result = nbformat.from_dict(notebook)
    result.cells = [cell for cell in result.cells if cell.metadata.get("lang", language) == language]
    for number, cell in enumerate(result.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("lang", None)
    return result


if __name__ == "__main__":
    main()
