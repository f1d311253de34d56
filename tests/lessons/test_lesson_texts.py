"""The lessons' texts: both languages, the same values in both, each used, and what fills them."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest
import yaml

from paddle_resnet import lessons
from paddle_resnet.errors import RunFailure
from paddle_resnet.lessons.framework import texts
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts, Text

FOLDER = Path(lessons.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/text.yaml"))


def read(name):
    return yaml.safe_load((FOLDER / name / "text.yaml").read_text(encoding="utf-8"))


def fields(text):
    """Return the values that a text names, such as ``plain.growth``; a plural belongs to one language only."""
    return {field for _, field, spec, _ in string.Formatter().parse(text) if field and spec != "plural"}


def syntax_trees(name):
    return [ast.parse(path.read_text(encoding="utf-8")) for path in (FOLDER / name).glob("*.py")]


@pytest.mark.parametrize("name", NAMES)
def test_texts_have_both_languages_and_equal_placeholders(name):
    for key, text in read(name).items():
        assert set(text) == {"en", "zh"}, key
        assert all(isinstance(words, str) and words for words in text.values()), key
        assert fields(text["en"]) == fields(text["zh"]), key


@pytest.mark.parametrize("name", NAMES)
def test_no_chinese_line_ends_within_words_that_need_a_space(name):
    """Lines of a Chinese text are joined without one."""
    broken = {key: re.findall(r"[!-~]\n[!-~]+", text["zh"]) for key, text in read(name).items()}
    assert {key: words for key, words in broken.items() if words} == {}


@pytest.mark.parametrize("name", NAMES)
def test_each_text_is_used(name):
    used = set()
    for node in (node for tree in syntax_trees(name) for node in ast.walk(tree)):
        match node:
            case ast.Constant(value):
                used.add(value)
            case ast.Call(ast.Attribute(attr="section"), [ast.Constant(key), *_]):
                used.add(f"{key}_heading")
    assert [key for key in read(name) if key not in used] == []


@pytest.mark.parametrize("name", NAMES)
def test_calls_give_the_values_of_their_text(name):
    known = read("common") | read(name) if "common" in NAMES else read(name)
    for tree in syntax_trees(name):
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    ast.Attribute(attr="say" | "heading" | "section" | "text" | "table" | "figure" as method),
                    [first, *_],
                    values,
                ):
                    keys = [each.value for each in ast.walk(first) if isinstance(each, ast.Constant)]
                    keys += [f"{key}_heading" for key in keys] if method == "section" else []
                    needed = {
                        key: {field.partition(".")[0].partition("[")[0] for field in fields(known[key]["en"])}
                        for key in keys
                        if key in known
                    }
                    given = {value.arg for value in values}
                    assert None in given or all(names <= given for names in needed.values()), (needed, given)


TRAINED = """
trained:
  en: |-
    {name}: {n} epoch{n:plural}
    of {x[0].real:.2f} s on {data}
  zh: |-
    用 {data} 训练
    {n} 轮：{name}
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "text.yaml").write_text(TRAINED, encoding="utf-8")
    monkeypatch.setattr(texts, "LESSONS_FOLDER", tmp_path)
    return Page(tmp_path, texts=LessonTexts("some"))


@pytest.mark.parametrize(("n", "epochs"), [(1, "1 epoch"), (3, "3 epochs")])
def test_values_are_inserted_in_the_language(page, n, epochs):
    text = page.text("trained", name=["a", "b"], n=n, x=[0.126], data=Text("digits", "数字"))
    assert text.en == f"a, b: {epochs} of 0.13 s on digits"
    assert text.zh == f"用 数字 训练{n} 轮：a、b"


def test_missing_text_or_value_is_named(page):
    with pytest.raises(RunFailure, match=r'lessons/some/text.yaml has no "loss"'):
        page.say("loss")
    with pytest.raises(RunFailure, match=r"""lessons/some/text.yaml, "trained": no value for 'n'"""):
        page.say("trained", name="a")
