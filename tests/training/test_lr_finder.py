"""The learning-rate finder: what it proposes, what it writes, and that it leaves everything else as it was."""

from __future__ import annotations

import csv
import math
import random

import numpy as np
import paddle
import pytest
from tiny_run import QUICKSTART, quickstart
from visualdl import LogReader

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.training.trials import lr_finder
from paddle_resnet.training.trials.lr_finder import Sweep, find_learning_rate, sweep_folder, write_sweep

pytestmark = pytest.mark.slow

TINY = ["model.name=resnet8", "data.image_size=8", "train.batch_size=100", "device=cpu"]


def config_for(output, *overrides):
    return quickstart([*TINY, f"output={output}", *overrides])


def swept(losses, rates):
    sweep = Sweep()
    for rate, loss in zip(rates, losses, strict=True):
        sweep.add(rate, loss)
        if sweep.diverged:
            break
    return sweep


def test_rates_grow_by_the_same_factor(tmp_path):
    config = config_for(tmp_path)
    assert find_learning_rate(config, lowest=1e-6, highest=1e-2, steps=5).rates == pytest.approx(
        [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    )
    assert find_learning_rate(config, lowest=0.1, steps=1).rates == [0.1]


def test_smoothed_loss_is_a_weighted_mean():
    losses = [3.0, 1.0, 2.0, 5.0]
    sweep = swept(losses, [1, 2, 3, 4])
    for step in range(1, 5):
        weights = 0.9 ** np.arange(step)[::-1]
        assert sweep.smoothed[step - 1] == pytest.approx(np.average(losses[:step], weights=weights))


def test_a_tenth_of_the_best_rate_is_proposed():
    """A parabola over the rate's logarithm with its least at 0.1; the mean of the last 10 steps comes 9 steps later."""
    rates = np.geomspace(1e-5, 10.0, 601)
    losses = [1 + math.log10(rate / 0.1) ** 2 / 4 for rate in rates]
    sweep = swept(losses, rates)
    assert not sweep.diverged
    assert sweep.proposed == pytest.approx(0.01 * 10 ** (9 / 100), rel=0.02)


@pytest.mark.parametrize("end", [math.nan, math.inf, 1e6])
def test_a_diverged_sweep_still_proposes(end):
    losses = [*np.linspace(3, 1, 50), end, 0.0, 0.0]
    rates = np.geomspace(1e-5, 10.0, 53)
    sweep = swept(losses, rates)
    assert len(sweep.losses) == 51
    assert sweep.proposed == pytest.approx(rates[49] / 10)


def test_a_sweep_without_finite_loss_fails():
    sweep = swept([math.nan, 1.0], [1e-5, 1e-4])
    assert len(sweep.losses) == 1
    with pytest.raises(RunFailure, match=r"nan already at learning rate 1e-05"):
        _ = sweep.proposed


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_sweep_learns(tmp_path, optimizer):
    sweep = find_learning_rate(config_for(tmp_path, f"train.optimizer={optimizer}"), steps=40, highest=1.0)
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed) <= 40
    if len(sweep.rates) == 40:
        assert sweep.rates[-1] == pytest.approx(1.0)
    assert min(sweep.smoothed) < sweep.smoothed[0] - (0.2 if optimizer != "lars" else 0.0)
    assert list(tmp_path.iterdir()) == []


def test_sweeps_repeat_and_restore_random_states(tmp_path):
    config = config_for(tmp_path, "train.accumulate=2", "augment.mixup=0.2", "train.freeze_epochs=1")

    def draws():
        return random.random(), np.random.random(), paddle.rand([1]).item()

    random.seed(1), np.random.seed(1), paddle.seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), paddle.seed(1)
    first = find_learning_rate(config, steps=6)
    assert draws() == expected
    assert find_learning_rate(config, steps=6).losses == first.losses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "0"], "--from: expected a number above 0, got '0'"),
        (["--to", "nan"], "--to: expected a number above 0, got 'nan'"),
        (["--from", "1", "--to", "0.1"], "--from 1 must be below --to 0.1"),
        (["--steps", "1.5"], "--steps: expected a whole number"),
        (["-o", "train.patience=0"], "train.patience"),
    ],
)
def test_wrong_arguments_are_one_line(tool, tmp_path, arguments, words):
    done = tool("lr_find", "-c", QUICKSTART, "-o", f"output={tmp_path}", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_lr_find_writes_plot_table_and_curve(tool, tmp_path):
    run = tmp_path / "quickstart"
    run.mkdir()
    (run / "config.yaml").write_text("untouched")
    overrides = [argument for override in (*TINY, f"output={tmp_path}") for argument in ("-o", override)]
    done = tool("lr_find", "-c", QUICKSTART, *overrides, "--steps", 20, "--to", 1)
    assert done.exit_code == 0
    folder = tmp_path / "quickstart_lr_find"
    assert {each.name for each in folder.iterdir()} == {"config.yaml", "sweep.csv", "sweep.png", "vdl"}
    assert {each.name for each in tmp_path.iterdir()} == {"quickstart", "quickstart_lr_find"}
    assert [each.read_text() for each in run.iterdir()] == ["untouched"]
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    smoothed = [float(row["smoothed_loss"]) for row in rows]
    proposed = float(rows[int(np.argmin(smoothed))]["learning_rate"]) / 10
    assert f"proposed learning rate: {proposed:.2g} " in done.stdout
    (log,) = (folder / "vdl").iterdir()
    points = LogReader(file_path=str(log)).get_data("scalar", "sweep/learning rate")
    np.testing.assert_allclose(
        [point.value for point in points], [float(row["learning_rate"]) for row in rows], rtol=1e-5
    )


def test_where_nothing_can_be_written_is_told_before_the_sweep(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_finder, "find_learning_rate", lambda *_, **__: pytest.fail("swept"))
    (tmp_path / "file").touch()
    done = tool("lr_find", "-c", QUICKSTART, "-o", f"output={tmp_path / 'file'}")
    assert done.exit_code == 2 and "file: exists and is no folder" in done.stderr


def test_only_an_earlier_sweep_is_replaced(tmp_path):
    config = config_for(tmp_path)
    for least in (1.0, 0.5):
        write_sweep(swept([2.0, least, math.nan], [0.1, 0.2, 0.3]), config)
    assert ",0.5," in (tmp_path / "quickstart_lr_find" / "sweep.csv").read_text()
    (tmp_path / "mine_lr_find").mkdir()
    with pytest.raises(UsageError, match=r"mine_lr_find: exists and is no earlier sweep"):
        sweep_folder(config_for(tmp_path, "name=mine"))
