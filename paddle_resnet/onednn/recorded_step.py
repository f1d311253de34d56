"""A training step recorded once and replayed: its operations in order, in memory that is planned for the whole step.

Between images and pooled features, Python and Paddle then only pass addresses on. Parameters, running statistics and
their gradients are Paddle's tensors as before, and the results have the same bits.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import check
from paddle_resnet.onednn.primitives import Execution, Primitive, thread_context
from paddle_resnet.onednn.tracing import Call, NotTraceableError, PlannedTensor, Trace
from paddle_resnet.paddle_compat import batch_norm_settings, has_forward_hooks
from paddle_resnet.system import threads

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""
MOST_SHAPES = 8
"""Recordings kept for one network; batches of other shapes come rarely."""

Body: TypeAlias = Callable[[Any], Any]


class Arena:
    """The memory of a network's recordings, of which one is under way at a time."""

    def __init__(self) -> None:
        self._memory: paddle.Tensor | None = None
        self._step: weakref.ref[StepUnderWay] | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether a forward pass waits for its backward pass."""
        return self._step is not None and self._step() is not None

    def address(self, size: int) -> int:
        """Return the address of at least `size` bytes."""
        if self._memory is None or self._memory.shape[0] < size:
            self._memory = None  # freed first, so that both are never held at once
            self._memory = paddle.empty([size], "uint8")
        return self._memory.data_ptr()

    def begin(self) -> StepUnderWay:
        """Return what marks the memory as in use for as long as it lives."""
        step = StepUnderWay()
        self._step = weakref.ref(step)
        return step


class StepUnderWay:
    """Held by the graph of a forward pass until its backward pass, or until it is dropped."""


class Recording:
    """The operations of a step for one shape of images.

    Attributes:
        parameters: those whose gradients it gives, in the order of `backward`.
    """

    def __init__(self, network: nn.Layer, body: Body, images: paddle.Tensor, arena: Arena) -> None:
        """Trace `body`, from images ``[N, C, H, W]`` to features, and its gradient.

        Raises:
            NotTraceableError: it computes something else than operations of oneDNN's layers.
        """
        trace = Trace([*network.parameters(), *network.buffers()])
        with trace.active():
            self._images = trace.allocate(images.shape, images.dtype)
            self._features: PlannedTensor = body(self._images)
            self._forward_calls = len(trace.calls)
            self._gradient = trace.allocate(self._features.shape, self._features.dtype)
            gradients = trace.backward(self._features, self._gradient)
        self.parameters = [each for each in network.parameters() if id(each) in gradients]
        self._gradients = [gradients[id(parameter)] for parameter in self.parameters]
        self._given, self._arena = list(trace.given.items()), arena
        ends = {each.number for each in (self._images, self._features, self._gradient, *self._gradients)}
        self._offsets, self._size = plan_memory(trace.calls, trace.sizes, {*trace.given, *ends})
        self._start = 0
        self._addresses = [0] * len(trace.sizes)
        self._users: list[list[tuple[Execution, int]]] = [[] for _ in trace.sizes]
        self._calls = [self._prepare(call) for call in trace.calls]

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, StepUnderWay]:
        """Return the features, and what to hold until `backward`."""
        step, start = self._arena.begin(), self._arena.address(self._size)
        if start != self._start:
            self._start = start
            for number, offset in self._offsets:
                self._place(number, start + offset)
        for number, tensor in self._given:
            self._place(number, tensor.data_ptr())
        images = tensors.as_contiguous(images)
        features = tensors.allocate(self._features.shape, self._features.dtype)
        self._place(self._images.number, images.data_ptr())
        self._place(self._features.number, features.data_ptr())
        self._replay(self._calls[: self._forward_calls])
        return features, step

    def backward(self, gradient: paddle.Tensor) -> list[paddle.Tensor]:
        """Return the gradients of `parameters` for that of the features."""
        gradient = tensors.as_contiguous(gradient)
        gradients = [tensors.allocate(each.shape, each.dtype) for each in self._gradients]
        for planned, tensor in zip((self._gradient, *self._gradients), (gradient, *gradients), strict=True):
            self._place(planned.number, tensor.data_ptr())
        self._replay(self._calls[self._forward_calls :])
        return gradients

    def _prepare(self, call: Call) -> tuple[Callable[..., int | None], tuple[Any, ...]]:
        """Return a function and its arguments; a primitive's are made once, with the addresses of their own."""
        operation, numbers = call
        if not isinstance(operation, Primitive):
            return _call, (operation, numbers, self._addresses)
        execution = operation.make_execution()
        for index, number in enumerate(numbers):
            self._users[number].append((execution, index))
        return operation.execute, execution.arguments

    def _place(self, number: int, address: int) -> None:
        if address != self._addresses[number]:
            self._addresses[number] = address
            for execution, index in self._users[number]:
                execution.place(index, address)

    def _replay(self, calls: Sequence[tuple[Callable[..., int | None], tuple[Any, ...]]]) -> None:
        for function, arguments in calls:
            status = function(*arguments)
            if status:
                check(status, "primitive_execute")


