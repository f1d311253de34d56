"""What became of each tensor when weights were loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paddle_resnet.errors import UsageError, shown

_SHOWN = 3  # names in one line


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network's state dict a file gave, by name.

    Attributes:
        source: the file, as messages name it.
        classes: outputs of the network's head; 0: it has none.
        loaded: taken from the file.
        skipped_head: the head's: left new, as the file has no head or one for another number of classes; or left out,
            as the network has none.
        missing: in the network but not in the file.
        unexpected: in the file but not in the network.
        mismatched: in both, but of another shape or not floating-point; each with an explanation.
    """

    source: str
    classes: int
    loaded: tuple[str, ...]
    skipped_head: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]

    def summary(self) -> str:
        """One line, such as ``x.pdparams: 100 of 102 tensors loaded; new head for 10 classes (fc.weight, fc.bias)``."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        if self.classes:
            total += len(self.skipped_head)
        parts = [f"{self.source}: {len(self.loaded)} of {total} tensors loaded"]
        if self.skipped_head:
            head = f"new head for {self.classes} classes" if self.classes else "its head left out"
            parts.append(f"{head} ({', '.join(self.skipped_head)})")
        return "; ".join([*parts, *self._problems()])

    def require_fit(self) -> None:
        """Refuse weights that fit only in part.

        Raises:
            UsageError: names the first tensors that do not fit, and the likely cause.
        """
        if problems := self._problems():
            raise UsageError(f"{self.source}: does not fit the network: {'; '.join(problems)}; {self._likely_cause()}")

    def _problems(self) -> list[str]:
        problems = []
        if self.missing:
            problems.append(f"{len(self.missing)} missing ({_first(self.missing)})")
        if self.unexpected:
            problems.append(f"{len(self.unexpected)} unexpected ({_first(self.unexpected)})")
        if self.mismatched:
            problems.append(f"{len(self.mismatched)} that do not match ({_first([*self.mismatched.values()], 200)})")
        return problems

    def _likely_cause(self) -> str:
        if list(self.mismatched) == ["conv1.weight"] and not self.missing and not self.unexpected:
            return "only the first convolution differs: probably the number of input channels"
        return "probably the weights of another architecture: check the model's name"


def _first(names: Sequence[str], limit: int = 80) -> str:
    return ", ".join(shown(name, limit) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
