"""A lesson's prose: the ``text.yaml`` of its folder, in English and in Chinese, with places for computed values."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.errors import RunFailure

Language: TypeAlias = Literal["en", "zh"]

LESSONS_FOLDER = Path(__file__).parents[1]
BETWEEN_LINES: dict[Language, str] = {"en": " ", "zh": ""}
BETWEEN_ITEMS: dict[Language, str] = {"en": ", ", "zh": "、"}


@dataclass(frozen=True)
class Text:
    """A text in English and in Chinese, as Markdown."""

    en: str
    zh: str

    def in_language(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


class LessonTexts:
    """The texts of a folder of lessons, by key.

    A text has places for values as in `str.format`: ``{loss:.3f}``, ``{plain.growth:.3f}``, ``{errors[resnet20]}``. A
    `Text` is inserted in the page's language, a list with the commas of the language, or with " | " between the items
    as ``{columns: | }``, and ``{epochs} epoch{epochs:plural}`` gets its "s" unless the number is 1.
    """

    def __init__(self, name: str | Path) -> None:
        """Read ``lessons/<name>/text.yaml``, or that of a folder elsewhere, and the texts of `common`."""
        self._name = name
        self._texts: dict[str, dict[Language, str]] = {}
        for folder in ("common", name):
            path = LESSONS_FOLDER / folder / "text.yaml"
            if path.exists():
                self._texts |= read_yaml(path, lambda key: True)

    def fill(self, key: str, values: Mapping[str, object]) -> Text:
        """Return the text of `key` with its values.

        Raises:
            RunFailure: there is no such key, or a value is missing.
        """
        if key not in self._texts:
            raise RunFailure(f'lessons/{self._name}/text.yaml has no "{key}"')
        try:
            return Text(*(_Filler(language).fill(self._texts[key][language], values) for language in BETWEEN_LINES))
        except LookupError as error:
            raise RunFailure(f'lessons/{self._name}/text.yaml, "{key}": no value for {error}') from None


@cache
def _labels() -> tuple[re.Pattern[str], dict[str, str]]:
    words = read_yaml(LESSONS_FOLDER / "labels.yaml", lambda key: True)
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])"), words


def label_in_chinese(label: str) -> str:
    """Return a label of a figure with the words of ``labels.yaml`` in Chinese."""
    pattern, words = _labels()
    chinese = pattern.sub(lambda match: words[match[1]], label)
    return label if chinese == label else chinese.replace(", ", "，").replace(": ", "：")


class _Filler(string.Formatter):
    """Inserts values in one language."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def fill(self, text: str, values: Mapping[str, object]) -> str:
        return self.vformat(BETWEEN_LINES[self._language].join(text.splitlines()), (), values)

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "plural":
            return "" if value == 1 else "s"
        if isinstance(value, list | tuple):
            return (format_spec or BETWEEN_ITEMS[self._language]).join(self.format_field(each, "") for each in value)
        if isinstance(value, Text):
            value = value.in_language(self._language)
        return super().format_field(value, format_spec)
