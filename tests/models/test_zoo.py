"""The weights inside the package: their records, publishing a run, and damaged copies."""

from __future__ import annotations

import hashlib
import io
import json
import os
import runpy
import tarfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from network_facts import arrays
from PIL import Image
from safetensors.numpy import load_file
from tiny_archives import write_cifar10

from paddle_resnet.config import Config
from paddle_resnet.data import Normalize
from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.evaluation.scorer import Views
from paddle_resnet.models import count_parameters, create_model, load_weights, zoo_models, zoo_record
from paddle_resnet.onednn import accelerate
from paddle_resnet.text_files import write_json
from paddle_resnet.training import Run
from paddle_resnet.training.publish_weights import publish_weights
from paddle_resnet.training.setup import open_data_and_network
from paddle_resnet.zoo import cifar10_weights

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = zoo_models()
PARAMETERS = {"resnet20": 269_722, "resnet56": 853_018}
"""He et al. 2015, table 6 (0.27M and 0.85M), counted exactly for shortcuts without parameters."""

JPEG_COPY = os.environ.get("CIFAR10_JPEG_COPY")
"""An archive of CIFAR-10 as JPEG files, test/<class>/<number>.jpg, if there is one."""

METRICS = {
    "train": {"epochs": 3, "seconds": 12.5},
    "validation": {"top1": 0.75},
    "test": {"top1": 0.7, "images": 30, "checkpoint": "best"},
    "environment": {"paddle": "3.3.1", "processor": "AMD EPYC", "process": "threads OMP_NUM_THREADS=1"},
}


# --- what the package holds


def test_listed_weights_exist():
    assert set(SHIPPED) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shipped_weights_are_those_of_their_record(name):
    record = zoo_record(name)
    network = create_model(name, pretrained="cifar10")
    assert hashlib.sha256(cifar10_weights.weights_path(name).read_bytes()).hexdigest() == record.sha256
    assert count_parameters(network) == PARAMETERS[name]
    recipe = Config.from_values(record.recipe)
    assert (record.model, record.seed) == (recipe.model.name, recipe.train.seed) == (name, recipe.train.seed)
    assert recipe.data.source == "cifar10" and recipe.data.root is None
    assert record.classes[:2] == ("airplane", "automobile") and len(record.classes) == 10
    assert record.test_images == 10_000


def test_all_shipped_weights_stay_small():
    assert sum(path.stat().st_size for path in cifar10_weights.FOLDER.glob("*")) <= 5_000_000


@pytest.mark.skipif(not JPEG_COPY, reason="CIFAR10_JPEG_COPY names no archive of images")
def test_shipped_weights_reach_their_recorded_accuracy():
    """On 1,000 test images: four standard deviations of a share so measured are the margin."""
    pixels, labels = images_of_test(zoo_record(SHIPPED[0]).classes, per_class=100)
    for name in SHIPPED:
        record = zoo_record(name)
        normalize = Normalize(record.mean, record.std)
        network = accelerate(create_model(name, pretrained="cifar10"))
        scorer = NetworkScorer(network, normalize, Views(flip=record.flip))
        top1 = np.mean(np.concatenate([scorer.scores(part).argmax(1) for part in np.split(pixels, 4)]) == labels)
        margin = 4 * (record.test_top1 * (1 - record.test_top1) / len(labels)) ** 0.5
        assert abs(top1 - record.test_top1) < margin


def images_of_test(classes, per_class):
    pixels, labels = [], []
    with tarfile.open(JPEG_COPY, "r|xz") as archive:
        for member in archive:
            split, _, rest = member.name.partition("/")
            name, _, number = rest.partition("/")
            if split == "test" and number and int(number.removesuffix(".jpg")) < per_class:
                picture = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                pixels.append(np.asarray(picture))
                labels.append(classes.index(name))
    return np.stack(pixels), np.array(labels)


def test_a_wheel_takes_them_along(monkeypatch):
    """By the patterns in setup.py."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds the package, is not installed")
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(PROJECT)
    runpy.run_path("setup.py")
    patterns = given["package_data"]["paddle_resnet.zoo"]
    folder = PROJECT / "paddle_resnet" / "zoo"
    for path in (cifar10_weights.weights_path("resnet20"), cifar10_weights.record_path("resnet20")):
        assert any(path.relative_to(folder).match(pattern) for pattern in patterns)


# --- how a run comes into it


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of resnet8 on an archive of random images, and a zoo that is empty."""
    monkeypatch.setattr(cifar10_weights, "FOLDER", tmp_path / "zoo")
    write_cifar10(tmp_path)
    config = Config.from_values(
        {
            "name": "tiny",
            "output": str(tmp_path / "runs"),
            "data": {"source": "cifar10", "root": str(tmp_path), "verify": False, "mean": [0.4, 0.5, 0.6]},
            "model": {"name": "resnet8"},
            "train": {"seed": 5, "epochs": 4},
            "evaluation": {"flip": True},
        }
    )
    run = Run(config.run_folder, config)
    with run.create(with_data=False):
        pass
    paddle.seed(3)
    network = create_model("resnet8")
    for tensor in network.state_dict().values():  # running statistics, too, other than a new network's
        tensor.set_value(tensor + paddle.rand(tensor.shape))
    run.checkpoint_path("best").mkdir(parents=True)
    paddle.save(network.state_dict(), str(run.checkpoint_path("best") / "model.pdparams"))
    write_json(run.metrics_path, METRICS)
    return run


def test_a_run_becomes_weights_that_create_model_loads(run):
    record = publish_weights(run, "random pixels")
    assert zoo_models() == ["resnet8"]
    expected = {name: tensor.numpy() for name, tensor in run.load_network("best").state_dict().items()}
    loaded = arrays(create_model("resnet8", pretrained="cifar10"))
    assert list(loaded) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert set(load_file(cifar10_weights.weights_path("resnet8"))) == set(expected)
    assert zoo_record("resnet8") == record


