"""The processes that train one network together, as ``python -m paddle.distributed.launch`` starts them.

Each has a number, and the first one, 0, alone writes and speaks. Until a process has joined the others (`join`), and
where there are none, it is the first and only one, and nothing here has an effect. What one process passes to another
goes through gloo between CPUs and NCCL between GPUs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.errors import RunFailure, UsageError

if TYPE_CHECKING:
    import numpy as np
    import paddle

SECONDS_BETWEEN_LOOKS = 0.02
LAUNCHERS_ENVIRONMENT = "/proc/{}/environ"


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    number: int = 0
    count: int = 1
    number_on_host: int = 0
    count_on_host: int = 1


_place = Place()
_meetings = 0


def launched() -> Place:
    """The place that the launcher gave this process, joined or not."""
    return Place(
        number=int(os.environ.get("PADDLE_TRAINER_ID", "0")),
        count=int(os.environ.get("PADDLE_TRAINERS_NUM", "1")),
        number_on_host=int(os.environ.get("PADDLE_LOCAL_RANK", "0")),
        count_on_host=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")),
    )


def own_gpu() -> int:
    """The number of the GPU that the launcher gave this process; 0 without a launcher."""
    return int(os.environ.get("FLAGS_selected_gpus", "0").split(",")[0])  # noqa: SIM112 (Paddle's name)


def here() -> Place:
    """The place of this process among those it has joined."""
    return _place


def count() -> int:
    """How many processes train together."""
    return _place.count


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return _place.number == 0


def join(device: str) -> None:
    """Join the processes that were launched with this one; each has to. On `device` they will compute."""
    global _place
    place = launched()
    if place.count == 1 or _place.count > 1:
        return
    from paddle import distributed

    if device == "cpu":
        # Paddle decides by its build, which may be one for GPUs.
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    with _in_one_line():
        distributed.init_parallel_env()
    _place = place


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Within the block, Paddle sees one process: `paddle.Model` would wrap its network in `DataParallel`."""
    seen = os.environ.pop("PADDLE_TRAINERS_NUM", None)
    try:
        yield
    finally:
        if seen is not None:
            os.environ["PADDLE_TRAINERS_NUM"] = seen


def total(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Sum the float64 ``[n]`` of every process; each gets the sums, the same bits."""
    import numpy as np

    values = np.asarray(values, np.float64)
    if _place.count == 1:
        return values
    import paddle

    tensor = paddle.to_tensor(values)
    with _in_one_line():
        paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def largest(value: float) -> float:
    """The largest of the processes' values."""
    if _place.count == 1:
        return value
    import paddle

    tensor = paddle.to_tensor([value], "float64")
    with _in_one_line():
        paddle.distributed.all_reduce(tensor, op=paddle.distributed.ReduceOp.MAX)
    return float(tensor.item())


def average(tensors: Sequence[paddle.Tensor]) -> None:
    """Give float32 tensors, in place, their mean over the processes; each has to give as many, in the same order."""
    if _place.count == 1 or not tensors:
        return
    import paddle

    with paddle.no_grad(), _in_one_line():
        # As one: a message costs more than what it says.
        joined = paddle.concat([tensor.flatten() for tensor in tensors])
        paddle.distributed.all_reduce(joined)
        _put_back(joined / _place.count, tensors)


def take_from_first(tensors: Sequence[paddle.Tensor]) -> None:
    """Give float32 tensors, in place, the values that they have in the first process."""
    if _place.count == 1 or not tensors:
        return
    import paddle

    with paddle.no_grad(), _in_one_line():
        joined = paddle.concat([tensor.flatten() for tensor in tensors])
        paddle.distributed.broadcast(joined, 0)
        _put_back(joined, tensors)


def _put_back(joined: paddle.Tensor, tensors: Sequence[paddle.Tensor]) -> None:
    parts = joined.split([tensor.size for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.set_value(part.reshape(tensor.shape))


def wait_for_all() -> None:
    """Wait until every process is here, however long that takes: gloo itself gives up after a while."""
    global _meetings
    if _place.count == 1:
        return
    from paddle.base import core

    _meetings += 1
    name = f"paddle_resnet/meeting/{_meetings}"
    with _in_one_line():
        store = core.create_or_get_global_tcp_store()
        arrived = _add(store, name, 1)
        while arrived < _place.count:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            arrived = _add(store, name, 0)


def _add(store: Any, name: str, number: int) -> int:
    """Add to a number in the store; signals wait, as one that comes meanwhile would be taken for a lost connection."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return store.add(name, number)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextlib.contextmanager
def first_goes_ahead(*, on_host: bool = False) -> Iterator[None]:
    """Let the first process (or the first of each host) through the block before the others."""
    ahead = (_place.number_on_host if on_host else _place.number) == 0
    if not ahead:
        wait_for_all()
    yield
    if ahead:
        wait_for_all()


def require_alike(what: Mapping[str, Any]) -> None:
    """See that all processes have the same of everything that `what` names, once the last of them is here.

    Raises:
        UsageError: in every process, the first name whose value is not the same in all.
    """
    wait_for_all()
    for name, value in what.items():
        checksum = zlib.crc32(repr(value).encode())
        if largest(checksum) != -largest(-checksum):
            raise UsageError(
                f"{name}: not the same in all {_place.count} processes; each has to find the same files at the same "
                "place, on every host"
            )


def set_by_user(variable: str) -> bool:
    """Whether the environment variable, which is set, was the user's choice.

    The launcher imports Paddle, which sets some itself, and hands them on to the processes it starts. What the
    launcher was started with tells, where the kernel does.
    """
    if launched().count == 1:
        return True
    try:
        given = Path(LAUNCHERS_ENVIRONMENT.format(os.getppid())).read_bytes()
    except OSError:
        return True
    return any(entry.startswith(f"{variable}=".encode()) for entry in given.split(b"\0"))


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Say in one line that another process is gone, which Paddle says with a page of stack."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        raise RunFailure(
            f"process {launched().number} of {launched().count}: another one ended, or was not there within gloo's 30 "
            f"seconds; its own log says why: {os.environ.get('PADDLE_LOG_DIR', 'log')}/workerlog.<number>"
        ) from error
