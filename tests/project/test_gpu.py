"""What a GPU alone can show, and what can be shown of it without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from tiny_run import SIZE, make_run

from paddle_resnet.config import Config
from paddle_resnet.exporting import export
from paddle_resnet.inference import Predictor
from paddle_resnet.models import create_model
from paddle_resnet.training import Run, train
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.setup import make_model

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
QUICK = ["model.name=resnet8", "train.epochs=3", "train.batch_size=64"]


@pytest.mark.parametrize(("device", "level"), [("gpu:0", "O1"), ("cpu", None)])
def test_mixed_precision_is_asked_for_on_a_gpu_alone(monkeypatch, device, level):
    asked = []
    monkeypatch.setattr(paddle.Model, "prepare", lambda model, optimizer, loss, metrics, amp: asked.append(amp))
    config = Config.load(QUICKSTART, [*QUICK, "train.amp=true"])
    make_model(Run.new(config), create_model("resnet8", 10), TrainMetrics(), 10, device)
    assert asked == [level]


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["true", "false"])
def test_a_run_learns_on_a_gpu(tmp_path, amp):
    run = train(Config.load(QUICKSTART, [*QUICK, "device=gpu", f"train.amp={amp}", f"output={tmp_path}"]))
    losses = [record.train_loss for record in run.history()]
    assert losses[-1] < 0.8 * losses[0]
    assert (run.checkpoint_path("last") / "scaler.pdscaler").is_file() == (amp == "true")


@pytest.mark.gpu
def test_a_gpus_gradients_are_the_cpus():
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    state = {name: tensor.numpy() for name, tensor in create_model("resnet8", 10).state_dict().items()}
    gradients = []
    for device in ("cpu", "gpu"):
        paddle.set_device(device)
        network = create_model("resnet8", 10)
        network.set_state_dict(state)
        paddle.nn.functional.cross_entropy(network(paddle.to_tensor(images)), paddle.arange(8)).backward()
        gradients.append(network.conv1.weight.grad.numpy())
    paddle.set_device("cpu")
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-3 * np.abs(gradients[0]).max())


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_an_exported_model_answers_on_a_gpu_as_on_a_cpu(tmp_path, precision, tolerance):
    run = make_run(tmp_path)
    export(run)
    batch = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    with Predictor(run.path, "cpu") as predictor:
        expected = predictor.scores(batch)
    with Predictor(run.path, "gpu", precision) as predictor:
        np.testing.assert_allclose(predictor.scores(batch), expected, atol=tolerance)
