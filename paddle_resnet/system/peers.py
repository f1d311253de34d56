"""Whether the other processes of a training live: each keeps a connection to rank 0, which the kernel closes.

A launcher watches the processes of its own host. Without these connections, a process that waits without a time limit
would wait for ever for one that ended on another host. A process may be busy as long as it likes: there is no heartbeat
that it could miss. Where a whole host is gone, keep-alive probes of the kernel close the connection after 40 seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds without data, seconds between probes, and probes; systems without these names use their own numbers."""
CONNECT_SECONDS = 30


def listen(others: int) -> socket.socket:
    """Listen for the connections of that many processes, at a free port of all interfaces."""
    server = socket.create_server(("", 0), backlog=others)
    server.settimeout(CONNECT_SECONDS)
    return server


def accept(server: socket.socket, others: int) -> list[socket.socket]:
    """Accept the connections of the others, and close the server.

    Raises:
        OSError: one did not come within 30 seconds.
    """
    with server:
        return [_watched(server.accept()[0]) for _ in range(others)]


def connect(host: str, port: int) -> list[socket.socket]:
    """Connect to rank 0; raise OSError where it does not listen there."""
    return [_watched(socket.create_connection((host, port), timeout=CONNECT_SECONDS))]


def is_lost(connections: Sequence[socket.socket]) -> bool:
    """Return whether the process at the other end of one of the connections has ended."""
    for connection in connections:
        try:
            if not connection.recv(1):
                return True
        except BlockingIOError:  # it is open, and nothing is ever sent
            continue
        except OSError:
            return True
    return False


def _watched(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
