"""States of the optimizer, the loss scaler and the moving average are read as data, and damaged ones are one line."""

from __future__ import annotations

import pickle

import numpy as np
import paddle
import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.training.checkpoints import Checkpoint
from paddle_resnet.training.optim.ema import MovingAverage


def make_model():
    paddle.seed(1)
    network = paddle.nn.Linear(3, 2)
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.1, 10)
    optimizer = paddle.optimizer.Momentum(schedule, momentum=0.9, parameters=network.parameters())
    model = paddle.Model(network)
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
    return model


@pytest.fixture(scope="module")
def optimizer_state():
    with paddle.utils.unique_name.guard():
        model = make_model()
        model.train_batch([paddle.ones([4, 3])], [paddle.to_tensor([0, 1, 0, 1])])
        model._optimizer._learning_rate.step()
        state = model._optimizer.state_dict()
    return {key: value.numpy() if isinstance(value, paddle.Tensor) else value for key, value in state.items()}


def load_state(folder, content, scaler=None):
    (folder / "optimizer.pdopt").write_bytes(pickle.dumps(content, 2))
    if scaler is not None:
        (folder / "scaler.pdscaler").write_bytes(pickle.dumps(scaler, 2))
    checkpoint = Checkpoint(folder, state=None)
    with paddle.utils.unique_name.guard():
        model = make_model()
        checkpoint.restore_optimizer(model)
        model.train_batch([paddle.ones([4, 3])], [paddle.to_tensor([0, 1, 0, 1])])
    return model


VELOCITY = "linear_0.w_0_velocity_0"
ABSENT = object()


def test_an_optimizer_state_is_loaded(tmp_path, optimizer_state):
    momentum = {key: ("its name", value) if key == VELOCITY else value for key, value in optimizer_state.items()}
    model = load_state(tmp_path, {**momentum, "StructuredToParameterName@@": {"weight": "linear_0.w_0"}})
    assert model._optimizer._learning_rate.last_epoch == 1
    found = model._optimizer.state_dict()[VELOCITY].numpy()
    fresh = load_state(tmp_path, {**optimizer_state, VELOCITY: np.zeros((3, 2), np.float32)})
    difference = found - fresh._optimizer.state_dict()[VELOCITY].numpy()
    np.testing.assert_allclose(difference, 0.9 * optimizer_state[VELOCITY], rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((VELOCITY, value) for value in (ABSENT, None, (), ("a",), ("a", ("b", ())), {}, {"a": {"b": ()}}, "x", 1.5)),
        (VELOCITY, [[1], [1, 2]]),
        (VELOCITY, 10**40),
        (VELOCITY, np.ones(1, np.float32)),
        (VELOCITY, np.ones((3, 2), np.int8)),
        ("LR_Scheduler", ABSENT),
        ("LR_Scheduler", ()),
        ("LR_Scheduler", {}),
        ("LR_Scheduler", {"last_epoch": 1}),
        ("LR_Scheduler", {"last_epoch": 1, "last_lr": {}}),
        ("LR_Scheduler", {"last_epoch": (), "last_lr": 0.1}),
        (7, np.ones(2, np.float32)),
        (b"bytes", 1),
    ],
)
def test_a_damaged_optimizer_state_is_one_line(tmp_path, optimizer_state, key, value):
    content = {**optimizer_state, key: value}
    if value is ABSENT:
        del content[key]
    with pytest.raises(
        UsageError, match=rf"^{tmp_path}: damaged: optimizer\.pdopt.*a new run can start from"
    ) as caught:
        load_state(tmp_path, content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_optimizer_state_without_arrays_is_refused(tmp_path, optimizer_state):
    with pytest.raises(UsageError, match=r"optimizer\.pdopt does not fit the run: .*velocity"):
        load_state(tmp_path, {"LR_Scheduler": optimizer_state["LR_Scheduler"]})


class _Scaler:
    """What Paddle's does on a GPU."""

    def load_state_dict(self, state):
        self.scale = state["scale"][0]


@pytest.mark.parametrize("scaler", [{}, {"scale": 3}, {"scale": ()}, {"scale": "x"}, {3: np.ones(1)}, [], ()])
def test_a_damaged_scaler_state_is_one_line(tmp_path, monkeypatch, optimizer_state, scaler):
    monkeypatch.setattr(paddle.amp, "GradScaler", _Scaler)
    load_state(tmp_path, optimizer_state, {"scale": np.ones(1, np.float32)})
    with pytest.raises(UsageError, match=rf"^{tmp_path}: damaged: scaler\.pdscaler.*a new run can start from"):
        load_state(tmp_path, optimizer_state, scaler)


@pytest.mark.parametrize("change", [{"fc.bias": ABSENT}, {"fc.bias": np.zeros(3, np.float32)}, {"x": np.zeros(1)}])
def test_a_damaged_average_is_one_line(tmp_path, change):
    network = create_model("resnet8")
    whole = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    average = MovingAverage(network, 0.9)
    checkpoint = Checkpoint(tmp_path, state=None)
    (tmp_path / "trained.pdparams").write_bytes(pickle.dumps(whole))
    shifted = {name: value + 1 for name, value in whole.items()}
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps(shifted))
    checkpoint.restore_network(network, average)
    np.testing.assert_array_equal(average.average["fc.bias"].numpy(), shifted["fc.bias"])
    np.testing.assert_array_equal(network.fc.bias.numpy(), whole["fc.bias"])

    damaged = {name: value for name, value in (shifted | change).items() if value is not ABSENT}
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps(damaged))
    with pytest.raises(UsageError, match=r"model\.pdparams: does not fit the network"):
        checkpoint.restore_network(network, average)
