"""Reading a pickle as data: nothing in the file can run code.

A pickle is a small program that may call any importable function. Here it may only name the few globals that rebuild
numpy arrays and plain containers; every other name is refused before it is looked up.
"""

from __future__ import annotations

import _codecs
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

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
) -> Any:
    """Read one pickle whose only globals are the `allowed` ones.

    Args:
        file: the open binary file.
        name: what an error calls the file.
        allowed: (module, name) as written in the file, to the object it stands for.
        encoding: how the byte strings of Python 2 are read, as in `pickle.load`.

    Raises:
        UsageError: the file asks for another global, or is damaged, cut short or no pickle at all.
    """
    try:
        return _RestrictedUnpickler(file, name, allowed, encoding).load()
    except UsageError:
        raise
    except Exception as error:  # damaged opcodes surface as almost any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{name}: cannot be read as a pickle ({reason}): the file is damaged, cut short or of another kind; "
            "get it again"
        ) from error


class _RestrictedUnpickler(pickle.Unpickler):
    """The unpickler of Python's documentation, "Restricting Globals"."""

    def __init__(self, file: BinaryIO, name: str, allowed: Mapping[tuple[str, str], Any], encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._name = name
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up among the allowed ones, never by importing it."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise UsageError(
                f"{self._name}: asks for {module}.{name}, which is not data: loading it could run code"
            ) from None
