"""Two processes of `paddle.distributed.launch` train as one does: same batches, same steps, one folder.

They are launched twice: `distributed_checks` does most in one launch, as each costs seconds, and ends with a process
that is killed; `halting_train` then goes on with that run.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from distributed_checks import EPSILON, SHARES, normalised
from onednn_reference import batch_norm
from resumed_runs import differences, read_curves, steps_of_history

from paddle_resnet import distributed, onednn
from paddle_resnet.config import Config
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import Evaluation, NetworkScorer, measure_split
from paddle_resnet.training import Run, resume, train, train_seeds
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.setup import open_data_and_network
from paddle_resnet.training.train_step import scaled_learning_rate

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
TEST_IMAGES, VALIDATION_IMAGES = 899, 449
"""Numbers that 2 does not divide."""

QUICK = [
    "device=cpu",
    "train.epochs=2",
    "train.batch_size=55",
    "data.validation_fraction=0.5",
    "data.test_fraction=0.5003",
    "data.image_size=8",
    "augment.pad=1",
    "train.learning_rate=0.05",
    "train.scale_learning_rate=none",
]
LENET = ["model.name=lenet", "data.image_size=16", "train.cpu_backend=native"]
MUON = ["train.optimizer=muon", "train.clip_norm=1"]
RUNS = {
    "plain": [
        *LENET,
        "train.accumulate=2",
        "train.clip_norm=0.5",
        "train.ema=0.9",
        "augment.mixup=0.4",
        "augment.cutmix=1",
        "augment.cutout=4",
        "augment.erase=0.5",
        "train.class_weights=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
        "train.monitor=macro_f1",
    ],
    "whole": ["model.name=resnet8", "train.sync_batch_norm=true", "train.layer_decay=0.8", "train.learning_rate=0.001"],
    "early": [*LENET, "train.epochs=6", "train.patience=1", "train.learning_rate=1e-12"],
    "through": [
        "model.name=resnet8",
        "model.dropout=0.3",
        "train.ema=0.9",
        "train.checkpoint_steps=2",
        "train.histogram_steps=3",
        *MUON,
    ],
    "diverging": [*LENET, "train.learning_rate=1e30", "train.warmup=0"],
}


def config_for(name: str, output: Path, *overrides: str) -> Config:
    changes = [*QUICK, *RUNS[name], f"name={name}", f"output={output}", *overrides]
    return Config.load(PROJECT / "configs" / "quickstart.yaml", changes)


def launch(log: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Start a program in two processes of one thread each."""
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(log)]
    return subprocess.run(
        [*launcher, *command],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two processes have done `distributed_checks`."""
    folder = tmp_path_factory.mktemp("together")
    for name in RUNS:
        config_for(name, folder).save(folder / f"{name}.yaml")
    done = launch(folder / "log", "tests/helpers/distributed_checks.py", str(folder))
    assert (folder / "seen.0.json").is_file() and (folder / "seen.1.json").is_file(), done.stdout + done.stderr
    assert done.returncode != 0
    return folder


@pytest.fixture(scope="module")
def seen(folder) -> list[dict]:
    """What each process saw."""
    return [json.loads((folder / f"seen.{number}.json").read_text()) for number in range(2)]


def test_sums_maxima_means_and_values_of_the_first(seen):
    for each in seen:
        said = each["messages"]
        assert said["total"] == [3.0, 1.0]
        assert said["largest"] == -2
        assert said["average"] == [[2.0] * 6, [5.0] * 4]
        assert said["first"] == [7.0] * 3
        assert said["means"] == [4.0, 0.75]
        assert said["different"].startswith("b: not the same in all 2 processes")
        assert each["ahead"]


def test_another_host_gets_a_temporary_copy(seen):
    first, second = (each["checkpoints"] for each in seen)
    assert len(first[0]) == 2 and first[1:] == [True, True]
    assert second == [first[0], False, False]


def test_signals_do_not_end_the_waiting_for_others(seen):
    assert seen[1]["signals"] > 0


def normalised_by(folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    return [
        {key.partition(".")[2]: value for key, value in np.load(file).items() if key.startswith(f"{name}.")}
        for file in (folder / f"normalisations.{number}.npz" for number in range(2))
    ]


@pytest.mark.parametrize("name", ["native", "onednn", "onednn_relu"])
def test_sync_batch_norm_equals_batch_norm_of_whole_batch(folder, name):
    results = normalised_by(folder, name)
    if name != "native" and onednn.unavailable_reason("cpu") is not None:
        pytest.skip("oneDNN is not to be had here")
    images, weight, bias, gradient = (each.astype(np.float64) for each in normalised())
    images, gradient = images.transpose(0, 2, 3, 1), gradient.transpose(0, 2, 3, 1)
    output, gradients = batch_norm(images, weight, bias, None, EPSILON, name.endswith("relu"), lambda shape: gradient)
    for own, result in zip(SHARES, results, strict=True):
        np.testing.assert_allclose(result["output"].transpose(0, 2, 3, 1), output[own], atol=2e-5)
        np.testing.assert_allclose(result["x_gradient"].transpose(0, 2, 3, 1), gradients[0][own], atol=2e-4, rtol=1e-5)
        np.testing.assert_allclose(result["mean"], 0.1 * images.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(result["variance"], 0.9 + 0.1 * images.var((0, 1, 2)), rtol=1e-6)
    for place, part in ((1, "weight_gradient"), (2, "bias_gradient")):
        np.testing.assert_allclose(sum(result[part] for result in results), gradients[place], rtol=1e-4, atol=1e-4)


def test_sync_batch_norm_in_bfloat16(folder):
    results = normalised_by(folder, "bfloat16")
    if not results[0]:
        pytest.skip("this processor has no bfloat16")
    images, weight, bias, gradient = (each.astype(np.float64) for each in normalised())
    images, gradient = (
        paddle.to_tensor(each).astype("bfloat16").astype("float64").numpy() for each in (images, gradient)
    )
    images, gradient = images.transpose(0, 2, 3, 1), gradient.transpose(0, 2, 3, 1)
    output, gradients = batch_norm(images, weight, bias, None, EPSILON, False, lambda shape: gradient)
    for own, result in zip(SHARES, results, strict=True):
        np.testing.assert_allclose(result["output"].transpose(0, 2, 3, 1), output[own], atol=0.02, rtol=0.01)
        largest = np.abs(gradients[0]).max((0, 1, 2))
        errors = np.abs(result["x_gradient"].transpose(0, 2, 3, 1) - gradients[0][own])
        assert (errors / largest).max() < 0.02


@pytest.mark.parametrize("name", ["plain", "whole"])
def test_loss_equals_that_of_one_process(folder, tmp_path, name):
    alone = train(config_for(name, tmp_path, "train.batch_size=110"))
    together = Run.open(folder / name)
    curves, expected = (read_curves(run.vdl_path / "train")["step/loss"] for run in (together, alone))
    assert [step for step, _ in curves] == [step for step, _ in expected]
    np.testing.assert_allclose([loss for _, loss in curves], [loss for _, loss in expected], rtol=1e-5)
    for epoch, reference in zip(steps_of_history(together), steps_of_history(alone), strict=True):
        assert epoch["train_top1"] == reference["train_top1"]
        assert epoch["validation_top1"] == reference["validation_top1"]
        np.testing.assert_allclose(list(epoch.values()), list(reference.values()), rtol=1e-5)


def measured_alone(run: Run, split: str) -> Evaluation:
    return measure_split(run, NetworkScorer(run.load_network(), run.normalize()), split)


def test_each_validation_image_is_counted_once(folder):
    run = Run.open(folder / "whole")
    evaluation = measured_alone(run, "validation")
    assert evaluation.images == VALIDATION_IMAGES
    assert run.metrics()["validation"]["top1"] == evaluation.top1
    assert run.metrics()["validation"]["loss"] == pytest.approx(evaluation.loss, rel=1e-6)


def test_a_signal_to_one_stops_all_and_resume_is_exact(folder, seen):
    assert [each["ends"]["stopped"] for each in seen] == [["terminated", 143]] * 2
    assert differences(folder / "through", folder / "stopped") == []


def test_histograms_are_of_the_step_of_all(folder):
    curves = read_curves(folder / "through" / "vdl" / "train")
    assert [step for step, _ in curves["gradients/conv1.weight"]] == [2, 5]


def test_all_stop_early_together(folder):
    assert len(Run.open(folder / "early").history()) == 2


def test_a_loss_that_is_not_finite_stops_all(seen):
    first, second = (each["ends"]["diverging"] for each in seen)
    assert first == second
    assert "107 more" in first


def test_only_the_main_process_logs_and_writes(folder):
    assert "epoch 2/2" in (folder / "through" / "train.log").read_text()
    assert "epoch" not in (folder / "log" / "workerlog.1").read_text()
    assert Run.open(folder / "through").metrics()["environment"]["processes"] == 2


def test_resume_needs_the_same_number_of_processes(folder):
    with pytest.raises(UsageError, match="there are 1 processes now, but the run was trained in 2 processes"):
        resume(folder / "died")


@pytest.fixture(scope="module")
def resumed(folder) -> subprocess.CompletedProcess[str]:
    """The tool, going on with the run of which a process was killed."""
    assert not Run.open(folder / "died").is_trained
    return launch(folder / "log_of_tool", "tests/helpers/halting_train.py", "--resume", str(folder / "died"))


def test_a_dead_process_ends_the_others_in_one_line(folder):
    assert (folder / "failure.0").read_text().endswith("workerlog.<number>")


def test_train_resumes_and_measures_each_image_once(folder, resumed):
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"; {TEST_IMAGES} images, mean loss" in resumed.stdout
    assert differences(folder / "through", folder / "died") == []
    run = Run.open(folder / "died")
    together = run.metrics()["test"]
    evaluation = measured_alone(run, "test")
    assert (together["images"], together["top1"]) == (TEST_IMAGES, evaluation.top1)
    assert together["loss"] == pytest.approx(evaluation.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.accumulate=5"], "train.batch_size 55 x train.accumulate 5 x 2 processes are 550 images a step, but"),
        (["data.validation_fraction=0.001"], "1 validation images are too few for 2 processes"),
    ],
)
def test_too_few_images_for_all(tmp_path, monkeypatch, overrides, words):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UsageError, match=words):
        open_data_and_network(Run.new(config_for("early", tmp_path, *overrides)))


def test_each_process_drops_other_features(monkeypatch):
    def drawn():
        seeds = StepSeeds(3)
        seeds.set_params({"steps": 4})
        seeds.on_epoch_begin(1)
        seeds.on_train_batch_begin(2)
        return paddle.rand([4]).numpy().tolist()

    alone = drawn()
    of_each = []
    for number in range(3):
        monkeypatch.setattr(distributed, "joined", lambda number=number: distributed.Ranks(number))
        of_each.append(drawn())
    assert of_each[0] == alone
    assert of_each[0] != of_each[1] != of_each[2] != of_each[0]


def test_the_learning_rate_grows_with_the_batch():
    assert [scaled_learning_rate(0.1, rule, 4) for rule in ("linear", "square_root", "none")] == [0.4, 0.2, 0.1]


@pytest.fixture
def one_of_two(monkeypatch):
    """As a process that was launched with another one, and has not joined it."""
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")


@pytest.mark.parametrize("refused", [{}, {"TCP_MAXSEG": -1, "SO_OF_ANOTHER_SYSTEM": 1}], ids=["known", "refused"])
def test_a_barrier_ends_with_a_lost_process(monkeypatch, refused):
    """Also where the kernel takes none of the options for probes."""
    monkeypatch.setattr(distributed, "KEEP_ALIVE", refused or distributed.KEEP_ALIVE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = distributed.with_probes(socket.create_connection(server.getsockname()))
        own = distributed.with_probes(server.accept()[0])
    monkeypatch.setattr(distributed, "_joined", distributed.Ranks(0, 2))
    monkeypatch.setattr(distributed, "_connections", [own])
    other.sendall(b"\n")
    distributed.barrier()
    assert other.recv(2) == b"\n"
    other.close()
    with pytest.raises(RunFailure, match="another one ended"):
        distributed.barrier()


def test_several_seeds_are_trained_by_one_process(tmp_path, one_of_two):
    config = config_for("plain", tmp_path, "train.seeds=[0, 1]")
    with pytest.raises(UsageError, match=r"train\.seeds \[0, 1\]: several processes train one run"):
        train_seeds(Run(config.run_folder, config))


def test_other_commands_refuse_several_processes(one_of_two):
    done = subprocess.run(
        [sys.executable, "tools/eval.py", "output/none"], cwd=PROJECT, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "one of 2 processes of paddle.distributed.launch: start this command alone" in done.stderr
