"""A lower learning rate, and the end, when validation no longer improves."""

from __future__ import annotations

import math

import pytest
from tiny_run import quickstart

from paddle_resnet.config import TrainConfig
from paddle_resnet.results import EpochRecord
from paddle_resnet.training import train
from paddle_resnet.training.callbacks.recipe import (
    EarlyStopping,
    ReduceOnPlateau,
    epochs_since_best,
    reductions,
)
from paddle_resnet.training.optim.optimizer import make_schedule

TINY = ["model.name=resnet8", "data.image_size=8", "train.batch_size=640", "device=cpu"]


def record(epoch, top1, loss):
    return EpochRecord(epoch, 1.0, 0.5, loss, top1, 0.1, 100.0, 1.0)


@pytest.mark.parametrize(
    ("patience", "expected"),
    [
        (1, [0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13]),
        (2, [0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6]),
        (3, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4]),
        (5, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_reductions_are_those_of_pytorchs_scheduler(patience, expected):
    """Its ReduceLROnPlateau(patience=patience - 1, eps=0) in version 2.13: it reduces behind its patience's end."""
    losses = [3, 2.5, 2.6, 2.5, 2.49999, 2.4, 2.45, math.nan, 2.5, 2.6, 2.7, 2.8, 1.0, 1.0, math.inf, 1.0, 1.0, 0.9]
    assert [reductions(losses[:epoch], patience) for epoch in range(1, 19)] == expected


def test_reductions_by_hand():
    assert reductions([], 1) == 0
    assert reductions([3, 2, 1], 1) == 0
    assert reductions([1, 1, 1, 1, 1], 2) == 2
    assert reductions([1, math.nan, 0.5, math.nan, math.nan], 2) == 1
    assert reductions([math.nan, math.nan], 2) == 1
    assert reductions([1, 0.99995, 0.9999], 2) == 1  # falls by less than a ten-thousandth


def test_plateau_divides_the_rate_from_the_next_step():
    config = TrainConfig(schedule="plateau", learning_rate=0.4, warmup=0.2, epochs=10)
    schedule = make_schedule(config, steps_per_epoch=1)
    records: list[EpochRecord] = []
    callback = ReduceOnPlateau(schedule, 2, lambda: records)
    rates = []
    for epoch, loss in enumerate([2.0, 1.0, 1.0, 1.1, 1.2, 0.5, 0.5], 1):
        rates.append(schedule())
        schedule.step()
        records.append(record(epoch, 0.5, loss))
        callback.on_eval_end()
    assert rates == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.04, 0.04, 0.04])

    resumed = make_schedule(config, steps_per_epoch=1)
    resumed.set_state_dict(schedule.state_dict())
    twin = ReduceOnPlateau(resumed, 2, lambda: records)
    twin.set_state_dict(callback.state_dict())
    assert resumed() == schedule() == pytest.approx(0.04)
    for each in (schedule, resumed):
        each.step()
        assert each() == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("validations", "waited"),
    [
        ([(0.5, 1.0)], 0),
        ([(0.5, 1.0), (0.5, 1.0)], 1),  # a tie is no improvement
        ([(0.5, 1.0), (0.5, 0.9)], 0),  # but by the lower loss it is
        ([(0.5, 1.0), (0.6, 1.2), (0.5, 0.1), (0.59, 0.1)], 2),
    ],
)
def test_epochs_since_best_counts_ties(validations, waited):
    assert epochs_since_best([record(epoch, *each) for epoch, each in enumerate(validations, 1)]) == waited


def test_with_monitor_epoch_the_last_epoch_is_the_best():
    worse_and_worse = [record(1, 0.9, 0.1), record(2, 0.5, 0.6), record(3, 0.1, 2.0)]
    assert max(worse_and_worse, key=lambda each: each.rank("epoch")).epoch == 3
    assert epochs_since_best(worse_and_worse, "epoch") == 0
    assert epochs_since_best(worse_and_worse, "top1") == 2


@pytest.mark.parametrize("validation", [(math.nan, 1.0), (0.5, math.nan), (0.5, -math.inf), (1.5, 1.0)])
def test_an_epoch_is_not_recorded_without_finite_metrics(validation):
    with pytest.raises(ValueError, match=r"finite number|less than or equal to 1"):
        record(1, *validation)


@pytest.mark.slow
def test_training_ends_exactly_after_the_patience(tmp_path):
    """A rate of almost nothing moves no weight; BatchNorm's statistics are validated, and settle."""
    overrides = [*TINY, "train.epochs=12", "train.learning_rate=1e-12", "train.patience=3", f"output={tmp_path}"]
    run = train(quickstart(overrides))
    history = run.history()
    best = max(history, key=lambda each: (each.validation_top1, -each.validation_loss))
    assert len(history) == min(12, best.epoch + 3)
    assert "stopped early" in run.log_path.read_text() or len(history) == 12


def test_early_stopping_asks_the_model_to_stop():
    class Model:
        stop_training = False

    records = [record(1, 0.5, 1.0)]
    callback = EarlyStopping(2, lambda: records)
    callback.set_model(Model)
    stops = []
    for top1 in (0.4, 0.6, 0.6, 0.5):
        records.append(record(len(records) + 1, top1, 1.0))
        callback.on_eval_end()
        stops.append(Model.stop_training)
    assert stops == [False, False, False, True]
