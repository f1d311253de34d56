"""Findings of an examination, and advice on what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """Findings on one subject by name, and a line of advice for each thing to change."""

    title: str
    texts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # the same for JSON (bytes, GFLOP/s)
    advice: list[str] = field(default_factory=list)
    usable: bool = True  # False where Paddle itself cannot be used

    def add(self, name: str, text: str, value: Any = None) -> None:
        """Add a finding; without a value, its text is the value too."""
        self.texts[name] = text
        self.values[name] = text if value is None else value
