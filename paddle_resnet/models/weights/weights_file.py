"""A weights file of any format, read as data. The content tells the format, not the suffix; no code in it runs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from safetensors import SafetensorError, deserialize

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights import torch_pickle
from paddle_resnet.models.weights.naming import Names, detect_names, has_word
from paddle_resnet.models.weights.state_dict_search import find_state_dict, is_table
from paddle_resnet.models.weights.torch_pickle import bfloat16_to_float32, check_claimed_size
from paddle_resnet.paths import expand_home
from paddle_resnet.text_files import unique_keys

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "pad": ("both", "end"),  # where a shortcut without parameters adds its channels of zeros
}
"""The options with a value, and their values."""


class WeightsSource(NamedTuple):
    """A weights file and what a user asked of it."""

    path: Path
    take: str | None = None  # which of several copies of the weights: a word of its name, such as ``ema``
    options: Mapping[str, str] = {}  # of `OPTIONS`


def parse_source(text: str | Path) -> WeightsSource:
    """Split ``FILE#ema&pad=both`` into the file and its options. An existing file with a ``#`` in its name is one.

    A run's folder stands for the weights of its best epoch.

    Raises:
        UsageError: an unknown option or value, or the folder of a run without weights.
    """
    whole = expand_home(text)
    name, hash_, tail = whole.name.partition("#")
    if os.path.isfile(whole / "config.yaml"):  # noqa: PTH113 (False, not an error, for a name that is too long)
        best = whole / "checkpoints" / "best" / "model.pdparams"
        if any(whole.glob("seed_*/config.yaml")):
            raise UsageError(f"{whole}: holds a run for each of its seeds; name one: {whole}/seed_<number>")
        if not best.is_file():
            raise UsageError(f"{whole}: a run without weights: it has no checkpoints/best; train it first")
        return WeightsSource(best)
    if not hash_ or whole.exists():
        return WeightsSource(whole)
    take, options = None, {}
    for part in tail.split("&"):
        option, equals, value = part.partition("=")
        if not equals and part:
            take = part
        elif value in OPTIONS.get(option, ()):
            options[option] = value
        else:
            known = ", ".join(f"{key}={'|'.join(values)}" for key, values in OPTIONS.items())
            raise UsageError(
                f"{shown(str(whole), 200)}: unknown option {shown(part)!r} after '#'; "
                f"expected the name of a copy, such as ema, or {known}"
            )
    return WeightsSource(whole.with_name(name), take, options)


_EXPECTED = "expected a weights file of torch.save, paddle.save or safetensors, or a run's folder"
_MOST_TENSORS = 30_000  # resnet1202 has 7,000; finding their names takes time
_MOST_BYTES = 4 << 30  # a checkpoint of the largest network, with its optimizer, has 2 GB
_TAR_PLACE = 257
_ZIP = b"PK\x03\x04"
_PICKLES = b"\x80(]}cIL"  # how pickles begin: protocol 2 and later, and opcodes of older ones
_HEADER_LIMIT = 4 << 20  # bytes of safetensors' table; a thousand layers take less than one megabyte
_NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
# How other files begin, and what to do.
_NOT_WEIGHTS = {
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; run 'git lfs pull' in its repository",
    b"<": "an HTML or XML page, as of a failed download; download the file again",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    bytes(12): "zeros: an unfinished download, or the .pdiparams of an exported network; use its .pdparams",
    b"\x89HDF": "an HDF5 file (of Keras); save the weights with PyTorch, Paddle or safetensors",
}


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, with its names and layout."""

    entries: dict[str, np.ndarray]
    layout: Names  # whose names BatchNorm's statistics have, and whose layout linear weights
    format: str = ""  # in words
    place: str = ""  # the keys above the entries, such as ``state_dict``; empty: the file holds nothing else
    others: tuple[str, ...] = ()  # the places of other weights
    left_out: tuple[str, ...] = ()  # other tensors, entries that are none, and objects, with their classes
    written_here: bool = False  # whether the file says that `write_state_dict` wrote it


