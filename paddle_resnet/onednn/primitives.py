"""oneDNN objects owned by Python: memory descriptors, primitives, and a context for each thread.

A primitive's memory objects hold the addresses of its next execution, so no two threads may share one. Each thread has
its own `Context`: engine, stream, primitives and scratch memory. So nothing needs a lock.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_void_p
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from paddle_resnet.onednn.bindings import (
    CPU_ENGINE,
    IN_ORDER_STREAM,
    SUCCESS,
    TAG_ANY,
    USER_SCRATCHPAD,
    Algorithm,
    Argument,
    DataType,
    ExecutionArgument,
    Query,
    check,
    dimensions,
    functions,
    holding_lock,
)
from paddle_resnet.onednn.geometry import Image
from paddle_resnet.system import threads

CACHE_CAPACITY = 512
"""Primitives a thread keeps, beside those of recorded steps. A step of ResNet-152 uses about 120 different ones."""


class Sum(NamedTuple):
    """The addition of what is in a primitive's destination already: ``scale * (stored - zero_point)``."""

    scale: float
    zero_point: int
    data_type: DataType


RELU = None  # among the operations after a primitive's own
NO_MASKS: Mapping[int, int] = MappingProxyType({})

Built = TypeVar("Built")


class Handle:
    """A C object that lives as long as its Python owner. It can be passed where C takes the object."""

    __slots__ = ("_as_parameter_", "_destroy")

    def __init__(self, kind: str, create: Callable[..., Any], *arguments: Any) -> None:
        """Let ``create(&pointer, *arguments)`` make an object that ``dnnl_<kind>_destroy`` destroys."""
        pointer = c_void_p()
        create(byref(pointer), *arguments)
        self._as_parameter_ = pointer
        self._destroy = getattr(functions(), f"{kind}_destroy")

    @property
    def address(self) -> int:
        return self._as_parameter_.value or 0

    def __del__(self) -> None:
        if hasattr(self, "_destroy"):
            self._destroy(self._as_parameter_)


def strided(shape: tuple[int, ...], strides: tuple[int, ...], data_type: DataType) -> Handle:
    """Describe memory of `shape` whose strides are counted in elements."""
    create = functions().memory_desc_create_with_strides
    return Handle("memory_desc", create, len(shape), dimensions(shape), data_type, dimensions(strides))


