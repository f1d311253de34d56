"""oneDNN's C interface, typed: its constants by name, its functions with their signatures.

Names and values are those of ``dnnl_types.h``, version 3; the functions are documented at https://uxlfoundation.github.io/oneDNN/.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from enum import IntEnum, IntFlag
from typing import Any

from paddle_resnet.onednn import library

MAX_DIMENSIONS = 12
Dimensions = c_int64 * MAX_DIMENSIONS

SUCCESS = 0
STATUS_NAMES = {1: "out of memory", 2: "invalid arguments", 3: "unimplemented", 4: "last implementation reached"}
STATUS_NAMES |= {5: "runtime error", 6: "not required", 7: "invalid graph", 8: "invalid operation", 9: "invalid shape"}

CPU_ENGINE = 1
IN_ORDER_STREAM = 1
TAG_ANY = 1  # the layout is the primitive's own choice
USER_SCRATCHPAD = 1


class DataType(IntEnum):
    """``dnnl_data_type_t``."""

    BFLOAT16 = 2
    FLOAT32 = 3
    INT32 = 4
    INT8 = 5
    UINT8 = 6


class Propagation(IntEnum):
    """``dnnl_prop_kind_t``."""

    FORWARD_TRAINING = 64
    FORWARD_INFERENCE = 96
    BACKWARD = 128


class Algorithm(IntEnum):
    """``dnnl_alg_kind_t``."""

    CONVOLUTION_DIRECT = 0x1
    RELU = 0x20
    POOLING_MAX = 0x1FF
    POOLING_AVERAGE = 0x2FF
    POOLING_AVERAGE_WITHOUT_PADDING = 0x3FF
    ADD = 0x1FFF0
    SOFTMAX = 0x30000


class Normalization(IntFlag):
    """``dnnl_normalization_flags_t``."""

    USE_GLOBAL_STATISTICS = 0x1
    USE_SCALE = 0x2
    USE_SHIFT = 0x4
    FUSE_RELU = 0x8


class Query(IntEnum):
    """``dnnl_query_t``: which memory descriptor of a primitive."""

    SOURCE = 129
    WEIGHTS = 131
    DIFF_WEIGHTS = 132
    DESTINATION = 133
    WORKSPACE = 135
    SCRATCHPAD = 136


class Argument(IntEnum):
    """``DNNL_ARG_*``: the role of a buffer in an execution."""

    SOURCE = 1
    SECOND_SOURCE = 2
    DESTINATION = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    SCRATCHPAD = 80
    DIFF_SOURCE = 129
    DIFF_DESTINATION = 145
    DIFF_WEIGHTS = 161
    DIFF_BIAS = 169
    DIFF_SCALE = 255
    DIFF_SHIFT = 256
    SCALES = 4096  # added to the role of a tensor: its scales
    ZERO_POINTS = 8192


class ExecutionArgument(ctypes.Structure):
    """``dnnl_exec_arg_t``."""

    _fields_ = (("argument", c_int), ("memory", c_void_p))


class OneDNNError(RuntimeError):
    """A call into oneDNN failed."""


_HANDLE = c_void_p
_NEW = POINTER(c_void_p)
_DIMENSIONS = POINTER(c_int64)
_GEOMETRY = [_DIMENSIONS] * 4  # strides, dilations, padding before and after

_SIGNATURES: dict[str, list[Any]] = {
    "engine_create": [_NEW, c_int, c_size_t],
    "stream_create": [_NEW, _HANDLE, c_uint],
    "memory_desc_create_with_strides": [_NEW, c_int, _DIMENSIONS, c_int, _DIMENSIONS],
    "memory_desc_create_with_tag": [_NEW, c_int, _DIMENSIONS, c_int, c_int],
    "memory_create": [_NEW, _HANDLE, _HANDLE, _HANDLE],
    "memory_set_data_handle": [_HANDLE, _HANDLE],
    "primitive_attr_create": [_NEW],
    "primitive_attr_set_scratchpad_mode": [_HANDLE, c_int],
    "primitive_attr_set_post_ops": [_HANDLE, _HANDLE],
    "post_ops_create": [_NEW],
    "post_ops_append_eltwise": [_HANDLE, c_int, c_float, c_float],
    "post_ops_append_sum": [_HANDLE, c_float, c_int, c_int],
    "primitive_attr_set_scales_mask": [_HANDLE, c_int, c_int],
    "primitive_attr_set_zero_points_mask": [_HANDLE, c_int, c_int],
    "primitive_create": [_NEW, _HANDLE],
    "primitive_execute": [_HANDLE, _HANDLE, c_int, POINTER(ExecutionArgument)],
}
_DESTROYED = "engine stream memory_desc memory primitive_attr post_ops primitive_desc primitive"
_SIGNATURES |= {f"{kind}_destroy": [_HANDLE] for kind in _DESTROYED.split()}
_AFTER_ENGINE: dict[str, list[Any]] = {
    "reorder": [_HANDLE] * 4,
    "convolution_forward": [c_int, c_int] + [_HANDLE] * 4 + _GEOMETRY + [_HANDLE],
    "convolution_backward_data": [c_int] + [_HANDLE] * 3 + _GEOMETRY + [_HANDLE] * 2,
    "convolution_backward_weights": [c_int] + [_HANDLE] * 4 + _GEOMETRY + [_HANDLE] * 2,
    "batch_normalization_forward": [c_int, _HANDLE, _HANDLE, c_float, c_uint, _HANDLE],
    "batch_normalization_backward": [c_int] + [_HANDLE] * 3 + [c_float, c_uint, _HANDLE, _HANDLE],
    "pooling_forward": [c_int, c_int, _HANDLE, _HANDLE, _DIMENSIONS, *_GEOMETRY, _HANDLE],
    "pooling_backward": [c_int, _HANDLE, _HANDLE, _DIMENSIONS, *_GEOMETRY, _HANDLE, _HANDLE],
    "softmax_forward": [c_int, c_int, _HANDLE, _HANDLE, c_int, _HANDLE],
    "binary": [c_int] + [_HANDLE] * 4,
    "eltwise_forward": [c_int, c_int, _HANDLE, _HANDLE, c_float, c_float, _HANDLE],
    "eltwise_backward": [c_int] + [_HANDLE] * 3 + [c_float, c_float, _HANDLE, _HANDLE],
}
"""What those functions take that create a primitive descriptor, after the result and the engine (or a layout)."""

_SIGNATURES |= {f"{name}_primitive_desc_create": [_NEW, _HANDLE, *types] for name, types in _AFTER_ENGINE.items()}
"""Functions that return a status, without their prefix ``dnnl_``."""

_QUERIES: dict[str, tuple[Any, list[Any]]] = {
    "memory_desc_get_size": (c_size_t, [_HANDLE]),
    "memory_desc_equal": (c_int, [_HANDLE, _HANDLE]),
    "primitive_desc_query_md": (c_void_p, [_HANDLE, c_int, c_int]),
}
"""Functions that return a value."""

_UNCHECKED = ("memory_set_data_handle", "primitive_execute")
"""Called for every buffer of every execution: a Python check in each would cost more than the call."""


class Functions:
    """The C functions, as attributes without their prefix; those that create raise `OneDNNError` when they fail."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        statuses = {name: (c_int, types) for name, types in _SIGNATURES.items()}
        for name, (result_type, argument_types) in {**statuses, **_QUERIES}.items():
            function = loaded[f"dnnl_{name}"]
            function.argtypes, function.restype = argument_types, result_type
            if name in _SIGNATURES and name not in _UNCHECKED:
                function.errcheck = _raise_unless_success
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"oneDNN's function dnnl_{name} is not bound")


@functools.cache
def functions() -> Functions:
    """Return the functions of the loaded library.

    Raises:
        OSError: there is no library.
        AttributeError: the library lacks one of the functions.
    """
    return Functions(library.load())


@functools.cache
def holding_lock(name: str) -> Any:
    """Return a function, called many times in a row, that keeps Python's global lock meanwhile.

    Otherwise each call waits up to 5 ms for the lock beside a thread that is busy in Python: the executions of a
    resnet20 of 25 primitives took 105 ms instead of 6.
    """
    function = ctypes.PyDLL(str(library.library_path()))[f"dnnl_{name}"]
    function.argtypes, function.restype = _SIGNATURES[name], c_int
    return function


def check(status: int, what: str) -> None:
    """Raise `OneDNNError` unless `status` says success."""
    if status != SUCCESS:
        raise OneDNNError(f"oneDNN {library.version()}: {what} failed: {STATUS_NAMES.get(status, f'status {status}')}")


def _raise_unless_success(status: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    check(status, function.__name__)
    return status


def dimensions(values: tuple[int, ...]) -> Any:
    """Return a C array ``dnnl_dims_t`` that starts with `values`."""
    return Dimensions(*values)
