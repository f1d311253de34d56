"""A barrier over connections to rank 0: the kernel closes a process's connection when it ends, on another host too.

A launcher watches the processes of its own host only. So a barrier without a time limit that asks a store would wait
for ever for a process that ended on another host. Here a process may be busy as long as it likes, as there is no
heartbeat that it could miss. Where the network is cut, probes of the kernel end the waiting after 40 seconds.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 40_000}
"""Seconds without data and between probes, probes, and milliseconds for what was sent; not every system has all."""
CONNECT_SECONDS = 30


def listen(others: int) -> socket.socket:
    """Listen for the connections of that many processes, at a free port of all interfaces."""
    server = socket.create_server(("", 0), backlog=others)
    server.settimeout(CONNECT_SECONDS)
    return server


def accept(server: socket.socket, others: int) -> list[socket.socket]:
    """Accept the connections of the others, and close the server; raise OSError if one does not come in 30 seconds."""
    with server:
        return [_probed(server.accept()[0]) for _ in range(others)]


def connect(host: str, port: int) -> list[socket.socket]:
    """Connect to rank 0; raise OSError where it does not listen there."""
    return [_probed(socket.create_connection((host, port), CONNECT_SECONDS))]


def _probed(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        with contextlib.suppress(AttributeError, OSError):  # the kernel may know fewer than Python
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def barrier(connections: Sequence[socket.socket], *, is_first: bool) -> None:
    """Wait until every process is here: each tells rank 0 by a byte, and it answers when all have.

    Raises:
        OSError: the process at the other end of a connection has ended, or the network was cut.
    """
    for tell in (False, True) if is_first else (True, False):
        for connection in connections:
            if tell:
                connection.sendall(b"\n")
            elif not connection.recv(1):
                raise ConnectionError("another process has ended")