def _call(operation: Callable[..., Any], numbers: Sequence[int], addresses: list[int]) -> None:
    operation(*[addresses[number] for number in numbers])


def plan_memory(calls: Sequence[Call], sizes: Sequence[int], elsewhere: set[int]) -> tuple[list[tuple[int, int]], int]:
    """Give each memory an offset, so that no two overlap which hold something at the same time.

    The largest first, each as low as it can lie (Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size").

    Args:
        calls: in order.
        sizes: in bytes, by number.
        elsewhere: the numbers of what lies elsewhere.

    Returns:
        The numbers with their offsets, and the size of the whole.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for time, call in enumerate(calls):
        for number in call.numbers:
            first.setdefault(number, time)
            last[number] = time
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first and last call
    offsets = []
    for number in sorted(first.keys() - elsewhere, key=lambda each: -sizes[each]):
        size, offset = -(-sizes[number] // ALIGNMENT) * ALIGNMENT, 0
        begin, finish = first[number], last[number]
        for start, end, other_begin, other_finish in placed:
            if begin <= other_finish and other_begin <= finish:
                if offset + size <= start:
                    break
                offset = max(offset, end)
        offsets.append((number, offset))
        placed.append((offset, offset + size, begin, finish))
        placed.sort()
    return offsets, max((end for _, end, _, _ in placed), default=0)


class Recordings:
    """A network's recordings by the shape of the images and all else that changes what is computed."""

    def __init__(self) -> None:
        self.arena = Arena()
        self._recordings: OrderedDict[Hashable, Recording | None] = OrderedDict()

    def find(self, network: nn.Layer, body: Body, images: paddle.Tensor) -> Recording | None:
        """Return the recording for these images; None if they are to be computed layer by layer."""
        state = _state(network)
        if state is None or self.arena.is_in_use:
            return None
        key = (*images.shape, threads.count(), state)
        if key not in self._recordings:
            try:
                self._recordings[key] = Recording(network, body, images, self.arena)
            except NotTraceableError:
                self._recordings[key] = None
            if len(self._recordings) > MOST_SHAPES:
                self._recordings.popitem(last=False)
        return self._recordings[key]


def _state(network: nn.Layer) -> Hashable:
    """Return what the operations depend on beside the shape; None where hooks want the layers' results."""
    layers = []
    for layer in network.sublayers():
        if has_forward_hooks(layer):
            return None
        settings = batch_norm_settings(layer) if isinstance(layer, nn.BatchNorm2D) else None
        layers.append((id(layer), type(layer), layer.training, settings))
    parameters = [(id(each), each.stop_gradient, each.dtype) for each in network.parameters()]
    return (*layers, *parameters)


def run(network: nn.Layer, body: Body, images: paddle.Tensor) -> paddle.Tensor | None:
    """Compute ``body(images)`` in training by a recording; None where it cannot be, and the layers are to be called.

    Args:
        network: the owner of the parameters.
        body: traced on images ``[N, C, H, W]``; its operations must depend on `network` alone.
        images: float32 ``[N, C, H, W]``.
    """
    of_network = thread_context().recordings
    if not network.training:
        of_network.pop(network, None)  # an evaluation needs the memory
        return None
    if not paddle.is_grad_enabled() or tensors.wants_gradient(images):
        return None
    recording = of_network.setdefault(network, Recordings()).find(network, body, images)
    return None if recording is None else _Replay.apply(images, recording, *recording.parameters)


class _Replay(PyLayer):
    @staticmethod
    def forward(ctx: Any, images: paddle.Tensor, recording: Recording, *parameters: paddle.Tensor) -> paddle.Tensor:
        ctx.kept, ctx.recording = tensors.Kept(*parameters), recording
        features, ctx.step = recording.forward(images)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        tensors.recall(ctx)
        gradients = ctx.recording.backward(gradient)
        del ctx.step
        return (None, *gradients)
