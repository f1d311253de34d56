"""Files of text: UTF-8 in every system's way of writing it, JSON of this program, and rows of CSV."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import open_regular, write_atomically

LARGEST_JSON = 1 << 28
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a cell that a spreadsheet computes, or that `csv_line` has escaped."""
PLAIN_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all, with the same line ends on every system."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def decode_text(data: bytes, name: Path | str, errors: str = "strict") -> str:
    """Return the text of a user's file: UTF-8, or UTF-16 with its mark, as PowerShell's ``>`` writes it.

    Anything else is a UsageError that has the `name` of the file, see `not_utf8`. With `errors` "surrogateescape",
    bytes that are not UTF-8 are kept, as names of files have them.
    """
    encoding = "utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig"
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode(encoding, errors)
        if "\0" not in text:
            return text
    raise not_utf8(name)


def not_utf8(name: Path | str) -> UsageError:
    """Return the error for a file in another encoding, such as GBK."""
    return UsageError(f"{name}: is no text in UTF-8; save it as UTF-8 (Notepad: Save as, Encoding; Excel: CSV UTF-8)")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON piece by piece, whole or not at all; NaN and infinity are refused."""

    def write(temporary: Path) -> None:
        # A byte of a file's name that is not UTF-8 becomes JSON's own escape, which `read_json` turns back.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")

    write_atomically(path, write)


def read_json(path: Path) -> Any:
    """Read JSON that the program wrote.

    Raise a UsageError if it is not a regular file of at most `LARGEST_JSON` bytes, or not JSON in UTF-8, or it holds
    what the program never writes: a key twice, a number that is not finite.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_JSON + 1)
        if len(content) > LARGEST_JSON:
            raise ValueError(f"more than {LARGEST_JSON:,} bytes")
        text, read = content.decode("utf-8-sig"), finite_number
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=read, parse_float=read)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: damaged: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: damaged: not JSON at line {error.lineno} ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged: {shown(str(error))}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dictionary of a JSON object; raise `ValueError` for a repeated key, of which `json` keeps the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f'the key "{shown(key)}" appears twice')
    return values


def finite_number(text: str) -> float:
    """Return a number in JSON; raise `ValueError` for NaN and infinity, which `json` reads."""
    if not math.isfinite(float(text)):
        raise ValueError(f"{shown(text)} is not a finite number")
    return float(text)


def csv_line(cells: Iterable[object]) -> str:
    """Return a row of CSV in which no text is a formula for a spreadsheet.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end, and is not a number, gets a ``'`` before
    it. So does a text that begins with ``'`` and then such a character. Removing one ``'`` there restores each text.
    """
    row = [
        f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) and not PLAIN_NUMBER.fullmatch(cell) else cell
        for cell in cells
    ]
    # Python's minimal quoting leaves a carriage return bare, and some spreadsheets split at semicolons and tabs.
    quote_all = any(mark in str(cell) for cell in row for mark in "\r;\t")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerow(row)
    return text.getvalue()
