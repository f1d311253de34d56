"""The processes that train one network together, started by ``python -m paddle.distributed.launch``.

Rank 0 is the main process, which alone writes files and log lines. Before `join`, and in a single process, this is rank
0 of 1, and collective calls do nothing. They use gloo between CPUs and NCCL between GPUs. Every rank has to make the
same calls in the same order.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from paddle_resnet.errors import RunFailure, UsageError

if TYPE_CHECKING:
    import numpy as np
    import paddle

Arguments = ParamSpec("Arguments")
MESSAGE_BYTES = 1 << 24  # Gloo allows 30 seconds for each message, over a slow network too
FIRST_ENVIRONMENT = "/proc/{}/environ"
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 40_000}
"""Seconds without data and between probes, probes, and milliseconds for what was sent; not every system has all."""
CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Ranks:
    """Rank and world size of this process, over all hosts and on its own."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


_joined = Ranks()
_connections: list[socket.socket] = []


def launched() -> Ranks:
    """Return the ranks that the launcher gave this process, whether it has joined or not."""
    return Ranks(
        rank=int(os.environ.get("PADDLE_TRAINER_ID", "0")),
        world_size=int(os.environ.get("PADDLE_TRAINERS_NUM", "1")),
        local_rank=int(os.environ.get("PADDLE_LOCAL_RANK", "0")),
        local_world_size=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")),
    )


def local_gpu() -> int:
    """Return the number of the GPU that the launcher gave this process; 0 without a launcher."""
    return int(os.environ.get("FLAGS_selected_gpus", "0").split(",")[0])  # noqa: SIM112 (Paddle's name)


def joined() -> Ranks:
    """Return the ranks of this process among the processes that it has joined."""
    return _joined


def world_size() -> int:
    """Return how many processes train together."""
    return _joined.world_size


def is_main_process() -> bool:
    """Return whether this is rank 0, which writes files and log lines."""
    return _joined.rank == 0


