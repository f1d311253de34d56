"""The files of `torch.save` and the pickles of `paddle.save` as data, and PyTorch's tensors as numpy arrays.

PyTorch's pickles refer to storages (one-dimensional memory) by a persistent id; the numbers lie outside the pickle, in
records of a zip archive (`read_zip`) or, before PyTorch 1.6, behind the pickle (`read_old_format`).
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.safe_pickle import require

# PyTorch's storage classes, and the names of their element types in PyTorch and numpy.
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "UntypedStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    # Of quantised tensors, whose numbers are not the weights: `_rebuild_qtensor` makes an `Opaque`.
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_ELEMENT_TYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64"}
_LONGEST_KEY = 100  # characters; PyTorch's keys are numbers


class Storage(NamedTuple):
    """The reference to a storage."""

    key: str
    element_type: str  # of `_ELEMENT_TYPES`
    length: int  # in elements
    start: int = 0  # of a view of another storage (before PyTorch 0.4): the elements before its first one
    content: memoryview | None = None  # where the pickle itself has the numbers

    @property
    def numpy_type(self) -> np.dtype:
        return _numpy_type(self.element_type)

    @property
    def nbytes(self) -> int:
        return self.length * self.numpy_type.itemsize


class Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it, unchecked."""

    storage: Storage
    element_type: str
    offset: int  # elements before its first one
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements between neighbours along each axis


ReadStorage = Callable[[Storage], bytes | memoryview]
"""Returns the bytes of a storage, little-endian, as many as its `nbytes`."""


def load_pickle(
    content: bytes, name: str, start: int = 0, storages: dict[str, Storage] | None = None
) -> tuple[Any, int]:
    """Read a pickle: plain containers, arrays, a `Tensor` for each of PyTorch's, and an `Opaque` for all else.

    The storages that the pickle refers to are added to `storages` by key. Other arguments, results and errors are those
    of `safe_pickle.load_at`.
    """

    def persistent_load(reference: Any) -> Storage | safe_pickle.Named:
        storage = _storage(reference)
        if storages is not None and isinstance(storage, Storage):
            storages.setdefault(storage.key, storage)
        return storage

    # latin1, as in paddle.load: it reads arrays that Python 2 wrote.
    return safe_pickle.load_at(
        content, start, name, rules=_RULES, encoding="latin1", persistent_load=persistent_load, opaque=True
    )


def _storage(reference: Any) -> Storage | safe_pickle.Named:
    """Read ``("storage", class, key, location, length)``, before PyTorch 1.6 with a view at the end."""
    if type(reference) is tuple and len(reference) == 4 and reference[0] == "module":
        return reference[1]  # a class, with its source text, in whole modules before PyTorch 1.6
    require(type(reference) is tuple and 5 <= len(reference) <= 6, "a storage's reference is no tuple of five")
    kind, storage_class, key, _location, length, view = (*reference, None)[:6]
    if kind != "storage" or type(storage_class) is not safe_pickle.Named or storage_class.name not in _STORAGES:
        raise safe_pickle.Damaged(f"an unknown kind of storage, {shown(storage_class)}")
    short = type(key) is str and len(key) <= _LONGEST_KEY
    require(short and _is_index(length), "a storage without a short name or a length")
    if view is None:
        return Storage(key, _STORAGES[storage_class.name], length)
    require(type(view) is tuple and len(view) == 3 and _is_index(view[1]), "a storage's view has no offset")
    return Storage(key, _STORAGES[storage_class.name], length, view[1])


