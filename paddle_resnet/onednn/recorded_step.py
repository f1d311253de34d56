"""A training step recorded once and replayed: its operations in order, in memory that is planned for the whole step.

Between images and pooled features, Python and Paddle then only pass addresses on. Parameters, running statistics and
their gradients are Paddle's tensors as before, and the results have the same bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from paddle_resnet.console import logger
from paddle_resnet.models.blocks import ZeroPadShortcut
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.primitives import Scratch, thread_context
from paddle_resnet.onednn.program import Program
from paddle_resnet.onednn.tracing import NotTraceableError, PlannedTensor, Trace
from paddle_resnet.paddle_compat import batch_norm_settings, convolution_settings, has_forward_hooks
from paddle_resnet.system import threads

MOST_RECORDINGS = 4  # kept for one network; batches of other shapes and other numbers of threads come rarely
RECORDABLE: set[type[nn.Layer]] = set()
"""Layers that always do the same for the same settings; `acceleration` adds those that it knows."""

Body: TypeAlias = Callable[[Any], Any]


class Arena:
    """The memory of a network's recordings, of which one is under way at a time."""

    def __init__(self) -> None:
        self.memory = Scratch()
        self._step: weakref.ref[StepUnderWay] | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether a forward pass waits for its backward pass."""
        return self._step is not None and self._step() is not None

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
        kept: what the backward pass reads, and so must not change before it.
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
        self._all_parameters = network.parameters()  # held, so that no later one gets the `id` of one of them
        self.parameters = [each for each in self._all_parameters if id(each) in gradients]
        self._gradients = [gradients[id(parameter)] for parameter in self.parameters]
        self._arena, self._threads = arena, threads.count()
        self._context = thread_context()  # its engine has to live as long as the primitives
        self._own = list(trace.own.items())
        read_later = {number for call in trace.calls[self._forward_calls :] for number in call.numbers}
        if self._images.number in read_later:
            raise NotTraceableError("the backward pass reads the images, which may be gone")
        self.kept = [tensor for number, tensor in self._own if number in read_later]
        ends = {each.number for each in (self._images, self._features, self._gradient, *self._gradients)}
        self._program = Program(trace.calls, trace.sizes, {*trace.own, *ends}, lasting=set())

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, StepUnderWay]:
        """Return the features, and what to hold until `backward`."""
        step = self._arena.begin()
        self._program.place_planned(self._arena.memory.address("step", self._program.size))
        for number, tensor in self._own:
            self._program.place(number, tensor.data_ptr())
        images = tensors.as_contiguous(images)
        features = tensors.allocate(self._features.shape, self._features.dtype)
        self._program.place(self._images.number, images.data_ptr())
        self._program.place(self._features.number, features.data_ptr())
        self._replay(0, self._forward_calls)
        return features, step

    def backward(self, gradient: paddle.Tensor) -> list[paddle.Tensor]:
        """Return the gradients of `parameters` for that of the features."""
        gradient = tensors.as_contiguous(gradient)
        gradients = [tensors.allocate(each.shape, each.dtype) for each in self._gradients]
        for planned, tensor in zip((self._gradient, *self._gradients), (gradient, *gradients), strict=True):
            self._program.place(planned.number, tensor.data_ptr())
        self._replay(self._forward_calls, None)
        return gradients

    def _replay(self, first: int, end: int | None) -> None:
        number_of_threads = threads.count()
        if number_of_threads != self._threads:  # changed between the forward and the backward pass
            threads.use(self._threads)
        try:
            self._program.run(first, end)
        finally:
            if number_of_threads != self._threads:
                threads.use(number_of_threads)


class Recordings:
    """A network's recordings, the last used ones."""

    def __init__(self) -> None:
        self.arena = Arena()
        self._found: list[tuple[list[Any], Recording | None]] = []
        """Each with what it depends on; None where nothing can be recorded."""

    def find(self, network: nn.Layer, body: Body, images: paddle.Tensor) -> Recording | None:
        """Return the recording for these images; None if they are to be computed layer by layer."""
        state = _state(network)
        if state is None or self.arena.is_in_use:
            return None
        state = [images.shape, threads.count(), *state]
        index = next((index for index, (each, _) in enumerate(self._found) if each == state), None)
        if index is None:
            try:
                recording = Recording(network, body, images, self.arena)
            except Exception as error:  # Paddle's operators refuse planned tensors; layers that fail say why
                logger.debug("the training step is computed layer by layer: %s", error)
                recording = None
            found = state, recording
            del self._found[: -MOST_RECORDINGS + 1]
        else:
            found = self._found.pop(index)
        self._found.append(found)
        return found[1]


def _state(network: nn.Layer) -> list[Any] | None:
    """Return what the operations depend on beside the images; None where a layer may do something else each time."""
    state: list[Any] = []
    for layer in network.sublayers(include_self=True):
        if type(layer) not in RECORDABLE:
            return None
        if layer is not network and (has_forward_hooks(layer) or "forward" in vars(layer)):
            return None
        # Not the network itself, which its recordings shall not keep alive.
        state.append((None if layer is network else layer, type(layer), layer.training, _settings(layer)))
    state += [(id(each), each.stop_gradient, each.dtype) for each in network.parameters()]
    return state


def _settings(layer: nn.Layer) -> Any:
    """Return what a layer computes by, beside its parameters; None if that is nothing."""
    if isinstance(layer, nn.Conv2D):
        return convolution_settings(layer)
    if isinstance(layer, nn.BatchNorm2D):
        return batch_norm_settings(layer)
    if isinstance(layer, nn.MaxPool2D | nn.AvgPool2D):
        return layer.ksize, layer.stride, layer.padding, layer.ceil_mode, getattr(layer, "divisor", None)
    if isinstance(layer, ZeroPadShortcut):
        return layer.stride, layer.new_channels
    return (layer.precision, layer.stage_names) if isinstance(layer, ResNet) else None


def run(network: nn.Layer, body: Body, images: paddle.Tensor) -> paddle.Tensor | None:
    """Compute ``body(images)`` in training by a recording; None where it cannot be, and the layers are to be called.

    Args:
        network: the owner of the parameters.
        body: traced on images ``[N, C, H, W]``; its operations must depend on `network` alone.
        images: float32 ``[N, C, H, W]``.
    """
    if not network.training:
        forget(network)  # an evaluation needs the memory
        return None
    if not paddle.is_grad_enabled() or tensors.wants_gradient(images):
        return None
    recordings = thread_context().recordings.setdefault(network, Recordings())
    recording = recordings.find(network, body, images)
    return None if recording is None else _Replay.apply(images, recording, *recording.parameters)


def forget(network: nn.Layer) -> None:
    """Free this thread's recordings of the network."""
    thread_context().recordings.pop(network, None)


class _Replay(PyLayer):
    @staticmethod
    def forward(ctx: Any, images: paddle.Tensor, recording: Recording, *parameters: paddle.Tensor) -> paddle.Tensor:
        ctx.kept, ctx.recording = tensors.Kept(*recording.kept), recording
        features, ctx.step = recording.forward(images)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        tensors.recall(ctx)
        gradients = ctx.recording.backward(gradient)
        del ctx.step
        return (None, *gradients)
