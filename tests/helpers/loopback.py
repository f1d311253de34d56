"""A server of one file on this machine, with the faults that networks have."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its `FileServer` says."""

    server: FileServer

    def do_GET(self) -> None:
        server, content, wanted = self.server, self.server.content, self.headers.get("Range")
        server.ranges.append(wanted)
        if self.path != f"/{server.name}":
            return self.send_error(404)
        if len(server.ranges) > server.requests_answered:
            return self.send_error(503)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return None
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = min(len(content), start + server.break_after) if server.break_after else len(content)
        self.wfile.write(content[start:end])
        return None

    def log_message(self, *args: object) -> None:
        pass


class FileServer(http.server.ThreadingHTTPServer):
    """Serves one file.

    Attributes:
        content: what is in the file.
        name: its name, which is all of its path.
        ranges: the Range header of each request so far; None of one without.
        knows_ranges: whether it sends what is asked for, or always the whole file.
        break_after: bytes after which it closes each connection; 0: never.
        requests_answered: from so many requests on it is out of service.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.name = name
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.break_after = 0
        self.requests_answered = 1000
        self.url = f"http://127.0.0.1:{self.server_port}/{name}"


@contextlib.contextmanager
def serving(content: bytes, name: str = "file.bin") -> Iterator[FileServer]:
    """Serve the file while the block runs."""
    with FileServer(content, name) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
