"""Is this machine set up well for training? Prints what is there, how fast it is, and what to change.

examples:
  paddle-resnet doctor
  paddle-resnet doctor --json        for programs: sizes in bytes, rates in GFLOP/s

Looks at the versions, the processor and the cores that this process may use, threads, BLAS path, Paddle, its device
and its oneDNN, and measures a matrix product and a convolution (about two seconds; other programs disturb it).
Changes nothing.

exit code: 0 Paddle can be used, with or without advice; 1 it cannot.
"""

from __future__ import annotations

import argparse
import json
import textwrap

from paddle_resnet.doctor import Section, examine
from paddle_resnet.errors import RunFailure
from paddle_resnet.project_files import project_folder

WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object: usable, advice, and each section")


def main(arguments: argparse.Namespace) -> None:
    sections: list[Section] = []
    for section in examine(project_folder("requirements")):
        sections.append(section)
        if not arguments.json:
            print(section.title)
            for name, text in section.texts.items():
                _print_wrapped(text, f"  {name:15} ")
    broken = [section for section in sections if not section.usable]
    advice = [line for section in sections for line in section.advice]
    if arguments.json:
        findings = {section.title: section.values for section in sections}
        print(json.dumps({"usable": not broken, "advice": advice, **findings}, indent=2))
    else:
        print("what to change" if advice else "nothing to change")
        for line in advice:
            _print_wrapped(line, "  - ")
    if broken:
        raise RunFailure(broken[0].advice[-1])


def _print_wrapped(text: str, before: str) -> None:
    wrapper = textwrap.TextWrapper(WIDTH, before, " " * len(before), break_long_words=False, break_on_hyphens=False)
    print(wrapper.fill(text), flush=True)
