"""Wrong use of the commands, and what fails: exit codes, and one line that says what to do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from paddle_resnet import download

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "train -c quickstart --print-config"])
def test_what_only_prints_says_that_its_output_is_lost(words):
    command = [sys.executable, "-m", "paddle_resnet", *words.split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=PROJECT, text=True)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


@pytest.mark.once
def test_a_missing_package_is_an_environment_that_is_not_active(tmp_path):
    code = "import sys; sys.modules['rich'] = None; from paddle_resnet import cli; cli.main('train')"
    command = [sys.executable, "-c", code, "-c", "quickstart", "-o", f"output={tmp_path}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: rich is not installed for {sys.executable}")
    assert "activate" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_tracking_package_is_named_before_a_check(tool, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    without = lambda name, *package: None if name == "tensorboard" else find(name, *package)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = tool("train", "-c", "quickstart", "--check", "-o", "tracking=[tensorboard]", "-o", f"output={tmp_path}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: not installed: tensorboard; pip install -r " in done.stderr


def test_a_full_disk_is_named(tool, monkeypatch, tmp_path):
    def write_to_a_full_disk(*_):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("paddle_resnet.config.schema.Config.load", write_to_a_full_disk)
    done = tool("train", "-c", PROJECT / "configs/quickstart.yaml")
    assert (done.exit_code, done.stderr) == (1, f"error: {tmp_path}: No space left on device\n")


def test_too_little_memory_is_no_fault_of_the_program(tool, monkeypatch):
    def need_too_much(*_):
        raise MemoryError

    monkeypatch.setattr("paddle_resnet.config.schema.Config.load", need_too_much)
    done = tool("train", "-c", PROJECT / "configs/quickstart.yaml")
    assert done.exit_code == 1
    assert done.stderr == "error: there is not enough memory; end other programs, or ask for less at once\n"


@pytest.mark.once
@pytest.mark.posix
def test_a_current_folder_that_is_removed_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    remove = "import os; os.rmdir(os.getcwd()); from paddle_resnet import cli; cli.main('train')"
    command = [sys.executable, "-c", remove, "-c", "quickstart"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path / "gone", env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("error: the current folder has been removed: change to another one\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--size", 10**11], "--size: expected a whole number from 1 to 1,000,000, got '100000000000'"),
        (["--classes", 10**20], "--classes: expected a whole number from 1"),
        (["--channels", 0], "--channels: expected a whole number from 1"),
    ],
)
def test_sizes_of_a_network_are_bounded(tool, words, expected):
    done = tool("models", "resnet8", *words)
    assert done.exit_code == 2 and expected in done.stderr and done.stderr.count("\n") == 1


def test_numbers_of_options_are_bounded(tool):
    done = tool("predict", "nowhere", "picture.png", "--batch-size", 10**20)
    assert done.exit_code == 2 and "--batch-size: expected a whole number of at least 1" in done.stderr


@pytest.mark.parametrize("url", ["http://[::1", "http://localhost:99999", "ftp://localhost", "http://", "localhost:80"])
def test_a_wrong_address_of_a_service_is_one_line(tool, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool("benchmark", "serve", url)
    assert (done.exit_code, done.stderr) == (2, f"error: {url}: expected an address such as http://127.0.0.1:8000\n")


def folder_without_images(tmp_path: Path) -> list[str]:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    return ["data.source=image_folder", f"data.root={tmp_path}"]


def text_named_jpg(tmp_path: Path) -> list[str]:
    for kind in ("cat", "dog"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "train" / kind / f"{index}.jpg")
    (tmp_path / "train" / "cat" / "notes.jpg").write_text("a text")
    return ["data.source=image_folder", f"data.root={tmp_path}", "data.strict=true"]


def wrong_archive(tmp_path: Path) -> list[str]:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b" + bytes(1000))
    return ["data.source=cifar10", f"data.root={tmp_path}"]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda _: ["train.epoch=3"], ["train.epoch", 'did you mean "train.epochs"']),
        (lambda _: ["train.epochs=three"], ["train.epochs", "integer", "'three'"]),
        (lambda _: ["train.epochs"], ["-o train.epochs", "key=value"]),
        (lambda _: ["model.name=resnet19"], ["resnet19", "did you mean"]),
        (lambda _: ["model.pretrained=nowhere.pdparams"], ["nowhere.pdparams"]),
        (lambda _: ["device=gpu:99"], ["gpu:99"]),
        (wrong_archive, ["cifar-10-python.tar.gz", "MD5", "data.verify=false"]),
        (lambda path: [*wrong_archive(path), "data.verify=false"], ["cifar-10-python.tar.gz"]),
        (folder_without_images, ["train"]),
        (lambda _: ["train.class_weights=[1, 2]"], ["train.class_weights: 2 weights for 10 classes"]),
        (lambda _: ["augment.custom=nowhere:rain"], ["augment.custom", "nowhere:rain", "cannot be imported"]),
        (text_named_jpg, ["notes.jpg"]),
    ],
)
def test_wrong_use_of_train_is_one_line(tool, tmp_path, prepare, words):
    data = tmp_path / "data"
    data.mkdir()
    overrides = [part for override in prepare(data) for part in ("-o", override)]
    output = tmp_path / "output"
    done = tool("train", "-c", PROJECT / "configs/quickstart.yaml", *overrides, "-o", f"output={output}")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not output.exists()


def test_missing_data_without_a_connection_name_the_file(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", refuse_connection)
    config = PROJECT / "configs/resnet20_cifar10.yaml"
    done = tool("train", "-c", config, "-o", f"data.root={tmp_path}", "-o", f"output={tmp_path}/o")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"{tmp_path}/cifar-10-python.tar.gz" in line and "dataset.bj.bcebos.com" in line


FETCH = download.fetch


def refuse_connection(url, destination, md5=None, report=None):
    """Act as without a network: make the same call to a closed port of this machine."""
    from paddle_resnet.errors import UsageError

    try:
        FETCH("http://127.0.0.1:9/" + destination.name, destination, md5, report)
    except UsageError as error:
        raise UsageError(str(error).replace("http://127.0.0.1:9/" + destination.name, url)) from None


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("train", ["-c", "nowhere.yaml"], ["nowhere.yaml", "configs/"]),
        ("eval", ["nowhere"], ["nowhere", "no such run"]),
        ("export", ["nowhere"], ["nowhere", "no such run"]),
        ("predict", ["nowhere", "picture.png"], ["nowhere"]),
    ],
)
def test_a_missing_path_is_one_line(tool, name, arguments, words):
    done = tool(name, *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_debug_shows_the_traceback(tool):
    done = tool("train", "-c", "nowhere.yaml", "--debug")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr and "nowhere.yaml" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "nowhere"], "nowhere: no such run folder"),
        (["--resume", "auto"], "--resume RUN"),
        (["-c", "configs/quickstart.yaml", "--resume", "output/run"], "--resume RUN"),
        ([], "expected -c FILE"),
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
    ],
)
def test_wrong_combinations_of_train_options(tool, arguments, words):
    done = tool("train", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("preview", "-c", "own.yaml", "--output"), ("predict", "run", "pictures", "--embeddings")]
)
def test_a_file_of_another_kind_is_not_overwritten(tool, tmp_path, arguments):
    (tmp_path / "own.yaml").write_text("name: own\n", encoding="utf-8")
    done = tool(*arguments, tmp_path / "own.yaml")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "expected a name that ends in ." in done.stderr
    assert (tmp_path / "own.yaml").read_text(encoding="utf-8") == "name: own\n"


def test_an_address_without_ray_is_refused(tool):
    """Otherwise this machine would do what a cluster was named for."""
    done = tool("predict", "run", "pictures", "--address", "10.0.0.1:6379")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "--address 10.0.0.1:6379" in done.stderr and "--engine ray" in done.stderr