def test_the_record_says_what_the_runs_files_say(run):
    publish_weights(run, "random pixels")
    record = json.loads(cifar10_weights.record_path("resnet8").read_text())
    recipe = record.pop("recipe")
    assert record == {
        "model": "resnet8",
        "data": "random pixels",
        "classes": [f"class{number}" for number in range(10)],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2470, 0.2435, 0.2616],
        "test_top1": 0.7,
        "test_images": 30,
        "flip": True,
        "validation_top1": 0.75,
        "seed": 5,
        "epochs": 3,
        "seconds": 12.5,
        "machine": "AMD EPYC, threads OMP_NUM_THREADS=1",
        "paddle": "3.3.1",
        "sha256": hashlib.sha256(cifar10_weights.weights_path("resnet8").read_bytes()).hexdigest(),
    }
    # The config whole, but for this machine's folders.
    again = Config.from_values(recipe)
    assert again.model_copy(update={"output": run.config.output, "data": run.config.data}) == run.config
    assert again.data.model_copy(update={"root": run.config.data.root}) == run.config.data
    assert str(run.path.parent) not in json.dumps(recipe)


@pytest.mark.parametrize(
    ("config", "metrics", "complaint"),
    [
        ({"data": {"source": "digits"}}, METRICS, "data.source is digits"),
        ({"model": {"pretrained": "a.pdparams"}}, METRICS, "began with a.pdparams"),
        ({"model": {"name": "resnet14"}}, METRICS, "does not fit the network"),
        # Fits by its parameters, but answers otherwise.
        ({"model": {"stem": "cifar_pool"}}, METRICS, "model.stem is cifar_pool"),
        ({"data": {"limit": 64}}, METRICS, "data.limit is 64"),
        ({"evaluation": {"shift": 1}}, METRICS, "evaluation.shift is 1"),
        ({}, {**METRICS, "train": None}, "is not finished"),
        ({}, {**METRICS, "environment": None}, r"metrics\.json: has no environment\.process"),
        ({}, {**METRICS, "validation": None}, r"metrics\.json: has no validation\.top1"),
        ({}, {**METRICS, "test": None}, r"not measured yet: paddle-resnet eval"),
        ({}, {**METRICS, "test": {**METRICS["test"], "checkpoint": "last"}}, "not measured yet"),
    ],
)
def test_unpublishable_run_is_refused_and_nothing_written(run, config, metrics, complaint):
    values = run.config.model_dump(mode="json")
    for group, changes in config.items():
        values[group] |= changes
    write_json(run.metrics_path, {section: value for section, value in metrics.items() if value is not None})
    with pytest.raises(UsageError, match=complaint):
        publish_weights(Run(run.path, Config.from_values(values)), "random pixels")
    assert zoo_models() == []
    assert not cifar10_weights.FOLDER.exists()


# --- how a network and a run begin with it


def test_another_number_of_classes_gets_a_new_head(run):
    publish_weights(run, "random pixels")
    published = run.load_network("best")
    network = create_model("resnet8", 3, pretrained="cifar10")
    assert network.fc.weight.shape == [64, 3]
    np.testing.assert_array_equal(network.layer3[0].conv2.weight.numpy(), published.layer3[0].conv2.weight.numpy())
    assert load_weights(create_model("resnet8", 3), "cifar10").skipped_head == ("fc.weight", "fc.bias")


def test_a_run_begins_with_the_weights_and_their_normalisation(run, tmp_path):
    publish_weights(run, "random pixels")
    config = Config.from_values(
        {
            "output": str(tmp_path),
            "data": {"source": "digits", "image_size": 8},
            "model": {"name": "resnet8", "pretrained": "cifar10"},
        }
    )
    network = open_data_and_network(Run.new(config))
    for name, array in arrays(run.load_network("best")).items():
        np.testing.assert_array_equal(network.state_dict()[name].numpy(), array)
    normalize = Run(tmp_path / "run", config).normalize()
    assert normalize.mean == (0.4, 0.5, 0.6)
    assert normalize.std == (0.2470, 0.2435, 0.2616)
    own = config.model_copy(update={"data": config.data.model_copy(update={"mean": (0.1, 0.2, 0.3)})})
    assert Run(tmp_path / "run", own).normalize().mean == (0.1, 0.2, 0.3)


def test_missing_cifar10_weights_list_the_available(run):
    with pytest.raises(UsageError, match='no "cifar10" weights for resnet18; there are some for no network'):
        create_model("resnet18", pretrained="cifar10")
    publish_weights(run, "random pixels")
    with pytest.raises(UsageError, match=r'no "cifar10" weights for resnet18; there are some for resnet8$'):
        create_model("resnet18", pretrained="cifar10")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("path", "harm", "complaint"),
    [
        (
            cifar10_weights.weights_path,
            cut,
            r"resnet8\.safetensors: damaged \(SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}\)",
        ),
        (cifar10_weights.weights_path, Path.unlink, r"resnet8\.safetensors: damaged \(No such file"),
        (cifar10_weights.record_path, lambda path: path.write_text("{}"), r"resnet8\.json: damaged \("),
        (cifar10_weights.record_path, lambda path: path.write_text('{"mod'), r"resnet8\.json: damaged \("),
    ],
)
def test_a_damaged_copy_is_one_line(run, path, harm, complaint):
    publish_weights(run, "random pixels")
    harm(path("resnet8"))
    with pytest.raises(UsageError, match=complaint) as caught:
        create_model("resnet8", pretrained="cifar10")
    assert "\n" not in str(caught.value)
    assert "install paddle_resnet again" in str(caught.value)
