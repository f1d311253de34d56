"""Recorded training steps: the same bits as layer by layer, whatever changes between steps, and their memory."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onednn_checks import poison_memory
from paddle import nn
from paddle.nn import functional

from paddle_resnet.models.blocks import (
    BasicBlock,
    Bottleneck,
    ConvPoolBlock,
    ZeroPadShortcut,
    average_pool_shortcut,
    projection_shortcut,
)
from paddle_resnet.models.preact import PreActBasicBlock
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import bfloat16_unavailable_reason, layers, replace_layers, unavailable_reason
from paddle_resnet.onednn.primitives import thread_context
from paddle_resnet.onednn.program import ALIGNMENT, Call, plan_memory
from paddle_resnet.system import threads

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

NETWORKS = {
    "zero-padded shortcuts": (BasicBlock, "cifar", ZeroPadShortcut),
    "max-pooling": (Bottleneck, "imagenet", projection_shortcut),
    "pre-activation": (PreActBasicBlock, "cifar", projection_shortcut),
    "average-pooled shortcuts": (BasicBlock, "cifar", average_pool_shortcut),
    "convolutions and pooling": (ConvPoolBlock, "cifar", projection_shortcut),
}


def small_network(kind="max-pooling", precision="float32", **options):
    block, stem, shortcut = NETWORKS[kind]
    paddle.seed(0)
    # Neither width fills whole vectors of bfloat16, so that BatchNorm takes several pixels for one.
    sizes = {"widths": (24, 40), "num_classes": 3, "in_channels": 3}
    network = ResNet(block, (1, 1), **sizes, stem=stem, shortcut=shortcut, **options)
    replace_layers(network, precision)
    return network


def layer_by_layer(network):
    """A copy in which a hook waits for the result of a layer, so that no step of it is recorded."""
    copied = copy.deepcopy(network)
    copied.layer1.register_forward_post_hook(lambda layer, inputs, result: None)
    return copied


def batch(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return paddle.to_tensor(rng.normal(size=(count, 3, 16, 16)).astype(np.float32)), paddle.to_tensor(
        rng.integers(0, 3, count)
    )


def loss_of(network, count=4, seed=0):
    images, labels = batch(count, seed)
    return functional.cross_entropy(network(images), labels)


def bits(network):
    """Parameters, running statistics and gradients, as bytes."""
    values = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        values[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.numpy().tobytes()
    return values


def is_recorded(network):
    recordings = thread_context().recordings.get(network)
    found = [] if recordings is None else [recording for _, recording in recordings._found]
    return bool(found) and None not in found


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_steps_have_the_bits_of_the_layers(kind, precision, monkeypatch):
    if precision == "bfloat16" and bfloat16_unavailable_reason():
        pytest.skip(bfloat16_unavailable_reason())
    poison_memory(monkeypatch)
    network = small_network(kind, precision)
    expected = layer_by_layer(network)
    optimizers = [paddle.optimizer.Momentum(0.1, parameters=each.parameters()) for each in (network, expected)]
    for step, count in enumerate((4, 4, 3, 8, 4)):
        for each, optimizer in zip((network, expected), optimizers, strict=True):
            loss_of(each, count, step).backward()
            optimizer.step()
        assert bits(network) == bits(expected)  # gradients of the steps so far add up
        if step == 1:
            for optimizer in optimizers:
                optimizer.clear_grad()
        assert is_recorded(network)
        assert not is_recorded(expected)


def test_a_recorded_step_has_the_bits_of_the_layers():
    network = small_network()
    expected = layer_by_layer(network)
    for each in (network, expected):
        loss_of(each).backward()
    assert is_recorded(network)
    assert bits(network) == bits(expected)


def test_a_hook_on_the_whole_network_does_not_prevent_a_recording():
    network, seen = small_network(), []
    network.register_forward_post_hook(lambda layer, inputs, result: seen.append(result.shape))
    network.forward = network.forward
    loss_of(network).backward()
    assert is_recorded(network)
    assert seen == [[4, 3]]


def test_two_forward_passes_may_come_before_a_backward_pass():
    network = small_network()
    expected = layer_by_layer(network)
    for each in (network, expected):
        first, second = loss_of(each, seed=1), loss_of(each, seed=2)
        first.backward()
        second.backward()
    assert bits(network) == bits(expected)
    assert is_recorded(network)


def test_a_dropped_forward_pass_frees_the_memory_for_the_next():
    network = small_network()
    loss_of(network)
    loss_of(network).backward()
    assert not thread_context().recordings[network].arena.is_in_use


def freeze(network):
    for parameter in network.layer1.parameters():
        parameter.stop_gradient = True


def double_weights(network):
    network.set_state_dict({name: 2 * value for name, value in network.state_dict().items()})


CHANGES = {
    "frozen parameters": freeze,
    "other weights": double_weights,
    "a BatchNorm in evaluation": lambda network: network.bn1.eval(),
    "a BatchNorm's momentum": lambda network: setattr(network.bn1, "_momentum", 0.5),
    "a pooling's window": lambda network: setattr(network.maxpool, "ksize", 2),
    "another layer": lambda network: setattr(network, "maxpool", layers.MaxPool(2, 2)),
    "a layer of Paddle": lambda network: setattr(network, "layer2", nn.Sequential(network.layer2, nn.LeakyReLU())),
    "another forward": lambda network: setattr(network.layer1, "forward", lambda x: x[:, :, :, :24].tile([1, 1, 1, 4])),
    "threads": lambda network: threads.use(threads.count() + 1),
    "bfloat16": lambda network: replace_layers(network, "bfloat16"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_steps_counts(change):
    if change == "bfloat16" and bfloat16_unavailable_reason():
        pytest.skip(bfloat16_unavailable_reason())
    before = threads.count()
    network = small_network()
    expected = layer_by_layer(network)
    try:
        for each in (network, expected):
            threads.use(before)
            loss_of(each).backward()
            CHANGES[change](each)
            loss_of(each).backward()
    finally:
        threads.use(before)
    assert len(thread_context().recordings[network]._found) > 0
    assert bits(network) == bits(expected)


def test_a_weight_changed_before_the_backward_pass_is_an_error():
    network = small_network()
    weight = network.layer2[0].conv2.weight
    weight.stop_gradient = True  # its gradient is not computed, but that of its images is
    loss = loss_of(network)
    assert is_recorded(network)
    with paddle.no_grad():
        weight.scale_(2.0)
    with pytest.raises((RuntimeError, OSError), match="changed in place"):  # Paddle 3.3 makes it an OSError
        loss.backward()


def test_a_change_of_threads_before_the_backward_pass():
    before = threads.count()
    network = small_network()
    expected = layer_by_layer(network)
    loss_of(expected).backward()
    loss = loss_of(network)
    try:
        threads.use(before + 1)
        loss.backward()
        assert threads.count() == before + 1
    finally:
        threads.use(before)
    assert bits(network) == bits(expected)


def test_random_layers_are_not_recorded():
    network = small_network(stochastic_depth=0.5)
    loss_of(network).backward()
    assert not is_recorded(network)
    paddle.seed(1)
    first = loss_of(network).item()
    assert {loss_of(network).item() for _ in range(8)} != {first}


def test_evaluation_frees_the_memory_of_steps():
    network = small_network()
    loss_of(network).backward()
    assert is_recorded(network)
    network.eval()
    network(batch()[0])
    assert network not in thread_context().recordings


def test_a_network_that_is_gone_leaves_no_recording():
    network = small_network()
    loss_of(network).backward()
    recordings = weakref.ref(thread_context().recordings[network])
    del network
    gc.collect()
    assert recordings() is None


calls_of_memories = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=30)
some_memories = st.sets(st.integers(0, 11))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(calls_of_memories, st.lists(st.integers(1, 500), min_size=12, max_size=12), some_memories, some_memories)
def test_memories_in_use_at_the_same_time_do_not_overlap(numbers, sizes, elsewhere, lasting):
    calls = [Call(print, tuple(each)) for each in numbers]
    lasting -= elsewhere
    offsets, whole = plan_memory(calls, sizes, elsewhere, lasting)
    used = {number for each in numbers for number in each} - elsewhere | lasting
    assert offsets.keys() == used
    assert all(offset % ALIGNMENT == 0 and offset + sizes[number] <= whole for number, offset in offsets.items())
    at_once = [0]
    for time in range(len(calls)):
        before, after = ({*itertools.chain(*some)} for some in (numbers[: time + 1], numbers[time:]))
        in_use = before & after | lasting
        held = sorted((offset, offset + sizes[number]) for number, offset in offsets.items() if number in in_use)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(held))
        at_once.append(sum(-(-(end - start) // ALIGNMENT) * ALIGNMENT for start, end in held))
    assert max(at_once) <= whole <= sum(-(-sizes[number] // ALIGNMENT) * ALIGNMENT for number in used)
