"""The lesson command, its errors, and the pages in both languages."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import paddle
import pytest
from PIL import Image

from paddle_resnet.data.datasets import open_splits
from paddle_resnet.download import OfficialFile
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.lessons import LESSONS, Lesson
from paddle_resnet.lessons.common.network_costs import describe_machine
from paddle_resnet.lessons.framework import texts
from paddle_resnet.lessons.framework.markdown import write_pages
from paddle_resnet.lessons.framework.page import Heading, Page, Picture, notebook_show, to_markdown
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.system import machine

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
WRITTEN = sorted(path.name for path in (DOCS / "lessons").glob("*.md"))


def test_the_pages_are_lessons_in_both_languages():
    assert sorted(path.name for path in (DOCS / "zh/lessons").glob("*.md")) == WRITTEN
    assert {name.removesuffix(".md") for name in WRITTEN} - {"README"} <= set(LESSONS)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "README.md"])
def test_both_languages_have_the_same_figures_values_and_sections(name):
    """The figures exist and are pictures of a readable size; nothing Chinese is left in English, or untranslated."""
    english, chinese = ((DOCS / folder / name).read_text(encoding="utf-8") for folder in ("lessons", "zh/lessons"))
    figures = [re.findall(r"^!\[.+\]\((.+)\)$", text, re.MULTILINE) for text in (english, chinese)]
    assert [f"../{path}" for path in figures[0]] == [path.replace("_zh.png", ".png") for path in figures[1]]
    for path in {*figures[0], *(path.removeprefix("../") for path in figures[1])}:
        with Image.open(DOCS / "lessons" / path) as picture:
            assert min(picture.size) > 200
    blocks = [re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for text in (english, chinese)]
    assert blocks[0] == blocks[1]
    lines = [[line for line in text.splitlines() if line.startswith(("## ", "| "))] for text in (english, chinese)]
    assert len(lines[0]) == len(lines[1])
    assert not re.search("[\u4e00-\u9fff]", english)
    assert all(re.search("[\u4e00-\u9fffA-Za-z]", line) for line in lines[1] if line.startswith("## "))


TEXTS = """
shapes: {en: Shapes, zh: 形状}
words:
  en: |-
    Two words
    in two lines.
  zh: |-
    两行
    文字。
sizes: {en: "layer | |n|", zh: "层 | |n|"}
pixels: {en: pixels, zh: 像素}
"""


def test_page_is_rendered_in_both_languages(tmp_path, monkeypatch):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "text.yaml").write_text(TEXTS, encoding="utf-8")
    monkeypatch.setattr(texts, "LESSONS_FOLDER", tmp_path)
    page = Page(tmp_path, texts.LessonTexts("some"))
    page.heading("shapes")
    page.say("words")
    page.table("sizes", [[page.text("pixels"), 3], ["a|b", 0.5]])
    table = "| layer | \\|n\\| |\n| --- | --- |\n| pixels | 3 |\n| a\\|b | 0.5 |\n"
    expected = f"# T\n\n## Shapes\n\nTwo words in two lines.\n\n{table}"
    assert to_markdown("T", page.blocks, "en", "figures") == expected
    assert "两行文字。" in to_markdown("T", page.blocks, "zh", "figures")
    assert "| 像素 | 3 |" in to_markdown("T", page.blocks, "zh", "figures")
    assert [path.relative_to(tmp_path).parts[:-1] for path in write_pages("lenet", page, tmp_path)] == [
        ("lessons",),
        ("zh", "lessons"),
    ]


def test_a_notebook_shows_blocks_and_figures_in_its_language(tmp_path, monkeypatch):
    ipython = pytest.importorskip("IPython", reason="requirements/notebook.txt is not installed")
    assert notebook_show("en") is None  # no kernel runs this process
    shown = []
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr("IPython.display.display", lambda *objects: shown.extend(objects))
    Image.new("RGB", (3, 2)).save(tmp_path / "one.png")
    show = notebook_show("zh")
    show(Heading(Text("Shapes", "形状")))
    show(Picture(tmp_path / "one.png", Text("One pixel", "一个像素")))
    heading, figure, caption = shown
    assert (heading.data, caption.data) == ("## 形状", "*一个像素*")
    assert figure.data == (tmp_path / "one.png").read_bytes()


def test_command_without_name_lists_lessons(tool):
    done = tool("lesson")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in LESSONS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batchnorm"], ['no lesson "batchnorm"', 'did you mean "batch-norm"']),
        (["gradients", "-o", "data.rot=x"], ["data.rot", 'did you mean "data.root"']),
        (["network-shapes", "-o", "train.epochs"], ["train.epochs", "key=value"]),
        (["network-shapes", "-o", "train.epochs=2"], ["-o train.epochs=2: the lesson network-shapes takes device"]),
        (["gradients", "-o", "augment.flip=true"], ["-o augment.flip=true: the lesson gradients takes device, data"]),
        (["depth", "-o", "model.name=resnet18"], ["-o model.name=resnet18: the lesson depth takes", "not model.name"]),
        # With one seed thrice, the seeds' spread would be zero, and any lead larger.
        (["lenet", "-o", "train.seed=5"], ["-o train.seed=5: the lesson lenet takes", "but not", "train.seed"]),
        (["lenet", "-o", "train.learning_rate=0.1"], ["-o train.learning_rate=0.1", "but not"]),
    ],
)
def test_wrong_request_is_a_one_line_error(tool, tmp_path, arguments, words):
    done = tool("lesson", *arguments, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words)
    assert not (tmp_path / "out").exists()


def test_unwritable_folder_fails_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    shown = []
    with pytest.raises(RunFailure, match=str(tmp_path / "file")):
        Lesson("network-shapes").run(tmp_path / "file" / "lesson", show=shown.append)
    assert shown == []


def test_missing_cifar_10_is_named_with_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(open_splits, "CIFAR10", replace(open_splits.CIFAR10, archive=OfficialFile(url, "0" * 32)))
        with pytest.raises(UsageError) as failure:
            Lesson("gradients").run(tmp_path / "lesson", full=True, overrides=[f"data.root={tmp_path}"])
    (line,) = str(failure.value).splitlines()
    assert str(tmp_path / "cifar-10-python.tar.gz") in line


def test_machine_is_described_in_both_languages(monkeypatch):
    processor = machine.Processor("GenuineIntel", "Some CPU @ 2 GHz", frozenset())
    monkeypatch.setattr(machine, "processor", lambda: processor)
    monkeypatch.setattr(machine, "physical_cores", lambda: 7)
    where = describe_machine()
    for words in (where.en, where.zh):
        assert "Some CPU @ 2 GHz" in words
        assert paddle.__version__ in words
    assert "7 cores" in where.en
    assert "7 核" in where.zh
