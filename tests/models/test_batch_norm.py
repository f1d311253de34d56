"""BatchNorm from its equations against Paddle's, PyTorch's stored numbers, and its own gradients in closed form."""

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_resnet.models import BatchNorm, create_model
from paddle_resnet.models.batch_norm import batch_norm_gradients

CASES = [
    (nn.BatchNorm1D, (7, 5)),
    (nn.BatchNorm1D, (2, 5)),
    (nn.BatchNorm1D, (3, 5, 4)),
    (nn.BatchNorm1D, (1, 5, 4)),
    (nn.BatchNorm2D, (3, 5, 4, 6)),
    (nn.BatchNorm2D, (1, 5, 4, 6)),
    (nn.BatchNorm2D, (6, 5, 1, 1)),
]
ONE_VALUE = [(nn.BatchNorm1D, (1, 5)), (nn.BatchNorm1D, (1, 5, 1)), (nn.BatchNorm2D, (1, 5, 1, 1))]


def numbers(shape, seed=0):
    """Channels with means and spreads of their own."""
    random = np.random.default_rng(seed)
    by_channel = (1, shape[1]) + (1,) * (len(shape) - 2)
    scale, offset = random.uniform(0.5, 3, by_channel), random.uniform(-2, 2, by_channel)
    return (random.normal(size=shape) * scale + offset).astype("float32")


def pair(theirs_class, channels):
    """Paddle's layer and ours, with the same scale, shift and running statistics, none of them 0 or 1."""
    theirs, ours = theirs_class(channels), BatchNorm(channels)
    random = np.random.default_rng(1)
    state = {name: random.uniform(0.5, 2, channels).astype("float32") for name in theirs.state_dict()}
    for layer in (theirs, ours):
        missing, unexpected = layer.set_state_dict(state)
        assert not missing and not unexpected
    return theirs, ours


def run(layer, x, output_gradient):
    """Return the output and the gradients by x, weight and bias."""
    x = paddle.to_tensor(x, stop_gradient=False)
    output = layer(x)
    (output * paddle.to_tensor(output_gradient)).sum().backward()
    zero = paddle.zeros_like(layer.weight)
    gradients = [x.grad, *(zero if each.grad is None else each.grad for each in (layer.weight, layer.bias))]
    results = [tensor.numpy().copy() for tensor in (output, *gradients)]  # clearing writes zeros where numpy() points
    layer.clear_gradients()
    return results


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("theirs_class", "shape"), CASES + ONE_VALUE)
def test_outputs_gradients_and_running_statistics_equal_paddles(theirs_class, shape, training):
    theirs, ours = pair(theirs_class, shape[1])
    for layer in (theirs, ours):
        layer.train() if training else layer.eval()
    for step in range(3):
        x, output_gradient = numbers(shape, seed=step), numbers(shape, seed=100 + step)
        for got, expected in zip(run(ours, x, output_gradient), run(theirs, x, output_gradient), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, abs(expected).max()))
    for name, expected in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("theirs_class", "shape"), ONE_VALUE)
def test_paddle_passes_a_single_value_of_a_channel_through(theirs_class, shape):
    # The equations answer with the bias: a value less its own mean is 0. If Paddle comes to do so, so should we.
    x = numbers(shape)
    for layer in pair(theirs_class, shape[1]):
        before = layer._mean.numpy().copy()
        np.testing.assert_array_equal(layer(paddle.to_tensor(x)).numpy(), x)
        np.testing.assert_array_equal(layer._mean.numpy(), before)


# What torch 2.13.0 answered, printed with nine digits:
#   layer = torch.nn.BatchNorm1d(2)                        # momentum 0.1, eps 1e-5
#   layer.weight[:], layer.bias[:] = [2, 0.5], [1, -1]     # under torch.no_grad()
#   (layer(x) * output_gradient).sum().backward()          # then layer(x), x.grad, layer.running_mean, ...
X = [[1, -2], [2, 0], [4, 3], [9, 5]]
OUTPUT_GRADIENT = [[1, 2], [3, 4], [5, 6], [7, 9]]
TORCH_OUTPUT = [
    [-0.946656108, -1.649933338],
    [-0.297770739, -1.278542876],
    [1.000000000, -0.721457243],
    [4.244426727, -0.350066781],
]
TORCH_X_GRADIENT = [
    [-0.614734888, 0.012805754],
    [0.239062116, 0.032016069],
    [0.648885369, -0.124863677],
    [-0.273212612, 0.080041856],
]
TORCH_WEIGHT_GRADIENT = [8.435509682, 10.213236809]
TORCH_BIAS_GRADIENT = [16, 21]
TORCH_RUNNING_MEAN = [0.400000006, 0.150000006]
TORCH_RUNNING_VARIANCE = [2.166666746, 1.866666675]


def torchs_layer(momentum):
    layer = BatchNorm(2, momentum=momentum)
    layer.weight.set_value(np.array([2, 0.5], "float32"))
    layer.bias.set_value(np.array([1, -1], "float32"))
    return layer


