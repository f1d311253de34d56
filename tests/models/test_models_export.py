"""A network of each kind of block, exported and run in Paddle Inference."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from tiny_family import FAMILY
from tiny_run import COLOURS, SIZE, make_pictures

from paddle_resnet.config import Config
from paddle_resnet.exporting import export
from paddle_resnet.inference import Predictor
from paddle_resnet.models import create_configured_model
from paddle_resnet.training.run_folder import Run
from paddle_resnet.zoo import registry

pytestmark = pytest.mark.slow

LENET = registry.model_entry("lenet")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("export") / "pictures", {"train": 8, "test": 4})


@pytest.mark.parametrize("kind", [*FAMILY, "lenet"])
def test_exported_network_equals_the_trained(kind, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._ENTRIES, "tiny", FAMILY.get(kind, LENET))
    config = Config.model_validate(
        {
            "output": str(tmp_path),
            "device": "cpu",
            "data": {"source": "image_folder", "root": str(pictures), "image_size": SIZE, "validation_fraction": 0.25},
            "model": {"name": "tiny", "dropout": 0.2, "stochastic_depth": 0.0 if kind in ("plain", "lenet") else 0.2},
        }
    )
    run = Run.new(config)
    with run.create():
        pass
    paddle.seed(0)
    network = create_configured_model(config.model, len(COLOURS))
    normalize = run.normalize()
    for _ in range(5):  # running statistics as after training
        network(normalize(paddle.to_tensor(run.splits().train.batch(np.arange(12))[:, :SIZE, :SIZE])))
    run.checkpoint_path("best").mkdir(parents=True)
    paddle.save(network.state_dict(), str(run.checkpoint_path("best") / "model.pdparams"))

    report = export(run)
    network.eval()
    noise = np.random.default_rng(0).uniform(size=(5, SIZE, SIZE, 3))
    pixels = (noise * np.linspace(25, 255, 5).reshape(5, 1, 1, 1)).astype(np.uint8)  # from dark to bright
    with paddle.no_grad():
        logits = network(normalize(paddle.to_tensor(pixels))).numpy().astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    with Predictor(report.path, device="cpu") as predictor:
        scores = predictor.scores(pixels)
    np.testing.assert_allclose(scores, powers / powers.sum(1, keepdims=True), atol=1e-4)
    assert np.ptp(scores, axis=0).max() > 1e-3, "scores that do not depend on the image tell nothing"
