"""The course of a run through `paddle.Model.fit`, from its beginning or from where an earlier process was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from paddle.callbacks import Callback

from paddle_resnet.errors import UsageError

Logs = dict[str, Any]
State = dict[str, Any]


class Position(NamedTuple):
    """Where a run stands between two steps."""

    epoch: int
    """Epochs finished, validation included: the index of the epoch in progress."""
    step: int
    """Steps done in the epoch in progress; all of them while it is validated."""


BEGINNING = Position(0, 0)


@runtime_checkable
class Stateful(Protocol):
    """What changes from step to step, and so goes into ``checkpoints/last``: some callbacks, the loader, the curves.

    A state is what JSON can hold: numbers (no NaN or infinity: use None), strings, lists and dicts by string. It is
    taken between two steps, or between two epochs, and put back at the same place of `fit`'s course: after
    `on_train_begin`, and within an epoch after `on_epoch_begin` too, so that what these two reset is set again.
    """

    state_name: ClassVar[str]
    """Its key in ``state.json``. It stays as it is when the class is renamed, so that older checkpoints can be read."""

    def state_dict(self) -> State:
        """Return the state as it is now."""

    def set_state_dict(self, state: State) -> None:
        """Go on from `state`."""


def _stateful(parts: Iterable[object]) -> Iterator[Stateful]:
    """Those of `parts` that have a state."""
    for part in parts:
        if hasattr(part, "state_dict") and not isinstance(part, Stateful):
            raise TypeError(f"{type(part).__name__} has a state_dict, but no state_name or no set_state_dict")
        if isinstance(part, Stateful):
            yield part


def collect_states(parts: Iterable[object]) -> dict[str, State]:
    """Return the states of those `parts` that have one, by their `state_name`."""
    return {part.state_name: part.state_dict() for part in _stateful(parts)}


def load_states(parts: Iterable[object], states: Mapping[str, State]) -> None:
    """Give each of `parts` that has a state the one of its `state_name`.

    Raises:
        UsageError: there is none of that name.
    """
    for part in _stateful(parts):
        if part.state_name not in states:
            raise UsageError(f"checkpoints/last/state.json: states.{part.state_name} is missing; start a new run")
        part.set_state_dict(states[part.state_name])


class Course(Callback):
    """Calls `callbacks` in their order, with epochs and steps counted from the run's beginning.

    `paddle.Model.fit` has no first epoch: in a resumed run it counts from 0 again, and its callbacks would too.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        epochs: int,
        steps: int,
        start: Position = BEGINNING,
        restore: Callable[[], None] = lambda: None,
    ) -> None:
        """Lead through a run of `epochs` of `steps` each.

        Args:
            callbacks: what is called.
            epochs: of the whole run, those done included.
            steps: in a whole epoch.
            start: where the run stands.
            restore: puts the states back that were taken at `start`.
        """
        super().__init__()
        self._callbacks = callbacks
        self._epochs = epochs
        self._steps = steps
        self._start = start
        self._restore = restore
        self._steps_before = start.step

    def set_params(self, params: Logs) -> None:
        """Tell the callbacks of the whole run."""
        super().set_params(params)
        for callback in self._callbacks:
            callback.set_params({**params, "epochs": self._epochs, "steps": self._steps})

    def set_model(self, model: Any) -> None:
        """Give the callbacks the model."""
        super().set_model(model)
        for callback in self._callbacks:
            callback.set_model(model)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin; between two epochs, go on from the states there."""
        self._call("on_train_begin", logs)
        if self._start.step == 0:
            self._restore()

    def on_epoch_begin(self, epoch: int | None = None, logs: Logs | None = None) -> None:
        """Begin an epoch; in the middle of one, go on from the states there."""
        self._call("on_epoch_begin", (epoch or 0) + self._start.epoch, logs)
        if not epoch and self._start.step:
            self._restore()

    def on_train_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        """Begin a step."""
        self._call("on_train_batch_begin", step + self._steps_before, logs)

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        """End a step."""
        self._call("on_train_batch_end", step + self._steps_before, logs)

    def on_epoch_end(self, epoch: int | None = None, logs: Logs | None = None) -> None:
        """End an epoch's training; its validation follows."""
        self._steps_before = 0
        self._call("on_epoch_end", (epoch or 0) + self._start.epoch, logs)

    def on_eval_begin(self, logs: Logs | None = None) -> None:
        """Begin a validation."""
        self._call("on_eval_begin", logs)

    def on_eval_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        """Begin a batch of a validation."""
        self._call("on_eval_batch_begin", step, logs)

    def on_eval_batch_end(self, step: int, logs: Logs | None = None) -> None:
        """End a batch of a validation."""
        self._call("on_eval_batch_end", step, logs)

    def on_eval_end(self, logs: Logs | None = None) -> None:
        """End an epoch's validation, and with it the epoch."""
        self._call("on_eval_end", logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """End."""
        self._call("on_train_end", logs)

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*arguments)