def of_arrays(tensors: Mapping[str, Any], label: str) -> WeightsFile:
    """Return arrays that come from no file, or tensors of Paddle or PyTorch, in the same form.

    Raises:
        UsageError: a name is no text, or a value cannot become an array.
    """
    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise UsageError(f"{label}: expected arrays by name, as of state_dict(), found the name {shown(name)}")
        if is_table(name):
            continue
        try:
            arrays[name] = np.asarray(tensor)
        except (RuntimeError, TypeError, ValueError) as error:  # a tensor of PyTorch in bfloat16 or on a GPU
            raise UsageError(
                f"{label}: {shown(name)} is no array ({shown(str(error), 200)}); give arrays of float32"
            ) from error
    arrays = _with_bfloat16(arrays)
    return WeightsFile(arrays, detect_names(arrays) or "paddle")


def read_weights_file(path: str | Path, take: str | None = None) -> WeightsFile:
    """Read the weights in a file of `torch.save` (any since 2017), `paddle.save` or safetensors.

    Args:
        path: the file.
        take: a word of the name of the copy to take, as ``ema`` for ``state_dict_ema``; None: the usual one.

    Returns:
        The arrays with the file's names and layout. bfloat16 becomes float32, other types stay.

    Raises:
        UsageError: the file is missing, empty, damaged, of another format, or holds no state dict.
    """
    path = expand_home(path)
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe or device"
            raise UsageError(f"{path}: is {what}; {_EXPECTED}")
        with path.open("rb") as opened:
            _require_weights(opened.read(_TAR_PLACE + 5), path)
            if path.stat().st_size > _MOST_BYTES:
                raise UsageError(f"{path}: has more than {_MOST_BYTES:,} bytes; save the network's state dict alone")
            opened.seek(0)
            content = opened.read()
    except (FileNotFoundError, NotADirectoryError):
        beside = f"{path}.pdparams"  # PaddleClas takes names without the suffix
        # False, not an error, for a name that is too long.
        suggestion = f' (did you mean "{beside}"?)' if os.path.isfile(beside) else ""  # noqa: PTH113
        raise UsageError(f"{path}: no such file{suggestion}; {_EXPECTED}") from None
    except OSError as error:
        raise UsageError(f"{shown(str(path), 200)}: cannot be read ({error.strerror or error})") from None
    file = _read_safetensors(content, path) if content[8:9] == b"{" else _read_pickled(content, path, take)
    if len(file.entries) > _MOST_TENSORS:
        raise UsageError(f"{path}: holds {len(file.entries):,} tensors, expected at most {_MOST_TENSORS:,}")
    return file if take is None or has_word(file.place, take) else _with_word(file, take, path)


def _require_weights(start: bytes, path: Path) -> None:
    """Raise a `UsageError` that says what the file is, if it begins as no weights file does."""
    if not start:
        raise UsageError(f"{path}: is empty; {_EXPECTED}")
    if start[8:9] == b"{":  # safetensors: the bytes before are a length, which may be those of another kind of file
        return
    for beginning, what in _NOT_WEIGHTS.items():
        if start.lstrip().startswith(beginning):
            raise UsageError(f"{path}: is no weights file but {what}")
    if start[_TAR_PLACE:] == b"ustar":
        raise UsageError(
            f"{path}: a tar archive: unpack it, or, if PyTorch before 0.2 saved it, load it there and save it again"
        )
    if start[:4] != _ZIP and start[0] not in _PICKLES:
        raise UsageError(f"{path}: is no weights file, it begins with {shown(start[:16])}; {_EXPECTED}")


def _with_word(file: WeightsFile, word: str, path: Path) -> WeightsFile:
    """Keep the entries that have `word` in their names, as one of several networks in a state dict."""
    entries = {name: array for name, array in file.entries.items() if has_word(name, word)}
    if not entries:
        places = ", ".join(each or "the whole file" for each in (file.place, *file.others))
        raise UsageError(f"{path}: holds no weights called {shown(word)}; it holds {places}")
    left_out = tuple(name for name in file.entries if name not in entries)
    return replace(file, entries=entries, left_out=(*left_out, *file.left_out))


