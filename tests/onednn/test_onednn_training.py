"""Training on oneDNN's layers: a step of resnet18 against float64, two threads, workers forked in the middle."""

from __future__ import annotations

import copy
import threading

import numpy as np
import paddle
import pytest
from paddle.nn import functional

from paddle_resnet.models import create_model
from paddle_resnet.models.blocks import BasicBlock, projection_shortcut
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import replace_layers, unavailable_reason

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))]

TOLERANCE = 1e-4
MOST_SEEDS = 10


class Step:
    """Forward and backward once: loss, gradients, and what every ReLU and the max-pooling let pass."""

    def __init__(self, network, images, labels, *, channels_last):
        self._channels_last = channels_last
        self.passed = []
        for name, layer in network.named_sublayers():
            if name.endswith("relu"):
                layer.register_forward_post_hook(self._note)
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        self.loss = loss.item()
        self.gradients = {
            name: parameter.grad.numpy() for name, parameter in network.named_parameters() if parameter.grad is not None
        }

    def _note(self, layer, inputs, result):
        result = result.detach()
        if self._channels_last:
            result = result.transpose([0, 3, 1, 2])
        if not self.passed:  # the stem's, which the max-pooling takes
            _, winners = functional.max_pool2d(result, 3, 2, 1, return_mask=True)
            self.passed.append(winners.numpy())
        self.passed.append(result.numpy() > 0)

    def passes_the_same_as(self, other):
        return all(np.array_equal(one, another) for one, another in zip(self.passed, other.passed, strict=True))

    def errors(self, reference):
        """The largest error of each gradient, as a fraction of its largest value."""
        return {
            name: np.abs(self.gradients[name] - expected).max() / np.abs(expected).max()
            for name, expected in reference.gradients.items()
        }


def resnet18_steps(seed):
    """One step from the same weights and images: on oneDNN, on Paddle's own operators, and on those in float64."""
    paddle.seed(seed)
    native = create_model("resnet18", num_classes=10)
    accelerated, exact = copy.deepcopy(native), copy.deepcopy(native).to(dtype="float64")
    replace_layers(accelerated)
    images = paddle.to_tensor(np.random.default_rng(seed).normal(size=(4, 3, 48, 48)).astype(np.float32))
    labels = paddle.to_tensor(np.arange(4))
    return (
        Step(accelerated, images, labels, channels_last=True),
        Step(native, images, labels, channels_last=False),
        Step(exact, images.astype("float64"), labels, channels_last=False),
    )


def resnet18_steps_on_one_side_of_zero():
    """The steps of the first seed with which no rounding carries a value across zero, or another pixel to a maximum.

    There the gradient jumps, so that two right answers differ. About one value in a million is near enough, and which
    one depends on the order of sums: on the processor, Paddle's version and the number of threads.
    """
    for seed in range(MOST_SEEDS):
        steps = resnet18_steps(seed)
        if steps[0].passes_the_same_as(steps[1]) and steps[1].passes_the_same_as(steps[2]):
            return steps
    raise AssertionError(f"with each of {MOST_SEEDS} seeds, the backends take a ReLU's argument for another sign")


def test_a_step_of_resnet18():
    accelerated, native, exact = resnet18_steps_on_one_side_of_zero()
    assert len(accelerated.gradients) == len(exact.gradients) == 62
    assert accelerated.loss == pytest.approx(native.loss, rel=TOLERANCE)
    assert accelerated.loss == pytest.approx(exact.loss, rel=TOLERANCE)
    assert max(accelerated.errors(native).values()) <= TOLERANCE
    assert max(accelerated.errors(exact).values()) <= TOLERANCE


def small_network():
    paddle.seed(0)
    return ResNet(
        BasicBlock, (1, 1), widths=(4, 8), num_classes=3, in_channels=3, stem="imagenet", shortcut=projection_shortcut
    )


def batches(seed, count):
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 5)), 3, 16, 16) for _ in range(count)]
    return [(rng.normal(size=shape).astype(np.float32), rng.integers(0, 3, shape[0])) for shape in shapes]


def train(network, steps):
    """The losses of these steps."""
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    losses = []
    for images, labels in steps:
        loss = functional.cross_entropy(network(paddle.to_tensor(images)), paddle.to_tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    return losses


def native_and_accelerated():
    native = small_network()
    accelerated = copy.deepcopy(native)
    replace_layers(accelerated)
    return native, accelerated


def test_two_networks_train_in_two_threads():
    pairs, losses = [native_and_accelerated() for _ in range(2)], {}

    def work(number):
        losses[number] = train(pairs[number][1], batches(number, 20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (native, _) in enumerate(pairs):
        assert losses[number] == pytest.approx(train(native, batches(number, 20)), rel=1e-3)


class Images(paddle.io.Dataset):
    """Each made in a worker by an accelerated network that was inherited through the fork."""

    def __init__(self, network):
        self._network = network

    def __len__(self):
        return 4

    def __getitem__(self, index):
        (images, _), *_ = batches(index, 1)
        with paddle.no_grad():
            return self._network(paddle.to_tensor(images[:1])).numpy()[0]


def test_workers_forked_in_the_middle_of_training():
    native, accelerated = native_and_accelerated()
    steps = batches(5, 6)
    losses = train(accelerated, steps[:3])
    frozen = copy.deepcopy(accelerated)
    frozen.eval()
    loader = paddle.io.DataLoader(Images(frozen), batch_size=2, num_workers=2, use_shared_memory=False)
    made = np.concatenate([np.asarray(batch[0] if isinstance(batch, (list, tuple)) else batch) for batch in loader])
    losses += train(accelerated, steps[3:])
    assert losses == pytest.approx(train(native, steps), rel=1e-3)
    here = Images(frozen)
    assert made == pytest.approx(np.stack([here[index] for index in range(4)]), abs=1e-5)


def test_a_second_derivative_of_a_network_is_refused():
    _, accelerated = native_and_accelerated()
    images = paddle.randn([2, 3, 16, 16])
    images.stop_gradient = False
    with pytest.raises(Exception, match="no second derivative"):
        paddle.grad(accelerated(images).sum(), images, create_graph=True)
