"""Findings of an examination, and advice on what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A finding in words, and as a value for JSON (bytes, GFLOP/s); None: the words."""

    name: str
    text: str
    value: Any = None


@dataclass
class Section:
    """Findings on one subject, and a line of advice for each thing to change."""

    title: str
    findings: list[Finding] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    usable: bool = True
    """False where Paddle itself cannot be used."""

    def add(self, name: str, text: str, value: Any = None) -> None:
        self.findings.append(Finding(name, text, value))

    def values(self) -> dict[str, Any]:
        return {each.name: each.text if each.value is None else each.value for each in self.findings}
