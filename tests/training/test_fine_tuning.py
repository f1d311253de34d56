"""Frozen first epochs: the head alone moves, on either backend."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from tiny_run import make_pictures, make_run, quickstart

from paddle_resnet import onednn
from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model, read_state_dict
from paddle_resnet.training import Run, resume, train
from paddle_resnet.training.callbacks.recipe import FreezeBackbone
from paddle_resnet.training.optim.optimizer import decay_layer_rates, make_optimizer
from paddle_resnet.training.setup import open_data_and_network

pytestmark = pytest.mark.slow

RECIPE = ["train.momentum=0.9", "train.weight_decay=0.1", "train.warmup=0", "train.clip_norm=1", "train.accumulate=2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights to start from, with running statistics that no batch would give."""
    paddle.seed(3)
    network = create_model("resnet8", num_classes=10)
    for name, tensor in network.state_dict().items():
        if name.endswith("_mean"):
            tensor.set_value(tensor.numpy() + 0.25)
    path = tmp_path_factory.mktemp("weights") / "start.pdparams"
    paddle.save(network.state_dict(), str(path))
    return path


def trained(weights, output, backend, epochs, **options):
    quick = ["model.name=resnet8", "data.image_size=8", "train.batch_size=110", "device=cpu", f"output={output}"]
    quick += ["data.validation_fraction=0.5", "data.test_fraction=0.5"]  # 449 training images
    keys = [f"train.{key}={value}" for key, value in options.items()]
    config = [*quick, *RECIPE, *keys, f"model.pretrained={weights}", f"train.epochs={epochs}"]
    run = train(quickstart([*config, f"train.cpu_backend={backend}", "augment.pad=1"]))
    return read_state_dict(run.checkpoint_path("last") / "model.pdparams")


def test_a_runs_folder_gives_weights_and_normalisation(weights, tmp_path):
    """The head too, if the classes have the same names; else it is new, be they as many."""
    tiny = make_run(tmp_path)
    best = read_state_dict(tiny.checkpoint_path("best") / "model.pdparams")
    for rename in ({}, {"red": "rose"}):
        root = make_pictures(tmp_path / "".join(["more", *rename]), {"train": 8, "test": 4})
        for before, now in rename.items():
            for split in ("train", "test"):
                (root / split / before).rename(root / split / now)
        changed = {"data": tiny.config.data.model_copy(update={"root": root, "mean": None})}
        model = tiny.config.model.model_copy(update={"pretrained": str(tiny.path)})
        run = Run.new(tiny.config.model_copy(update={**changed, "model": model, "name": "next"}))
        network = open_data_and_network(run)
        for name, tensor in network.state_dict().items():
            same = np.array_equal(tensor.numpy(), best[name])
            assert same or (bool(rename) and name.startswith("fc.")), name
        assert not rename or (network.fc.weight.numpy() != best["fc.weight"]).all()
    with pytest.raises(UsageError, match=r"a run without weights: it has no checkpoints/best"):
        create_model("resnet8", 3, pretrained=make_run(tmp_path / "untrained", checkpoint=False).path)


def test_a_run_of_decomposed_class_names_keeps_its_head(tmp_path):
    """Its folders came from macOS, and its version did not compose their names."""
    tiny = make_run(tmp_path)
    data = tiny.path / "data.json"
    data.write_text(data.read_text(encoding="utf-8").replace('"red"', '"rose\u0301"'), encoding="utf-8")
    root = make_pictures(tmp_path / "more", {"train": 8, "test": 4})
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / "ros\u00e9")
    model = tiny.config.model.model_copy(update={"pretrained": str(tiny.path)})
    update = {"data": tiny.config.data.model_copy(update={"root": root}), "model": model, "name": "next"}
    run = Run.new(tiny.config.model_copy(update=update))
    assert "ros\u00e9" in run.splits().classes
    best = read_state_dict(tiny.checkpoint_path("best") / "model.pdparams")
    np.testing.assert_array_equal(open_data_and_network(run).fc.weight.numpy(), best["fc.weight"])


def test_weights_of_a_run_bring_its_mean_and_deviation(tmp_path):
    first = quickstart(["model.name=resnet8", f"output={tmp_path}", "data.mean=[0.1, 0.2, 0.3]"])
    with Run.new(first).create():
        pass
    following = first.model_copy(
        update={
            "data": first.data.model_copy(update={"mean": None}),
            "model": first.model.model_copy(update={"pretrained": str(first.run_folder)}),
        }
    )
    assert Run.new(following).config.data.mean == (0.1, 0.2, 0.3)
    assert Run.new(following).config.data.std == Run.new(first).normalize().std


BACKENDS = ["native"] if onednn.unavailable_reason("cpu") else ["native", "onednn"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_only_the_head_changes_while_frozen(weights, tmp_path, backend, optimizer):
    """Neither decay nor momentum moves what is frozen, and its running statistics stay."""
    found = trained(weights, tmp_path, backend, 1, freeze_epochs=1, optimizer=optimizer)
    for name, before in read_state_dict(weights).items():
        if name.startswith("fc."):
            assert (found[name] != before).any(), name
        else:
            np.testing.assert_array_equal(found[name], before, err_msg=name)


def test_backends_agree_on_frozen_and_unfrozen_epochs(weights, tmp_path):
    results = [trained(weights, tmp_path / backend, backend, 2, freeze_epochs=1) for backend in BACKENDS]
    before = read_state_dict(weights)
    for name, first in results[0].items():
        assert (first != before[name]).any(), name
        for other in results[1:]:
            np.testing.assert_allclose(other[name], first, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
def test_a_run_stopped_after_frozen_epochs_resumes_exactly(weights, tmp_path, monkeypatch, optimizer):
    options = {"freeze_epochs": 1, "optimizer": optimizer, "schedule": "plateau", "plateau_patience": 1, "patience": 2}
    whole = trained(weights, tmp_path / "whole", "native", 2, **options)
    begin = FreezeBackbone.on_epoch_begin

    def stop_before_the_second(callback, epoch=None, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        begin(callback, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(FreezeBackbone, "on_epoch_begin", stop_before_the_second)
        with pytest.raises(KeyboardInterrupt):
            trained(weights, tmp_path / "stopped", "native", 2, **options)
    run = resume(tmp_path / "stopped" / "quickstart")
    for name, found in read_state_dict(run.checkpoint_path("last") / "model.pdparams").items():
        np.testing.assert_array_equal(found, whole[name], err_msg=name)


def test_the_backbone_is_frozen_for_its_epochs():
    network = create_model("resnet8", num_classes=3)
    callback = FreezeBackbone(network, 2, make_optimizer(network, TrainConfig(), steps_per_epoch=1))
    for epoch, frozen in ((0, True), (1, True), (2, False), (3, False)):
        callback.on_epoch_begin(epoch)
        network.train()
        assert network.layer1[0].conv1.weight.stop_gradient == frozen
        assert network.layer3[0].bn1.training != frozen
        assert not network.fc.weight.stop_gradient


def test_frozen_epochs_are_at_most_all_epochs():
    with pytest.raises(UsageError, match=r"train\.freeze_epochs \(5\) must be at most train\.epochs \(4\)"):
        quickstart(["train.epochs=4", "train.freeze_epochs=5"])


def test_layer_decay_needs_a_network_with_parts():
    with pytest.raises(UsageError, match=r"layer_decay .*Linear"):
        decay_layer_rates(paddle.nn.Linear(2, 2), 0.5)