def _is_index(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _rebuild_tensor(_spend: Any, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """Replace `torch._utils._rebuild_tensor_v2`; ignore gradients and hooks."""
    require(type(storage) is Storage and _is_index(offset), "a tensor without a storage or an offset")
    require(not any(rest[2:]), "a tensor that is to be negated or conjugated; save it after .resolve_neg()")
    shape, strides = safe_pickle.check_shape(shape), safe_pickle.check_shape(strides)
    return Tensor(storage, storage.element_type, storage.start + offset, shape, strides)


def _rebuild_typed_tensor(spend: Any, *arguments: Any) -> Tensor:
    """Replace `torch._utils._rebuild_tensor_v3`, for types without a storage class; its storage is of bytes."""
    *others, element_type = arguments[:7]
    require(type(element_type) is safe_pickle.Named, "a tensor without a type")
    return _rebuild_tensor(spend, *others, *arguments[7:])._replace(element_type=element_type.name)


def _rebuild_parameter(_spend: Any, tensor: Any, *_: Any) -> Any:
    """Replace `torch._utils._rebuild_parameter`, also with attributes."""
    require(type(tensor) in (Tensor, safe_pickle.Opaque), "a parameter without a tensor")
    return tensor


def _storage_from_bytes(spend: Any, content: Any) -> Storage:
    """Replace `torch.storage._load_from_bytes`, by which `pickle.dump` writes tensors: an old file of one storage."""
    require(type(content) is bytes, "a storage's bytes are none")
    spend(len(content))
    place, parts = 0, []
    for _ in range(5):
        part, place = safe_pickle.load_at(content, place, "storage", rules=_CLASS_RULES, persistent_load=_storage)
        parts.append(part)
    numbers, storage = memoryview(content)[place + 8 :], parts[3]
    is_storage = is_old_format(parts[0]) and type(storage) is Storage and len(numbers) == storage.nbytes
    require(is_storage, "a storage's bytes hold no storage")
    return storage._replace(key=f"{storage.key} at {id(content)}", content=numbers)


_CLASS_RULES: Mapping[tuple[str, str], safe_pickle.Rule | None] = {
    (module, name): None for module in ("torch", "torch.storage") for name in _STORAGES
}


def _rebuild_subclass(spend: Any, function: Any, _class: Any, arguments: Any, _attributes: Any) -> Any:
    """Replace `torch._tensor._rebuild_from_type_v2`, of tensors with attributes or of a class of their own."""
    known = type(function) is safe_pickle.Named and function.rule in (_rebuild_tensor, _rebuild_typed_tensor)
    if not known or type(arguments) is not tuple:
        return safe_pickle.Opaque("torch._tensor._rebuild_from_type_v2")
    spend(len(arguments))
    return function.rule(spend, *arguments)


_RULES: Mapping[tuple[str, str], safe_pickle.Rule | None] = {
    **safe_pickle.RULES,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_subclass,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    ("torch", "Size"): safe_pickle.as_tuple,
}


_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def is_old_format(first: Any) -> bool:
    """Return whether the first pickle of a file is the magic number of `torch.save` before PyTorch 1.6."""
    return type(first) is int and first == _MAGIC


def read_old_format(content: bytes, start: int, path: Path) -> tuple[Any, ReadStorage]:
    """Read what follows the magic number: protocol, system, object, the keys of the storages, and the storages.

    A storage is its number of elements (int64), then the elements, both little-endian on any system: PyTorch swaps
    the bytes when it writes, so that it ignores the system's byte order when it reads.

    Raises:
        UsageError: the file is damaged, cut short, or of another protocol.
    """
    protocol, start = load_pickle(content, str(path), start)
    if type(protocol) is not int or protocol != _PROTOCOL:
        raise UsageError(f"{path}: has protocol {shown(protocol)} of torch.save, expected {_PROTOCOL}; save it again")
    _system, start = load_pickle(content, str(path), start)
    storages: dict[str, Storage] = {}
    found, start = load_pickle(content, str(path), start, storages)
    keys, start = load_pickle(content, str(path), start)
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise UsageError(f"{path}: its list of storages does not fit its tensors; the file is damaged: get it again")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        begin, size = start + 8, storages[key].nbytes
        if not 0 <= size <= len(content) - begin:
            raise UsageError(f"{path}: ends within its numbers; it is cut short: get it again")
        (length,) = struct.unpack_from("<q", content, start)
        if length != storages[key].length:
            raise UsageError(
                f"{path}: storage {shown(key)} has {length:,} numbers where its tensors need "
                f"{shown(storages[key].length)}; the file is damaged: get it again"
            )
        start = begin + size
        places[key] = (begin, start)

    def read(storage: Storage) -> memoryview:
        begin, end = places.get(storage.key, (0, -1))
        if end - begin != storage.nbytes:
            raise UsageError(f"{path}: has no storage {shown(storage.key)} as its tensors need; get the file again")
        return memoryview(content)[begin:end]

    return found, read


def tensor_arrays(tensors: Mapping[str, Tensor], read: ReadStorage, path: Path) -> dict[str, np.ndarray]:
    """Read the storages of the tensors, and view them as arrays; bfloat16 becomes float32.

    Raises:
        UsageError: a tensor has an unknown type, is not inside its storage, or all need much more than the file has.
    """
    for name, tensor in tensors.items():
        if tensor.element_type not in _ELEMENT_TYPES:
            raise UsageError(
                f"{path}: {shown(name)} is of type {shown(tensor.element_type)}, expected one of "
                f"{', '.join(sorted(_ELEMENT_TYPES))}; save the tensors as float32"
            )
    # abs: a negative size must not cancel out a huge one.
    sizes = (abs(math.prod(each.shape)) * _numpy_type(each.element_type).itemsize for each in tensors.values())
    check_claimed_size(sum(sizes), path)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    check_claimed_size(sum(abs(each.nbytes) for each in storages.values()), path, times=1)
    contents = {key: read(each) if each.content is None else each.content for key, each in storages.items()}
    return {name: _view(contents[tensor.storage.key], tensor, name, path) for name, tensor in tensors.items()}


def _view(content: bytes | memoryview, tensor: Tensor, name: str, path: Path) -> np.ndarray:
    """View a storage as its tensor; numpy checks the bounds."""
    element_type = _numpy_type(tensor.element_type).newbyteorder("<")
    size = element_type.itemsize
    try:
        array: np.ndarray = np.ndarray(
            tensor.shape, element_type, content, tensor.offset * size, [stride * size for stride in tensor.strides]
        )
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{path}: {shown(name)} is not inside its storage; the file is damaged: get it again"
        ) from None
    # In a file of the old format, numbers begin at any byte.
    array = np.require(array, element_type.newbyteorder("="), "A")
    return bfloat16_to_float32(array) if tensor.element_type == "bfloat16" else array


def _numpy_type(element_type: str) -> np.dtype:
    return np.dtype("uint16" if element_type == "bfloat16" else element_type)


_PICKLE = "data.pkl"
# Bytes; a thousand layers take less than one megabyte of either.
_PICKLE_LIMIT = 16 << 20
_LIST_LIMIT = 2 << 20  # zipfile takes a kilobyte for each record, and quadratic time for its extra fields
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OverflowError, struct.error)


