"""A run's folder: who may begin a run there, what a finished run takes over, and what two processes write at once."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading

import pytest
from tiny_run import quickstart

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.training import Run, resume, run_folder, train_or_resume, train_seeds
from paddle_resnet.training.trials.lr_finder import Sweep, write_sweep

TINY = ["model.name=resnet8", "device=cpu"]
TRAINED = {"train": {"loss": 1.0, "top1": 0.5}, "validation": {"epoch": 1, "loss": 1.0, "top1": 0.5}}


def begin(config: Config) -> Run:
    run = Run.new(config)
    with run.create():
        pass
    return run


def finish(config: Config) -> Run:
    """A run that counts as trained, without an epoch."""
    run = begin(config)
    run.write_metrics(TRAINED)
    return run


def with_train(config: Config, **values: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=values)})


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_a_run_from_weights_of_another_resumes_by_the_same_command(tmp_path, seeds):
    """Its config.yaml has the mean and deviation of those weights, be they gone by then; the command has none."""
    base = begin(quickstart([*TINY, f"output={tmp_path}", "name=base", "data.mean=[0.1, 0.2, 0.3]"]))
    command = quickstart([*TINY, f"output={tmp_path}", f"model.pretrained={base.path}"])
    if seeds:
        command = with_train(command, seeds=seeds)
        with Run.new(command).create(with_data=False):
            one = command.model_copy(update={"output": command.run_folder})
            for seed in seeds:
                finish(with_train(one, seed=seed, seeds=None).model_copy(update={"name": f"seed_{seed}"}))
        command.save(command.run_folder / "config.yaml")
    else:
        finish(command)
    shutil.rmtree(base.path)
    whole = Run(command.run_folder, command)
    runs = train_seeds(whole, resume=True) if seeds else [train_or_resume(whole)]
    assert [run.config.data.mean for run in runs] == [(0.1, 0.2, 0.3)] * max(1, len(seeds))
    other = command.model_copy(update={"data": command.data.model_copy(update={"mean": (0.5, 0.2, 0.3)})})
    with pytest.raises(UsageError, match=r"data\.mean is \[0\.5, 0\.2, 0\.3\] now, but the run began with \[0"):
        train_or_resume(Run(runs[0].path, with_train(other, seeds=None)))


def test_a_mean_that_no_weights_brought_stays_fixed(tmp_path):
    run = finish(quickstart([*TINY, f"output={tmp_path}", "data.mean=[0.1, 0.2, 0.3]"]))
    with pytest.raises(UsageError, match=r"data\.mean is None now, but the run began with \[0\.1, 0\.2, 0\.3\]"):
        train_or_resume(Run(run.path, quickstart([*TINY, f"output={tmp_path}"])))


def test_a_finished_run_takes_over_what_may_change(tmp_path, caplog):
    """What was measured of the network with other views is measured anew; an exported model has its own."""
    run = finish(quickstart([*TINY, f"output={tmp_path}"]))
    measured = {name: {"top1": 0.5, "loss": 1.0} for name in ("test", "evaluation_train", "last_test", "exported_test")}
    for name, section in {**measured, "threshold": {"threshold": 0.5}}.items():
        run.update_metrics(name, section)
    logging.getLogger("paddle_resnet").propagate = True
    before = run.metrics_path.read_bytes()
    resume(run.path, ["train.threads=1"])
    assert Run.open(run.path).config.train.threads == 1
    assert run.metrics_path.read_bytes() == before
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        resume(run.path, ["evaluation.flip=true"])
    assert "test, evaluation_train, last_test, threshold, measured before, are no longer" in caplog.text
    assert Run.open(run.path).config.evaluation.flip
    assert run.metrics() == {**TRAINED, "exported_test": measured["exported_test"]}


def test_a_sweep_of_learning_rates_is_no_run(tmp_path):
    config = quickstart([*TINY, f"output={tmp_path}"])
    sweep = Sweep()
    sweep.add(0.1, 2.0)
    folder = write_sweep(sweep, config)
    with pytest.raises(
        UsageError, match=r"quickstart_lr_find: a sweep of learning rates by .*, and no run: it has sweep"
    ):
        resume(folder)
    run = begin(config)
    shutil.copy(folder / "sweep.csv", run.path)  # a user's copy
    assert Run.open(run.path).config == run.config
    shutil.copy(run.data_path, folder)  # a run that an earlier version trained there
    with pytest.raises(UsageError, match="exists and is no earlier sweep"):
        write_sweep(sweep, config)


def test_weights_of_several_seeds_are_those_of_none(tmp_path):
    config = with_train(quickstart([*TINY, f"output={tmp_path}"]), seeds=(0, 1))
    with Run.new(config).create(with_data=False):
        begin(with_train(config, seeds=None).model_copy(update={"output": config.run_folder, "name": "seed_0"}))
    with pytest.raises(UsageError, match=r"quickstart: holds a run for each of its seeds; name one: .*/seed_<number>"):
        create_model("resnet8", 10, pretrained=str(config.run_folder))
    with pytest.raises(UsageError, match=r"seed_0: a run without weights"):
        create_model("resnet8", 10, pretrained=str(config.run_folder / "seed_0"))


def test_of_two_that_begin_at_once_one_has_the_folder(tmp_path, monkeypatch):
    """The second one begins while the first has made the folder and not locked it yet."""
    first, second = (
        Run.new(quickstart([*TINY, f"output={tmp_path}", f"train.learning_rate={rate}"])) for rate in (0.1, 0.2)
    )
    with contextlib.ExitStack() as stack:
        lock = Run.lock

        def second_comes_before(run: Run) -> contextlib.AbstractContextManager[None]:
            monkeypatch.setattr(Run, "lock", lock)
            stack.enter_context(second.create())
            return lock(run)

        monkeypatch.setattr(Run, "lock", second_comes_before)
        with pytest.raises(UsageError, match="another process is at work there"), first.create():
            pass
        assert Run.open(second.path).config.train.learning_rate == 0.2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["quickstart"]


def test_one_that_has_begun_and_ended_meanwhile_keeps_its_folder(tmp_path, monkeypatch):
    first, second = (
        Run.new(quickstart([*TINY, f"output={tmp_path}", f"train.learning_rate={rate}"])) for rate in (0.1, 0.2)
    )
    lock = Run.lock

    def second_comes_before(run: Run) -> contextlib.AbstractContextManager[None]:
        monkeypatch.setattr(Run, "lock", lock)
        with second.create():
            pass
        return lock(run)

    monkeypatch.setattr(Run, "lock", second_comes_before)
    with pytest.raises(UsageError, match="another process has just begun a run there"), first.create():
        pass
    assert Run.open(second.path).config.train.learning_rate == 0.2


def test_sections_written_at_once_all_stay(tmp_path, monkeypatch):
    """The second comes between reading and writing of the first: it has to wait, also where the run is trained."""
    run = begin(quickstart([*TINY, f"output={tmp_path}"]))
    other = threading.Thread(target=lambda: Run.open(run.path).update_metrics("last_train", {"top1": 0.5}))
    write = run_folder.text_files.write_json

    def meanwhile(path: object, values: object) -> None:
        monkeypatch.setattr(run_folder.text_files, "write_json", write)
        other.start()
        other.join(0.5)
        write(path, values)

    monkeypatch.setattr(run_folder.text_files, "write_json", meanwhile)
    with run.lock():
        run.update_metrics("last_test", {"top1": 0.25})
        other.join()
    assert run.metrics() == {"last_test": {"top1": 0.25}, "last_train": {"top1": 0.5}}