def _read_pickled(content: bytes, path: Path, take: str | None) -> WeightsFile:
    """Read a file of `torch.save` in either format, or a plain pickle, as of `paddle.save`."""
    if content.startswith(_ZIP):
        format_, (found, read) = "zip archive of torch.save", torch_pickle.read_zip(content, path)
    else:
        format_, (found, end), read = "pickle", torch_pickle.load_pickle(content, str(path)), _no_storage(path)
        if torch_pickle.is_old_format(found):
            format_, (found, read) = "old format of torch.save", torch_pickle.read_old_format(content, end, path)
    chosen = find_state_dict(found, path, take)
    tensors = {name: value for name, value in chosen.tensors.items() if isinstance(value, torch_pickle.Tensor)}
    arrays = {name: value for name, value in chosen.tensors.items() if isinstance(value, np.ndarray)}
    check_claimed_size(sum(array.nbytes for array in arrays.values()), path)
    if not tensors:
        arrays = _with_bfloat16(arrays)
    arrays |= torch_pickle.tensor_arrays(tensors, read, path)
    entries = {name: arrays[name] for name in chosen.tensors}
    layout: Names = "torch" if tensors else detect_names(entries) or "paddle"
    return WeightsFile(entries, layout, format_, chosen.place, chosen.others, chosen.left_out)


def _with_bfloat16(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert Paddle's bfloat16, which is uint16 in numpy, a type that no tensor of a network has."""
    return {name: bfloat16_to_float32(each) if each.dtype == np.uint16 else each for name, each in arrays.items()}


def _no_storage(path: Path) -> torch_pickle.ReadStorage:
    def read(_storage: torch_pickle.Storage) -> bytes:
        raise UsageError(f"{path}: a pickle whose tensors are in no file; save it with torch.save")

    return read


def _read_safetensors(content: bytes, path: Path) -> WeightsFile:
    """Read names and tensors; metadata or BatchNorm's statistics tell whose names, without both they are PyTorch's."""
    try:
        # The header's length; in a file of another kind, an arbitrary number.
        length = int.from_bytes(content[:8], "little")
        if _HEADER_LIMIT < length <= len(content):
            raise ValueError(f"a header of {length:,} bytes, expected at most {_HEADER_LIMIT:,}")
        # Not the library's numpy functions, which do not support bfloat16.
        tensors = dict(deserialize(content))
        header = json.loads(content[8 : 8 + length], object_pairs_hook=unique_keys)
    except (SafetensorError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read as safetensors ({shown(str(error), 200)}): the file is damaged, cut short "
            "or of another kind; get it again"
        ) from error
    # The library has its own order of names.
    arrays = {name: _array(tensors[name], name, path) for name in header if name in tensors}
    if not arrays:
        raise UsageError(f"{path}: expected names and tensors, found none")
    names: Any = (header.get("__metadata__") or {}).get("names")
    written_here = names in get_args(Names)
    layout: Names = names if written_here else detect_names(arrays) or "torch"
    return WeightsFile(arrays, layout, "safetensors", written_here=written_here)


def _array(tensor: dict[str, Any], name: str, path: Path) -> np.ndarray:
    element_type = tensor["dtype"]
    if element_type not in _NUMPY_TYPES:
        raise UsageError(
            f"{path}: {shown(name)} is of type {element_type}, expected one of {', '.join(_NUMPY_TYPES)}; "
            "save the tensors as float32"
        )
    try:
        array = np.frombuffer(tensor["data"], _NUMPY_TYPES[element_type]).reshape(tensor["shape"])
    except (ValueError, OverflowError):  # huge sizes of an empty tensor, or too many axes
        raise UsageError(
            f"{path}: {shown(name)} has the shape {shown(tensor['shape'])}, which no array can have; get the file again"
        ) from None
    return bfloat16_to_float32(array) if element_type == "BF16" else array