class _Content(io.BytesIO):
    """A file's bytes that refuse to be read as a long list of records, which zipfile reads in one call."""

    listed = False  # whether zipfile has read the list of records

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.listed and (size or 0) > _LIST_LIMIT:
            raise zipfile.BadZipFile(f"a list of records of {size:,} bytes, expected at most {_LIST_LIMIT:,}")
        return super().read(size)


def read_zip(content: bytes, path: Path) -> tuple[Any, ReadStorage]:
    """Read the pickle in an archive, and return how to read its storages; all are little-endian then.

    Records must be stored uncompressed, so that none can be larger than the file.

    Raises:
        UsageError: the file is damaged, cut short, or no archive of `torch.save`.
    """
    file = _Content(content)
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise _damaged(path, error) from error
    file.listed = True
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{_PICKLE}")]
    if len(pickles) != 1:
        raise UsageError(
            f"{path}: a zip archive, but not of torch.save: it has no {_PICKLE}; unpack what it holds, or save the "
            "network's state_dict() (of torch.export, numpy)"
        )
    if len(archive.NameToInfo) != len(archive.filelist):
        raise UsageError(f"{path}: holds two records of one name; the file is damaged: get it again")
    folder = pickles[0].removesuffix(_PICKLE)
    order = f"{folder}byteorder"  # since PyTorch 2.1; before, all files were little-endian
    big_endian = order in archive.NameToInfo and _record(archive, order, path) == b"big"

    def read(storage: Storage) -> bytes:
        numbers = _record(archive, f"{folder}data/{storage.key}", path, storage.nbytes)
        return np.frombuffer(numbers, storage.numpy_type).byteswap().tobytes() if big_endian else numbers

    return load_pickle(_record(archive, pickles[0], path), str(path))[0], read


def _record(archive: zipfile.ZipFile, name: str, path: Path, size: int | None = None) -> bytes:
    """Return the bytes of a record; `size` is their number according to the pickle."""
    shown_name = shown(name.partition("/")[2])
    try:
        record = archive.getinfo(name)
    except KeyError:
        raise UsageError(f"{path}: has no record {shown_name}; the file is damaged: get it again") from None
    # zipfile reads the compressed size of a stored record, so both sizes must be equal.
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise UsageError(f"{path}: record {shown_name} is compressed, which torch.save does not do; save it again")
    if size is not None and record.file_size != size:
        raise UsageError(
            f"{path}: record {shown_name} has {record.file_size:,} bytes where its tensor needs {size:,}; "
            "the file is damaged: get it again"
        )
    if size is None and record.file_size > _PICKLE_LIMIT:
        raise UsageError(
            f"{path}: record {shown_name} has {record.file_size:,} bytes, expected at most {_PICKLE_LIMIT:,}; "
            "save tensors, not numpy arrays"
        )
    try:
        return archive.read(record)
    except _ZIP_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = shown(str(error), 200) or type(error).__name__
    return UsageError(f"{path}: cannot be read as a zip archive ({reason}): damaged or cut short; get it again")


def check_claimed_size(needed: int, path: Path, times: int = 4) -> None:
    """Refuse tensors that claim many times the file's size, before any of them is copied.

    Tensors may share storage (tied weights), so together they may need more bytes than the file has.

    Raises:
        UsageError: they need more than `times` the file's size.
    """
    size = path.stat().st_size
    if needed > times * size:
        raise UsageError(
            f"{path}: its tensors need {shown(f'{needed:,}')} bytes, but the file has {size:,}; "
            "it is damaged or malicious"
        )


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16, given as uint16, to float32 exactly: they are the upper halves of float32 numbers."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
