"""The moving average of weights, against float64, and through a run: validated, kept, and out of training's way."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from paddle import nn
from tiny_run import quickstart

from paddle_resnet.models import read_state_dict
from paddle_resnet.training import train
from paddle_resnet.training.optim.ema import MovingAverage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_plots")]


def random_weights(network, generator):
    """Give the network random values, as a training step would; return them."""
    values = {name: generator.normal(size=each.shape).astype("float32") for name, each in network.state_dict().items()}
    network.set_state_dict(values)
    return values


def test_the_average_has_a_growing_decay():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1D(4))
    generator = np.random.default_rng(0)
    expected = {name: value.astype("float64") for name, value in random_weights(network, generator).items()}
    average = MovingAverage(network, 0.5)
    last = {}
    for step in range(1, 21):
        last = random_weights(network, generator)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in last.items()}
        average.update()
    assert {"1._mean", "1._variance", "0.weight"} <= expected.keys()
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), last[name], err_msg=name)
    average.apply()
    for name, tensor in network.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], atol=1e-6, err_msg=name)
    average.restore()
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), last[name], err_msg=name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One short run with the average and the same one without."""
    common = ["model.name=resnet8", "train.epochs=2", "data.image_size=8", "train.batch_size=100"]
    common += ["train.learning_rate=0.05", "device=cpu"]
    output = tmp_path_factory.mktemp("runs")
    return [
        train(quickstart([*common, f"output={output}", f"name={name}", f"train.ema={decay}"]))
        for name, decay in (("averaged", 0.9), ("plain", "null"))
    ]


def test_averaging_does_not_touch_training(runs):
    averaged, plain = (run.checkpoint_path("last") for run in runs)
    trained, without = read_state_dict(averaged / "trained.pdparams"), read_state_dict(plain / "model.pdparams")
    validated = read_state_dict(averaged / "model.pdparams")
    assert trained.keys() == without.keys() == validated.keys()
    for name, weights in without.items():
        np.testing.assert_array_equal(trained[name], weights, err_msg=name)
    assert not np.array_equal(validated["conv1.weight"], trained["conv1.weight"])
    assert not np.array_equal(validated["bn1._mean"], trained["bn1._mean"])
    assert not (plain / "trained.pdparams").exists()
    assert (averaged / "optimizer.pdopt").exists()


@pytest.mark.parametrize("which", ["best", "last"])
def test_what_was_validated_is_what_is_loaded(runs, which):
    from paddle_resnet.data import uint8_batches

    run = runs[0]
    state = json.loads((run.checkpoint_path(which) / "state.json").read_text())
    network, normalize, splits = run.load_network(which), run.normalize(), run.splits()
    correct = []
    for images, labels in uint8_batches(splits.validation, 100, splits.resize, 8):
        with paddle.no_grad():
            correct += list(network(normalize(paddle.to_tensor(images))).numpy().argmax(axis=1) == labels)
    assert state["validation_top1"] == pytest.approx(np.mean(correct))
    assert state["averaged_steps"] == state["epoch"] * (len(splits.train) // 100)


def test_the_average_is_evaluated_and_exported(runs):
    """The probabilities of the kept weights, computed here, against the report and the exported model."""
    from paddle_resnet.data import uint8_batches
    from paddle_resnet.evaluation import evaluate
    from paddle_resnet.exporting import export
    from paddle_resnet.inference import Predictor
    from paddle_resnet.models import create_model

    run = runs[0]
    splits, normalize = run.splits(), run.normalize()
    pixels = np.concatenate([images for images, _ in uint8_batches(splits.test, 100, splits.resize, 8)])

    def scores(weights):
        network = create_model("resnet8", num_classes=10)
        network.set_state_dict(read_state_dict(weights))
        network.eval()
        with paddle.no_grad():
            return paddle.nn.functional.softmax(network(normalize(paddle.to_tensor(pixels)))).numpy()

    last, best = run.checkpoint_path("last"), run.checkpoint_path("best")
    expected = scores(best / "model.pdparams")
    evaluation = evaluate(run)
    np.testing.assert_allclose(evaluation.scores, expected, atol=1e-5)
    with Predictor(export(run).path, device="cpu") as predictor:
        np.testing.assert_allclose(predictor.scores(pixels), expected, atol=1e-4)
    assert np.abs(scores(last / "trained.pdparams") - expected).max() > 0.01
