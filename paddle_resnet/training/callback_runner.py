"""Runs a training's callbacks through `paddle.Model.fit`, and saves and restores their states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partialmethod
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from paddle.callbacks import Callback

from paddle_resnet.errors import UsageError

Logs = dict[str, Any]  # what `paddle.Model.fit` knows of a step or a validation: batch size, loss and metrics by name
State = dict[str, Any]


class Position(NamedTuple):
    """A point of a run between two steps."""

    epoch: int  # epochs finished, validation included: the index of the epoch in progress
    step: int  # steps done of the epoch in progress; all of them during its validation


BEGINNING = Position(0, 0)


@runtime_checkable
class Stateful(Protocol):
    """An object whose state is part of ``checkpoints/last``: some callbacks, the train loader, the VisualDL log.

    A state holds what JSON can: finite numbers, strings, None, lists, and dicts with string keys. It is saved between
    two steps or two epochs, and loaded at the same point: after `on_train_begin`, and within an epoch after
    `on_epoch_begin` too, so that it replaces what these two have reset.
    """

    state_name: ClassVar[str]
    """The key in ``state.json``. It never changes, not even with the name of the class: older checkpoints have it."""

    def state_dict(self) -> State:
        """Return the state."""

    def set_state_dict(self, state: State) -> None:
        """Take over a saved state."""


def _stateful(parts: Iterable[object]) -> Iterator[Stateful]:
    for part in parts:
        if hasattr(part, "state_dict") and not isinstance(part, Stateful):
            raise TypeError(f"{type(part).__name__} has a state_dict, but no state_name or no set_state_dict")
        if isinstance(part, Stateful):
            yield part


def collect_states(parts: Iterable[object]) -> dict[str, State]:
    """Return the states of the `Stateful` ones among `parts`, by `state_name`."""
    return {part.state_name: part.state_dict() for part in _stateful(parts)}


def load_states(parts: Iterable[object], states: Mapping[str, State]) -> None:
    """Give each `Stateful` part the state of its `state_name`; raise `UsageError` if there is none."""
    for part in _stateful(parts):
        if part.state_name not in states:
            if getattr(part, "state_is_optional", False):  # a part that can be turned on for a resumed run
                continue
            raise UsageError(f"checkpoints/last/state.json: states.{part.state_name} is missing; start a new run")
        part.set_state_dict(states[part.state_name])


class CallbackRunner(Callback):
    """Calls `callbacks` in order, with epochs and steps counted from the beginning of the run.

    `paddle.Model.fit` always counts from 0, in a resumed run too.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        epochs: int,
        steps: int,
        start: Position = BEGINNING,
        restore: Callable[[], None] = lambda: None,
    ) -> None:
        """Run through `epochs` epochs, those already done included, of `steps` steps each.

        `restore` is called once, at `start`, to load the states that were saved there.
        """
        super().__init__()
        self._callbacks = callbacks
        self._epochs = epochs
        self._steps = steps
        self._start = start
        self._restore = restore
        self._steps_before = start.step

    def set_params(self, params: Logs) -> None:
        super().set_params(params)
        self._call("set_params", {**params, "epochs": self._epochs, "steps": self._steps})

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._call("set_model", model)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._call("on_train_begin", logs)
        if self._start.step == 0:
            self._restore()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("on_epoch_begin", epoch + self._start.epoch, logs)
        if epoch == 0 and self._start.step:
            self._restore()

    def on_train_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        self._call("on_train_batch_begin", step + self._steps_before, logs)

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        self._call("on_train_batch_end", step + self._steps_before, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._steps_before = 0
        self._call("on_epoch_end", epoch + self._start.epoch, logs)

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*arguments)

    on_eval_begin = partialmethod(_call, "on_eval_begin")
    on_eval_batch_begin = partialmethod(_call, "on_eval_batch_begin")
    on_eval_batch_end = partialmethod(_call, "on_eval_batch_end")
    on_eval_end = partialmethod(_call, "on_eval_end")
    on_train_end = partialmethod(_call, "on_train_end")
