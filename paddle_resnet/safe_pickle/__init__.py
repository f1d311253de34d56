"""Read a pickle as data: nothing in the file can run code.

A pickle is a program for a small stack machine whose opcodes may call any importable function. The machine here has no
opcode that calls, imports or changes an object of Python, numpy or torch, so no order of opcodes can:

- A global is a `Named` token: two strings. It is not looked up; no module, class or function is on the stack.
- REDUCE and NEWOBJ select one of this project's own rules by the token. A rule checks the type of each argument and
  returns plain data or a placeholder (type, shape, order, bytes). BUILD fills a placeholder once, or is ignored.
- A token without a rule is refused, or with `opaque` makes an `Opaque`, of which little more than its name is kept.
- numpy is not called before the program has ended. Then `np.frombuffer` makes each array from bytes of the file, with
  an element type from a short list without object types, and exactly as many bytes as its shape needs.
- Memory and time are bounded by the file's length: each opcode consumes bytes of the file, copies are counted against a
  budget, dictionary keys are flat, and the result is copied as a tree of bounded depth and size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.safe_pickle.machine import Machine, Refused
from paddle_resnet.safe_pickle.rules import (
    RULES,
    UNREAD_ARRAY,
    Damaged,
    Named,
    Opaque,
    Rule,
    as_tuple,
    check_shape,
    dtype_or_opaque,
    kind_of,
    require,
)

__all__ = [
    "RULES",
    "UNREAD_ARRAY",
    "Damaged",
    "Named",
    "Opaque",
    "Rule",
    "as_tuple",
    "check_shape",
    "kind_of",
    "load",
    "load_at",
    "require",
]


def load(file: BinaryIO, name: str, **options: Any) -> Any:
    """Read the pickle in a file; see `load_at`."""
    return load_at(file.read(), 0, name, **options)[0]


def load_at(
    content: bytes,
    start: int,
    name: str,
    *,
    rules: Mapping[tuple[str, str], Rule | None] = RULES,
    encoding: str = "ASCII",
    persistent_load: Callable[[Any], Any] | None = None,
    opaque: bool = False,
) -> tuple[Any, int]:
    """Read one pickle: plain containers, text, numbers, bytes, arrays (read-only), and what `rules` make.

    Args:
        content: the file's bytes.
        start: the place of the pickle's first byte.
        name: the file's name in errors.
        rules: for each global that the file may name, (module, name), the rule for calling it.
        encoding: how the byte strings of Python 2 are read, as in `pickle.load`: ASCII, latin1 or bytes.
        persistent_load: returns the object of a persistent id; None: the pickle may have none.
        opaque: the file may name any global; without a rule, what it makes is an `Opaque`.

    Returns:
        The object, and the place behind the pickle.

    Raises:
        UsageError: the file asks for another global, or is damaged, cut short or no pickle at all.
    """
    if opaque:
        rules = {**rules, ("numpy", "dtype"): dtype_or_opaque}
    machine = Machine(content, start, rules, encoding, persistent_load, opaque)
    try:
        return machine.run(), machine.file.tell()
    except Refused as error:
        raise UsageError(f"{name}: asks for {error}, which is not data: loading it could run code") from None
    except OSError:
        raise
    except Exception as error:  # wrong opcodes surface as almost any exception
        reason = shown(" ".join(str(error)[:300].split()) or type(error).__name__, 150)
        raise UsageError(
            f"{name}: cannot be read as a pickle ({reason}): the file is damaged, cut short or of another kind; "
            "get it again"
        ) from error
