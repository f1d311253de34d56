"""docs/errata.md: a test for each of its claims."""

import math
import re
import warnings

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.vision import models as vision

from paddle_resnet.config import TrainConfig
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, projection_shortcut
from paddle_resnet.training.optim.optimizer import make_optimizer


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_the_page_names_exactly_these_tests(project):
    named = re.findall(r"`(test_\w+)`", (project / "docs" / "errata.md").read_text(encoding="utf-8"))
    here = {name for name in globals() if name.startswith("test_")} - {"test_the_page_names_exactly_these_tests"}
    assert set(named) == here
    assert len(named) == len(here)


# Networks.


def test_basic_blocks_of_depths_3_4_6_3_are_resnet34():
    with paddle.LazyGuard():
        of_basic_blocks, resnet50 = vision.ResNet(vision.resnet.BasicBlock, 34), create_model("resnet50")
    assert [len(getattr(of_basic_blocks, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert count_parameters(of_basic_blocks) == 21_797_672
    assert count_parameters(resnet50) == 25_557_032


def test_a_second_bottleneck_needs_256_input_channels():
    first = Bottleneck(64, 64, 1, projection_shortcut)
    wrong, right = Bottleneck(64, 64, 1, projection_shortcut), Bottleneck(256, 64, 1, projection_shortcut)
    features = first(paddle.to_tensor(numbers(1, 64, 4, 4)))
    assert list(features.shape) == [1, 256, 4, 4]
    with pytest.raises(ValueError, match="channel"):
        wrong(features)
    assert list(right(features).shape) == [1, 256, 4, 4]


def test_the_residual_takes_both_signs():
    block = BasicBlock(8, 8, 1, projection_shortcut)
    residuals = []
    block.bn2.register_forward_post_hook(lambda _layer, _inputs, output: residuals.append(output.numpy()))
    x = np.abs(numbers(16, 8, 8, 8))
    output = block(paddle.to_tensor(x)).numpy()
    (residual,) = residuals
    assert 0.4 < (residual < 0).mean() < 0.6
    assert (output < x).mean() > 0.4, "a block can make a feature smaller"


# BatchNorm.


def test_only_a_new_batch_norm_passes_its_input_through():
    layer = nn.BatchNorm1D(3)
    x = 5 * numbers(64, 3) + 2
    layer.eval()
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), x / math.sqrt(1 + 1e-5), rtol=1e-6)
    layer.train()
    for _ in range(100):
        layer(paddle.to_tensor(x))
    layer.eval()
    np.testing.assert_allclose(
        layer(paddle.to_tensor(x)).numpy(), (x - x.mean(0)) / x.std(0), atol=1e-3
    )  # nothing like x: mean 0 and variance 1


def test_batch_norm_centres_features_and_not_samples():
    output = nn.BatchNorm1D(4)(paddle.to_tensor(numbers(32, 4) * [1, 2, 3, 4] + [5, 6, 7, 8], "float32")).numpy()
    np.testing.assert_allclose(output.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(output.std(axis=0), 1, atol=1e-3)
    assert np.abs(output.mean(axis=1)).max() > 0.3


def test_running_statistics_move_by_a_tenth_each_step():
    layer = nn.BatchNorm1D(3)
    np.testing.assert_array_equal(layer._mean.numpy(), 0)
    np.testing.assert_array_equal(layer._variance.numpy(), 1)
    x = 2 * numbers(50, 3) + 4
    layer(paddle.to_tensor(x))
    np.testing.assert_allclose(layer._mean.numpy(), 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer._variance.numpy(), 0.9 + 0.1 * x.var(0), rtol=1e-5)


def test_batch_norm_leaves_one_value_per_channel_unchanged():
    layer = nn.BatchNorm2D(3)
    layer.bias.set_value(np.array([7, 8, 9], "float32"))
    x = numbers(1, 3, 1, 1)
    np.testing.assert_array_equal(layer(paddle.to_tensor(x)).numpy(), x)
    np.testing.assert_array_equal(layer._mean.numpy(), 0)


def test_a_tensor_attribute_is_not_saved():
    class Book(nn.Layer):
        def __init__(self):
            super().__init__()
            self.moving_mean = paddle.zeros([3])

    assert list(Book().state_dict()) == []
    assert "_mean" in nn.BatchNorm1D(3).state_dict()


def test_parameters_includes_running_statistics():
    network = vision.resnet18()
    assert sum(parameter.size for parameter in network.parameters()) == 11_699_112
    assert count_parameters(network) == 11_689_512
    statistics = [name for name, parameter in network.named_parameters() if parameter.stop_gradient]
    assert {name.split(".")[-1] for name in statistics} == {"_mean", "_variance"}


def test_weight_decay_shrinks_batch_norm_unless_excluded():
    def scale_after_a_step(make):
        layer = nn.BatchNorm1D(2)
        optimizer = make(layer)
        (0.0 * (layer.weight.sum() + layer.bias.sum())).backward()  # the loss does not ask for any change
        optimizer.step()
        return layer.weight.numpy().tolist()

    decay = {"weight_decay": 0.5, "momentum": 0.0}
    plain = scale_after_a_step(lambda layer: paddle.optimizer.Momentum(0.1, parameters=layer.parameters(), **decay))
    assert plain == pytest.approx([1 - 0.1 * 0.5] * 2)
    train = TrainConfig(epochs=1, learning_rate=0.1, warmup=0.0, **decay)
    assert scale_after_a_step(lambda layer: make_optimizer(layer, train, steps_per_epoch=10)) == [1.0, 1.0]


# Measuring.


@pytest.mark.parametrize(("accuracy", "points"), [(0.5, 6.25), (0.75, 5.41), (0.9, 3.75)])
def test_accuracy_on_64_images_is_uncertain_by_points(accuracy, points):
    measured = np.random.default_rng(0).binomial(64, accuracy, size=100_000) / 64
    assert 100 * math.sqrt(accuracy * (1 - accuracy) / 64) == pytest.approx(points, abs=0.005)
    assert 100 * measured.std() == pytest.approx(points, rel=0.02)
    ten_thousand = 100 * math.sqrt(accuracy * (1 - accuracy) / 10_000)
    assert ten_thousand <= 0.5


def test_a_constant_prediction_reaches_half_on_two_classes():
    labels = np.arange(400) % 2
    logits = paddle.zeros([400, 2])  # no image changes the answer
    loss = nn.functional.cross_entropy(logits, paddle.to_tensor(labels)).item()
    assert loss == pytest.approx(math.log(2))
    assert (logits.numpy().argmax(1) == labels).mean() == 0.5
    # Tossing a coin for each image misses 50% by as much as 50.75% does, on 400 images, in four of five cases, and
    # on 17,000 still in one of twenty.
    for images, usual in ((400, 0.80), (17_000, 0.05)):
        right = np.random.default_rng(0).binomial(images, 0.5, 100_000) / images
        assert (np.abs(right - 0.5) >= 0.0075 - 1e-12).mean() == pytest.approx(usual, abs=0.03)


# paddle.Model.


class Targets(paddle.io.Dataset):
    """The input is always 1; the target is given."""

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return np.ones(1, "float32"), np.array([self.targets[index]], "float32")


class Slope(nn.Layer):
    """``w x``, and w starts at 0."""

    def __init__(self):
        super().__init__()
        self.w = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x):
        return x * self.w


def prepared(learning_rate=0.1):
    model = paddle.Model(Slope())
    model.prepare(paddle.optimizer.SGD(learning_rate, parameters=model.parameters()), nn.MSELoss())
    return model


def test_evaluate_reports_the_last_batchs_loss():
    # Squared errors 0, 0, 0 and 4: the mean is 1, the last batch of two has 2.
    assert prepared().evaluate(Targets([0, 0, 0, 2]), batch_size=2, verbose=0)["loss"] == [2.0]


def test_default_early_stopping_stops_after_one_evaluation():
    evaluations = []

    class Note(paddle.callbacks.Callback):
        def on_eval_end(self, logs=None):
            evaluations.append(logs["loss"][0])

    stopping = paddle.callbacks.EarlyStopping("loss", verbose=0, save_best_model=False)
    callbacks = [stopping, Note()]
    prepared().fit(Targets([1, 1]), Targets([1, 1]), batch_size=2, epochs=5, verbose=0, callbacks=callbacks)
    assert evaluations == pytest.approx([0.8**2]), "it was 1 before the first epoch: it improved, and yet"


def test_accumulated_gradients_are_summed():
    def slope(**options):
        model = prepared()
        model.fit(Targets([1, 1, 1, 1]), epochs=1, verbose=0, shuffle=False, **options)
        return model.network.w.item()

    assert slope(batch_size=4) == pytest.approx(0.2)
    assert slope(batch_size=2, accumulate_grad_batches=2) == pytest.approx(2 * 0.2)


def test_a_head_of_another_size_stays_random():
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 4)
    before = ours.weight.numpy().copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.set_state_dict(theirs.state_dict())
    assert any("Skip loading for weight" in str(warning.message) for warning in caught)
    np.testing.assert_array_equal(ours.weight.numpy(), before)


def test_flops_crashes_on_paddle_3_with_numpy_2_4():
    if not paddle.__version__.startswith("3.") or np.lib.NumpyVersion(np.__version__) < "2.4.0":
        pytest.skip("only Paddle 3 with numpy 2.4 or newer")
    with pytest.raises(TypeError, match="0-dimensional"):
        paddle.flops(nn.Sequential(nn.Conv2D(3, 4, 3)), [1, 3, 8, 8])
