"""Rules of the sources for Windows, where text has other line ends and encodings unless a program names them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("paddle_resnet", "tools", "examples") for path in (PROJECT / folder).rglob("*.py")]
LINE_ENDS_DO_NOT_MATTER = {  # streams, and files that only the program itself reads
    "paddle_resnet/benchmark/other_loaders.py",
    "paddle_resnet/benchmark/runner.py",
    "paddle_resnet/system/streams.py",
    "tools/setup_environment.py",
}
OF_LINUX = {"paddle_resnet/system/machine.py", "paddle_resnet/benchmark/timing.py"}
"""They read files of its kernel."""
TEXT_MODES = {"r", "w", "a", "x", "rt", "wt"}


def faults_of(source: str) -> set[str]:
    """Return which rules a module breaks: encoding (of text), newline (of written text), binary (with `os.open`)."""
    return {fault for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) for fault in faults_in(node)}


def faults_in(call: ast.Call) -> set[str]:
    if getattr(call.func, "attr", "") not in ("open", "fdopen", "read_text", "write_text"):
        return set()
    function, arguments = ast.unparse(call.func), [ast.unparse(each) for each in call.args]
    if function == "os.open":
        path, flags = arguments[:2]
        harmless = path == "os.devnull" or "O_RDWR" in flags  # to write all to the disk
        return set() if harmless or "READ" in flags.split() or "O_BINARY" in flags or flags == "flags" else {"binary"}
    owner, _, method = function.rpartition(".")
    modes = TEXT_MODES & {each.strip("'") for each in arguments if method in ("open", "fdopen")}
    reads, writes = method == "read_text", method == "write_text" or (modes and modes != {"r"})
    given = {each.arg for each in call.keywords}
    if not owner or owner in ("text_files", "tarfile") or None in given or not (reads or writes or modes):
        return set()
    missing = set() if "encoding" in given or "'utf-8'" in arguments else {"encoding"}
    return missing | ({"newline"} if writes and "newline" not in given else set())


def test_text_files_have_an_encoding_and_line_ends():
    found = {path.relative_to(PROJECT).as_posix(): faults_of(path.read_text("utf-8")) for path in SOURCES}
    for name in LINE_ENDS_DO_NOT_MATTER:
        found[name] -= {"newline"}
    for name in OF_LINUX:
        found[name] -= {"encoding"}
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("path.read_text()", {"encoding"}),
        ("path.write_text(text, encoding='utf-8')", {"newline"}),
        ("path.open('w')", {"encoding", "newline"}),
        ("os.fdopen(1, 'w', newline='')", {"encoding"}),
        ("os.open(path, os.O_RDONLY)", {"binary"}),
        ("os.open(path, READ | O_NOFOLLOW)", set()),
        ("path.write_text(text, encoding='utf-8', newline='')", set()),
    ],
)
def test_the_rules_find_a_fault(source, faults):
    assert faults_of(source) == faults