def main_process_only(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Make a function that does nothing in the other ranks."""

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if is_main_process():
            function(*arguments, **options)

    return call


def join(device: str) -> None:
    """Join the processes that were launched with this one, to compute on `device`; every process has to."""
    global _joined
    ranks = launched()
    if ranks.world_size == 1 or _joined.world_size > 1:
        return
    from paddle import distributed

    if device == "cpu":
        # Paddle decides by its build, which may be one for GPUs.
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    with _lost_peer_in_one_line():
        distributed.init_parallel_env()
        _joined = ranks
        _connect_to_main_process()


def _connect_to_main_process() -> None:
    """Connect each rank to rank 0, for `barrier`."""
    global _connections
    others = _joined.world_size - 1
    if is_main_process():
        with socket.create_server(("", 0), backlog=others) as server:  # at a free port of all interfaces
            server.settimeout(CONNECT_SECONDS)
            all_reduce_max(server.getsockname()[1])
            _connections = [with_probes(server.accept()[0]) for _ in range(others)]
    else:
        first = os.environ.get("PADDLE_MASTER") or os.environ["PADDLE_TRAINER_ENDPOINTS"]
        address = first.split(":")[0], int(all_reduce_max(0))
        _connections = [with_probes(socket.create_connection(address, CONNECT_SECONDS))]


def with_probes(connection: socket.socket) -> socket.socket:
    """Let a connection wait without a limit, and the kernel end it where the other host is gone (`KEEP_ALIVE`)."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        with contextlib.suppress(AttributeError, OSError):  # the kernel may know fewer than Python
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


@contextlib.contextmanager
def hide_world_size() -> Iterator[None]:
    """Within the block, Paddle sees one process: `paddle.Model` would wrap its network in `DataParallel`."""
    seen = os.environ.pop("PADDLE_TRAINERS_NUM", None)
    try:
        yield
    finally:
        if seen is not None:
            os.environ["PADDLE_TRAINERS_NUM"] = seen


def all_reduce_sum(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the sum of float64 ``[n]`` over the ranks, the same bits in each."""
    import numpy as np

    values = np.asarray(values, np.float64)
    if _joined.world_size == 1:
        return values
    import paddle

    tensor = paddle.to_tensor(values)
    with _lost_peer_in_one_line():
        paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def all_reduce_max(value: float) -> float:
    """Return the largest of the ranks' values."""
    if _joined.world_size == 1:
        return value
    import paddle

    tensor = paddle.to_tensor([value], "float64")
    with _lost_peer_in_one_line():
        paddle.distributed.all_reduce(tensor, op=paddle.distributed.ReduceOp.MAX)
    return float(tensor.item())


def all_reduce_mean(tensors: Sequence[paddle.Tensor]) -> None:
    """Replace float32 tensors, in place, by their mean over the ranks; all ranks give the same number and shapes."""
    if _joined.world_size == 1 or not tensors:
        return
    import paddle

    with paddle.no_grad(), _lost_peer_in_one_line():
        # One message, as its cost hardly depends on its size.
        joined = paddle.concat([tensor.flatten() for tensor in tensors])
        paddle.distributed.all_reduce(joined)
        _copy_parts(joined / _joined.world_size, tensors)


def broadcast(tensors: Sequence[paddle.Tensor]) -> None:
    """Replace float32 tensors, in place, by those of rank 0."""
    if _joined.world_size == 1 or not tensors:
        return
    import paddle

    with paddle.no_grad(), _lost_peer_in_one_line():
        joined = paddle.concat([tensor.flatten() for tensor in tensors])
        paddle.distributed.broadcast(joined, 0)
        _copy_parts(joined, tensors)


def broadcast_bytes(content: bytes) -> bytes:
    """Return the bytes of rank 0, `MESSAGE_BYTES` or not much more; what the others give is ignored."""
    if _joined.world_size == 1:
        return content
    import numpy as np
    import paddle

    size = int(all_reduce_max(len(content) if is_main_process() else 0))
    if size == 0:
        return b""
    message = paddle.to_tensor(np.frombuffer(content if is_main_process() else bytes(size), np.uint8))
    with _lost_peer_in_one_line():
        paddle.distributed.broadcast(message, 0)
    return message.numpy().tobytes()


def _copy_parts(joined: paddle.Tensor, tensors: Sequence[paddle.Tensor]) -> None:
    parts = joined.split([tensor.size for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.set_value(part.reshape(tensor.shape))


def barrier() -> None:
    """Wait for all ranks without a time limit, while they live; gloo's own barrier gives up after 30 s.

    Each tells rank 0 by a byte, and it answers when all have. The kernel closes a process's connection when it ends, on
    another host too, which no launcher watches. A process may be busy as long as it likes, as there is no heartbeat
    that it could miss. Where the network is cut, probes of the kernel end the waiting after 40 seconds.

    Raises:
        RunFailure: another process has ended; it may be on another host.
    """
    if _joined.world_size == 1:
        return
    with _lost_peer_in_one_line():
        for tell in (False, True) if is_main_process() else (True, False):
            for connection in _connections:
                if tell:
                    connection.sendall(b"\n")
                elif not connection.recv(1):
                    raise ConnectionError("another process has ended")


@contextlib.contextmanager
def main_process_first(*, on_host: bool = False) -> Iterator[None]:
    """Run the block in rank 0 (or in the first rank of each host) before the other ranks run it."""
    ahead = (_joined.local_rank if on_host else _joined.rank) == 0
    if not ahead:
        barrier()
    yield
    if ahead:
        barrier()


def check_equal_across_ranks(what: Mapping[str, Any]) -> None:
    """Check that every value of `what` is the same in all ranks.

    Raises:
        UsageError: in every rank, for the first name whose values differ.
    """
    barrier()
    for name, value in what.items():
        checksum = zlib.crc32(repr(value).encode())
        if all_reduce_max(checksum) != -all_reduce_max(-checksum):
            raise UsageError(
                f"{name}: not the same in all {_joined.world_size} processes; start the same command on every host, "
                "with the same data at the same path"
            )


def set_by_user(variable: str) -> bool:
    """Return whether the user set the environment variable, which is set in this process.

    Paddle's import sets some variables itself, and a launcher passes them to the processes that it starts. So the
    environment that this process, or its launcher, began with is read, where the kernel shows it.
    """
    process = os.getpid() if launched().world_size == 1 else os.getppid()
    try:
        given = Path(FIRST_ENVIRONMENT.format(process)).read_bytes()
    except OSError:
        return True
    return any(entry.startswith(f"{variable}=".encode()) for entry in given.split(b"\0"))


@contextlib.contextmanager
def _lost_peer_in_one_line() -> Iterator[None]:
    """Raise a RunFailure where another process is gone, instead of Paddle's page of stack."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        raise RunFailure(
            f"process {launched().rank} of {launched().world_size}: another one ended, or was not there within gloo's "
            "30 seconds; its own log, on its host, says why: "
            f"{os.environ.get('PADDLE_LOG_DIR', 'log')}/workerlog.<number>"
        ) from error