def contiguous(*shape: int, data_type: DataType = DataType.FLOAT32) -> Handle:
    """Describe memory in the order of its dimensions."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return strided(shape, tuple(strides), data_type)


def channels_last(image: Image) -> Handle:
    """Describe an ``[N, H, W, C]`` tensor; oneDNN names dimensions in the order N, C, H, W whatever the layout."""
    batch, channels, height, width, data_type = image
    strides = (height * width * channels, 1, width * channels, channels)
    return strided((batch, channels, height, width), strides, data_type)


def any_layout(*shape: int, data_type: DataType = DataType.FLOAT32) -> Handle:
    """Describe memory whose layout the primitive chooses."""
    create = functions().memory_desc_create_with_tag
    return Handle("memory_desc", create, len(shape), dimensions(shape), data_type, TAG_ANY)


def layout_of(description: Handle, which: Query) -> Any:
    """Return a memory descriptor of a primitive descriptor, which stays the owner."""
    return c_void_p(functions().primitive_desc_query_md(description, which, 0))


def size_of(layout: Any) -> int:
    """Return the bytes that a memory descriptor takes; 0 for memory that is not needed."""
    return int(functions().memory_desc_get_size(layout))


class Scratch:
    """Working memory of one thread: a buffer for each use, which grows to the largest size needed."""

    def __init__(self) -> None:
        self._buffers: dict[str, tuple[Any, int, int]] = {}

    def address(self, use: str, size: int) -> int:
        """Return the address of at least `size` bytes; their content lasts until the next call with the same use."""
        _, address, held = self._buffers.get(use, (None, 0, 0))
        if held < size:
            # Freed first, so that the old buffer and the new one are never held at once.
            self._buffers.pop(use, None)
            import paddle  # whose memory training counts; inference has buffers of its own, and needs no paddle

            tensor = paddle.empty([size], "uint8")
            address = tensor.data_ptr()
            self._buffers[use] = (tensor, address, size)
        return address


class Context:
    """One thread's engine, stream, scratch memory, and the primitives it used last."""

    def __init__(self, capacity: int = CACHE_CAPACITY) -> None:
        self.engine = Handle("engine", functions().engine_create, CPU_ENGINE, 0)
        self.stream = Handle("stream", functions().stream_create, self.engine, IN_ORDER_STREAM)
        self.scratch = Scratch()
        self.attributes = attributes()
        self._capacity = capacity
        self._primitives: OrderedDict[Hashable, Any] = OrderedDict()
        self.recordings: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """Of training steps on this thread, by network (`recorded_step`)."""

    def describe(self, operation: str, *arguments: Any, attributes: Handle | None = None) -> Handle:
        """Make a primitive descriptor, with the `arguments` of oneDNN between engine and attributes."""
        create = getattr(functions(), f"{operation}_primitive_desc_create")
        return Handle("primitive_desc", create, self.engine, *arguments, attributes or self.attributes)

    def describe_copy(self, source: Any, destination: Any, attributes: Handle | None = None) -> Handle:
        """Make the primitive descriptor of a copy from one layout to another."""
        create = functions().reorder_primitive_desc_create
        ends = source, self.engine, destination, self.engine
        return Handle("primitive_desc", create, *ends, attributes or self.attributes)

    def cached(self, build: Callable[[Context, Any], Built], geometry: Hashable) -> Built:
        """Return ``build(self, geometry)``, built only if it is not among the last used."""
        key = (build, geometry, threads.count())  # compiled for a number of threads
        built = self._primitives.get(key)
        if built is None:
            built = self._primitives[key] = _build_in_own_thread(build, self, geometry, threads.count())
            if len(self._primitives) > self._capacity:
                self._primitives.popitem(last=False)
        else:
            self._primitives.move_to_end(key)
        return built


class Primitive:
    """A compiled operation with fixed shapes; calling it with one address per argument executes it.

    Where `workspace_size` is not 0, the last argument is a workspace of so many bytes: a forward primitive writes it,
    and its backward primitive reads it.
    """

    def __init__(self, context: Context, description: Handle, arguments: Sequence[tuple[Argument, Any]]) -> None:
        """Compile `description`; `arguments` give each buffer's role and layout in the order of a call."""
        workspace, scratchpad = layout_of(description, Query.WORKSPACE), layout_of(description, Query.SCRATCHPAD)
        self.workspace_size = size_of(workspace)
        if self.workspace_size:
            arguments = [*arguments, (Argument.WORKSPACE, workspace)]
        self.scratch_size = size_of(scratchpad)
        if self.scratch_size:
            arguments = [*arguments, (Argument.SCRATCHPAD, scratchpad)]
        self._primitive = Handle("primitive", functions().primitive_create, description)
        self._context, self._arguments = context, arguments
        self._description = description  # the owner of some of the layouts
        self._bound = self.make_arguments()
        self.execute = functions().primitive_execute

    def __call__(self, *buffers: int) -> None:
        """Execute on the buffers at these addresses, which the caller keeps alive."""
        if self.scratch_size:
            buffers = (*buffers, self._context.scratch.address("scratchpad", self.scratch_size))
        status = self.execute(*self.bind(*buffers))
        if status != SUCCESS:
            check(status, "primitive_execute")

    def bind(self, *buffers: int) -> tuple[Any, ...]:
        """Set the buffers' addresses, with that of the scratch memory last if it needs one, for the next executions.

        Returns:
            The arguments of ``primitive_execute``.
        """
        for index, (buffer, address) in enumerate(zip(buffers, self._bound.addresses, strict=True)):
            if buffer != address:
                self._bound.place(index, buffer)
        return self._bound.of_execute

    def make_arguments(self) -> BoundArguments:
        """Return arguments with addresses of their own."""
        return BoundArguments(self._context, self._primitive, self._arguments)

    def parts(self, numbers: Sequence[int], allocate: Callable[[int], int]) -> list[tuple[Primitive, list[int]]]:
        """Return itself with the numbers of its buffers; ``allocate(size)`` gives that of its scratch memory."""
        return [(self, [*numbers, *([allocate(self.scratch_size)] if self.scratch_size else [])])]


