"""`model.pretrained: imagenet` from its first download to training offline, against a server on this machine."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from loopback import FileServer, serving

from paddle_resnet.config import Config
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model, read_state_dict
from paddle_resnet.training import Run
from paddle_resnet.training.setup import open_data_and_network
from paddle_resnet.zoo.imagenet_weights import SOURCES, OfficialWeights, official_weights

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
QUICKSTART = PROJECT / "configs" / "quickstart.yaml"
OVERRIDES = [
    *("model.name=resnet8", "model.pretrained=imagenet", "device=cpu", "data.image_size=8", "augment.pad=1"),
    *("train.epochs=1", "train.batch_size=200"),
]
FILE = "resnet8.pdparams"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve "official" weights of resnet8 for 1,000 classes, to a home of the test's own."""
    paddle.seed(7)
    path = tmp_path / "served" / FILE
    path.parent.mkdir()
    paddle.save(create_model("resnet8", 1000).state_dict(), str(path))
    content = path.read_bytes()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(content, FILE) as server:
        monkeypatch.setitem(
            SOURCES["imagenet"], "resnet8", OfficialWeights(server.url, hashlib.md5(content).hexdigest())
        )
        yield server


@pytest.fixture
def train(tool, tmp_path, monkeypatch):
    """Train the quickstart from those weights, without plots."""
    monkeypatch.setattr("paddle_resnet.evaluation.run_plots.draw_split_plots", lambda *arguments: {})
    overrides = [part for override in [*OVERRIDES, f"output={tmp_path}"] for part in ("-o", override)]
    return partial(tool, "train", "-c", QUICKSTART, *overrides)


def cache(tmp_path: Path) -> list[str]:
    folder = tmp_path / "home/.cache/paddle/hapi/weights"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def assert_begins_with(server: FileServer, tmp_path: Path) -> None:
    """A run of the config starts with the served weights and a new head for the ten digits."""
    network = open_data_and_network(Run.new(Config.load(QUICKSTART, OVERRIDES)))
    served = read_state_dict(tmp_path / "served" / FILE)
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            np.testing.assert_array_equal(tensor.numpy(), served[name])
    assert network.fc.weight.shape == [64, 10]


def test_the_main_config_asks_for_official_weights():
    model = Config.load(PROJECT / "configs" / "resnet18_cifar10.yaml").model
    assert (model.name, model.pretrained) == ("resnet18", "imagenet")
    assert model.name in SOURCES["imagenet"]


@pytest.mark.once
def test_cut_download_resumes_and_serves_offline(server, train, tmp_path):
    half = len(server.content) // 2
    server.break_after, server.requests_answered = half, 1
    done = train()
    assert done.exit_code == 2
    assert server.url in done.stderr
    assert str(tmp_path / "home/.cache/paddle/hapi/weights" / FILE) in done.stderr  # where to put it by hand
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert cache(tmp_path) == [f"{FILE}.part"]
    assert not (tmp_path / "quickstart").exists()  # nothing was begun

    server.break_after, server.requests_answered = 0, 1000
    assert_begins_with(server, tmp_path)
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half}-"]
    assert cache(tmp_path) == [FILE]

    server.requests_answered = 0
    asked = len(server.ranges)
    assert_begins_with(server, tmp_path)
    assert train().exit_code == 0
    assert len(server.ranges) == asked
    run = Run.open(tmp_path / "quickstart")
    assert run.normalize().mean == (0.485, 0.456, 0.406)  # ImageNet's, not the digits'
    assert 0 < run.metrics()["test"]["top1"] <= 1


def test_download_with_another_md5_is_not_kept(server, train, tmp_path):
    expected = hashlib.md5(server.content).hexdigest()
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])
    found = hashlib.md5(server.content).hexdigest()
    done = train()
    assert done.exit_code == 2
    assert f"MD5 is {found}, expected {expected}" in done.stderr
    assert cache(tmp_path) == []
    assert not (tmp_path / "quickstart").exists()


def test_torchvision_file_is_checked_by_the_hash_in_its_name(server, tmp_path, monkeypatch):
    digest = hashlib.sha256(server.content).hexdigest()
    files = SOURCES["imagenet:torchvision"]
    assert files["resnet50"].url == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert files["resnet50"].sha256 == "11ad3fa6"
    monkeypatch.setitem(files, "resnet8", OfficialWeights(server.url, sha256=digest[:8]))
    assert official_weights("imagenet:torchvision", "resnet8").read_bytes() == server.content
    monkeypatch.setitem(files, "resnet8", OfficialWeights(server.url, sha256="0" * 8))
    with pytest.raises(UsageError, match=f"SHA-256 is {digest}, expected one that begins with 00000000; delete it"):
        official_weights("imagenet:torchvision", "resnet8")
    (tmp_path / "home/.cache/paddle_resnet/weights" / FILE).unlink()
    with pytest.raises(UsageError, match=f"the download's SHA-256 is {digest}, expected one that begins with 0"):
        official_weights("imagenet:torchvision", "resnet8")


def test_file_without_published_checksum_stays_the_first(server, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "paddle_resnet")
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setitem(SOURCES["imagenet:paddleclas"], "resnet8", OfficialWeights(server.url))
    for _ in range(2):
        path = official_weights("imagenet:paddleclas", "resnet8")
    assert caplog.text.count(f"no checksum is published; its SHA-256 {digest} is kept in {FILE}.sha256") == 1
    assert (path.parent / f"{FILE}.sha256").read_text() == f"{digest}  {FILE}\n"
    path.write_bytes(server.content[:-1])
    with pytest.raises(UsageError, match=f"at first it was {digest}.*delete it to download it again"):
        official_weights("imagenet:paddleclas", "resnet8")


@pytest.mark.once
def test_unknown_source_or_network_lists_the_known():
    with pytest.raises(UsageError, match=r'expected imagenet, imagenet:paddleclas, .*did you mean "imagenet:ssld"'):
        create_model("resnet50_vd", pretrained="imagenet:sld")
    with pytest.raises(UsageError, match=r"no official .imagenet:ssld.*for resnet34_vd, .*; resnet50 has imagenet, "):
        create_model("resnet50", pretrained="imagenet:ssld")


@pytest.mark.parametrize(
    ("weights", "size", "resize"),
    # torchvision's ImageClassification presets: resize_size 256 in V1, 232 in V2, at crop_size 224.
    [("imagenet:torchvision", 224, 232), ("imagenet:torchvision", 112, 116), ("imagenet", 224, 256)],
)
def test_images_are_resized_as_for_the_weights(weights, size, resize):
    overrides = [f"model.pretrained={weights}", f"data.image_size={size}", "data.source=image_folder", "data.root=x"]
    config = Config.load(QUICKSTART, [*overrides, "model.name=resnet50", "augment.pad=0"])
    assert resize_size(Run(tmp := Path("run"), config).config.data) == resize
    chosen = config.model_copy(update={"data": config.data.model_copy(update={"resize": 300})})
    assert Run(tmp, chosen).config.data.resize == 300
    assert Run(tmp, config).normalize().mean == (0.485, 0.456, 0.406)
