"""Reading a pickle as data: nothing in the file can run code.

A pickle is a small program that may call any importable function. Here it may only name the few globals that rebuild
numpy arrays and plain containers; every other name is refused before it is looked up.
"""

from __future__ import annotations

import _codecs
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

from paddle_resnet.errors import UsageError

# Asked of numpy rather than imported: the module is numpy.core before version 2 and numpy._core since. A file written
# by either reads under both.
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]

NUMPY_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}


def load(
    file: BinaryIO,
    name: str,
    *,
    allowed: Mapping[tuple[str, str], Any] = NUMPY_GLOBALS,
    encoding: str = "ASCII",
    persistent_load: Callable[[Any], Any] | None = None,
    remedy: str = "",
) -> Any:
    """Read one pickle whose only globals are the `allowed` ones.

    Args:
        file: the open binary file.
        name: what an error calls the file.
        allowed: (module, name) as written in the file, to the object it stands for.
        encoding: how the byte strings of Python 2 are read, as in `pickle.load`.
        persistent_load: gives what a persistent id stands for; None: the pickle may have none.
        remedy: what a person can do about a refused global, said at the error's end.

    Raises:
        UsageError: the file asks for another global, or is damaged, cut short or no pickle at all.
    """
    try:
        return _RestrictedUnpickler(file, name, allowed, encoding, persistent_load, remedy).load()
    except UsageError:
        raise
    except Exception as error:  # damaged opcodes surface as almost any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{name}: cannot be read as a pickle ({reason}): the file is damaged, cut short or of another kind; "
            "get it again"
        ) from error


class _RestrictedUnpickler(pickle._Unpickler):
    """The unpickler of Python's documentation, "Restricting Globals", whose memory is in proportion to the file.

    The one written in Python, as that in C makes a list as long as the largest index a file names; and without byte
    arrays, which are made as long as the file says before they are read.
    """

    dispatch: ClassVar = {
        code: read for code, read in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        allowed: Mapping[tuple[str, str], Any],
        encoding: str,
        persistent_load: Callable[[Any], Any] | None,
        remedy: str,
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._name = name
        self._allowed = allowed
        self._persistent_load = persistent_load
        self._remedy = remedy

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up among the allowed ones, never by importing it."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise UsageError(
                f"{self._name}: asks for {module}.{name}, which is not data: loading it could run code"
                + (f"; {self._remedy}" if self._remedy else "")
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """Resolve a reference to what lies outside the pickle."""
        if self._persistent_load is None:
            raise pickle.UnpicklingError("it refers to data outside the pickle")
        return self._persistent_load(pid)


def kind_of(value: Any) -> str:
    """What an error calls a value of the wrong kind: ``an empty dict``, ``a list``."""
    empty = isinstance(value, dict | list | tuple) and not value
    return f"{'an empty' if empty else 'a'} {type(value).__name__}"
