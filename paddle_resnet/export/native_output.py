"""What compiled libraries print while they convert a model, kept from the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

STANDARD_STREAMS = (1, 2)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what is written to standard output and error, by compiled code too, to itself; show it on failure."""
    sys.stdout.flush()
    sys.stderr.flush()
    terminals = [os.dup(stream) for stream in STANDARD_STREAMS]
    with tempfile.TemporaryFile() as said:
        for stream in STANDARD_STREAMS:
            os.dup2(said.fileno(), stream)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(terminals[-1], said.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, terminal in zip(STANDARD_STREAMS, terminals, strict=True):
                os.dup2(terminal, stream)
                os.close(terminal)