def test_outputs_and_gradients_equal_pytorchs():
    results = run(torchs_layer(0.9), np.array(X, "float32"), np.array(OUTPUT_GRADIENT, "float32"))
    torchs = (TORCH_OUTPUT, TORCH_X_GRADIENT, TORCH_WEIGHT_GRADIENT, TORCH_BIAS_GRADIENT)
    for got, expected in zip(results, torchs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_momentum_is_one_minus_pytorchs():
    ours = torchs_layer(momentum=1 - 0.1)  # PyTorch's 0.1
    ours(paddle.to_tensor(X, "float32"))
    np.testing.assert_allclose(ours._mean.numpy(), TORCH_RUNNING_MEAN, rtol=1e-6)
    swapped = torchs_layer(momentum=0.1)
    swapped(paddle.to_tensor(X, "float32"))
    np.testing.assert_allclose(swapped._mean.numpy(), np.multiply(9, TORCH_RUNNING_MEAN), rtol=1e-6)


def test_running_variance_is_biased_where_pytorchs_is_unbiased():
    ours = torchs_layer(momentum=0.9)
    ours(paddle.to_tensor(X, "float32"))
    # By hand: 1, 2, 4, 9 have mean 4 and squared differences 9 + 4 + 0 + 25 = 38; 38/4 is biased, 38/3 is not.
    assert ours._variance[0].item() == pytest.approx(0.9 + 0.1 * 38 / 4)
    assert TORCH_RUNNING_VARIANCE[0] == pytest.approx(0.9 + 0.1 * 38 / 3)
    biased = (np.array(TORCH_RUNNING_VARIANCE) - 0.9) * 3 / 4 + 0.9
    np.testing.assert_allclose(ours._variance.numpy(), biased, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 5), (3, 5, 4), (3, 5, 4, 6)])
def test_gradients_in_closed_form_are_those_of_central_differences(shape):
    # In float64, against the loss itself: nothing here differentiates for us.
    x, output_gradient = numbers(shape).astype("float64"), numbers(shape, seed=1).astype("float64")
    weight, bias = np.linspace(0.5, 2, shape[1]), np.linspace(-1, 1, shape[1])
    by_channel = (1, shape[1]) + (1,) * (len(shape) - 2)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)

    def loss(x, weight, bias):
        normalized = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        return ((weight.reshape(by_channel) * normalized + bias.reshape(by_channel)) * output_gradient).sum()

    arguments = [x, weight, bias]
    gradients = batch_norm_gradients(*(paddle.to_tensor(each) for each in (output_gradient, x, weight)))
    for position, gradient in enumerate(gradients):
        expected = np.zeros(arguments[position].shape)
        for index in np.ndindex(expected.shape):
            steps = [np.array(each) for each in arguments], [np.array(each) for each in arguments]
            steps[0][position][index] += 1e-5
            steps[1][position][index] -= 1e-5
            expected[index] = (loss(*steps[0]) - loss(*steps[1])) / 2e-5
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_gradients_in_closed_form_are_those_that_paddle_finds():
    x, output_gradient = numbers((3, 5, 4, 6)), numbers((3, 5, 4, 6), seed=1)
    theirs, _ = pair(nn.BatchNorm2D, 5)
    _, *expected = run(theirs, x, output_gradient)
    got = batch_norm_gradients(paddle.to_tensor(output_gradient), paddle.to_tensor(x), theirs.weight)
    for ours, gradient in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), gradient, rtol=1e-5, atol=1e-5 * abs(gradient).max())


def swap_batch_norms(network):
    """Put our BatchNorm in the place of every one of Paddle's, with its state; return how many there were."""
    swapped = 0
    for parent in network.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2D):
                ours = BatchNorm(layer.weight.shape[0])
                ours.set_state_dict(layer.state_dict())
                setattr(parent, name, ours)
                swapped += 1
    return swapped


def test_a_network_trains_evaluates_and_exports_with_it(tmp_path):
    paddle.seed(0)  # with some first weights a ReLU's input is so near to 0 that rounding decides its sign
    theirs, ours = create_model("resnet8"), create_model("resnet8")
    ours.set_state_dict(theirs.state_dict())
    assert swap_batch_norms(ours) == 7
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images, labels = paddle.to_tensor(numbers((4, 3, 16, 16))), paddle.to_tensor([0, 3, 9, 3])
    for network in (theirs, ours):
        network.train()
        nn.functional.cross_entropy(network(images), labels).backward()
    expected = {name: each.grad.numpy() for name, each in theirs.named_parameters() if not each.stop_gradient}
    gradients = {name: each.grad.numpy() for name, each in ours.named_parameters()}
    assert list(gradients) == list(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=1e-5 * max(1, abs(gradient).max()))
    for name, tensor in theirs.state_dict().items():  # the running statistics too
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), tensor.numpy(), rtol=1e-5, atol=1e-5)

    for network in (theirs, ours):
        network.eval()
    logits = theirs(images).numpy()
    np.testing.assert_allclose(ours(images).numpy(), logits, rtol=1e-4, atol=1e-5)
    paddle.jit.save(ours, str(tmp_path / "model"), input_spec=[paddle.static.InputSpec([None, 3, 16, 16], "float32")])
    exported = paddle.jit.load(str(tmp_path / "model"))
    np.testing.assert_allclose(exported(images).numpy(), logits, rtol=1e-4, atol=1e-5)