class BoundArguments:
    """A primitive's arguments, each bound to the address of a buffer.

    Attributes:
        of_execute: what ``primitive_execute`` takes.
        addresses: of the buffers.
    """

    def __init__(self, context: Context, primitive: Handle, arguments: Sequence[tuple[Argument, Any]]) -> None:
        create = functions().memory_create
        self._memories = [Handle("memory", create, layout, context.engine, None) for _, layout in arguments]
        slots = (ExecutionArgument * len(arguments))()
        for slot, (argument, _), memory in zip(slots, arguments, self._memories, strict=True):
            slot.argument = argument
            slot.memory = memory.address
        self._set_address = holding_lock("memory_set_data_handle")
        self.of_execute = primitive, context.stream, len(arguments), slots
        self.addresses: list[int | None] = [None] * len(arguments)

    def place(self, index: int, address: int) -> None:
        self._set_address(self._memories[index], address)
        self.addresses[index] = address


def reorder(context: Context, source: Any, destination: Any) -> Primitive | None:
    """Make a copy from one layout to another; None if they are the same."""
    return None if functions().memory_desc_equal(source, destination) else copy(context, source, destination)


def copy(context: Context, source: Any, destination: Any) -> Primitive:
    """Make a copy from one layout to another (arguments: source, destination)."""
    description = context.describe_copy(source, destination)
    return Primitive(context, description, [(Argument.SOURCE, source), (Argument.DESTINATION, destination)])


def attributes(
    after: Sequence[Sum | None] = (), scales: Mapping[int, int] = NO_MASKS, zero_points: Sequence[int] = ()
) -> Handle:
    """Primitive attributes: scratch memory is given by the caller, and other operations may follow in place.

    The library's own scratch memory would belong to the thread that created a primitive, and never shrink.

    Args:
        after: in this order; `RELU`, or the `Sum` with what is in the destination already.
        scales: the mask of dimensions along which the scales differ, by the argument that they belong to.
        zero_points: arguments that have one.
    """
    library = functions()
    attributes = Handle("primitive_attr", library.primitive_attr_create)
    library.primitive_attr_set_scratchpad_mode(attributes, USER_SCRATCHPAD)
    for argument, mask in scales.items():
        library.primitive_attr_set_scales_mask(attributes, argument, mask)
    for argument in zero_points:
        library.primitive_attr_set_zero_points_mask(attributes, argument, 0)
    post_operations = Handle("post_ops", library.post_ops_create)
    for each in after:
        if each is RELU:
            library.post_ops_append_eltwise(post_operations, Algorithm.RELU, 0.0, 0.0)
        else:
            library.post_ops_append_sum(post_operations, *each)
    library.primitive_attr_set_post_ops(attributes, post_operations)
    return attributes


_local = threading.local()
_builder: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "onednn-builder")
_inherited: list[Any] = []


def _build_in_own_thread(
    build: Callable[[Context, Any], Built], context: Context, geometry: Hashable, number_of_threads: int
) -> Built:
    """Build in a thread of its own, to which glibc gives its own part of the heap.

    Built in the thread of a training step, a primitive's small allocations would lie between that step's feature maps,
    and would split the freed memory for all later steps.
    """
    if _builder is None:
        return build(context, geometry)
    _builder.submit(threads.use, number_of_threads)
    return _builder.submit(build, context, geometry).result()


def thread_context() -> Context:
    """Return the calling thread's context."""
    found: Context | None = getattr(_local, "context", None)
    if found is None:
        found = _local.context = Context()
    return found


def _reset_after_fork() -> None:
    """Give a forked child objects of its own: another thread may have been using the parent's at the fork.

    The builder's thread does not exist in the child, which builds in the thread that computes.
    """
    global _builder, _local
    _inherited.extend((_local, _builder))
    _local = threading.local()
    _builder = None


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_reset_after_fork)
