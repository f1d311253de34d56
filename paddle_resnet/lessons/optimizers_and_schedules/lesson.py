"""Optimizers by hand and in Paddle, learning rates that diverge, and schedules, measured on one small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import Any

import numpy as np
import paddle
from matplotlib.figure import Figure

from paddle_resnet import runtime
from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.console import logger
from paddle_resnet.data import Split
from paddle_resnet.errors import RunFailure
from paddle_resnet.lessons.common.runs import image_settings, lesson_config
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend, take_batches, train_while_finite
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import create_model
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, RED, label_log_axis, make_figure
from paddle_resnet.training import SeedStatistics
from paddle_resnet.training.optim.optimizer import make_optimizer, make_schedule

NETWORK = "resnet8"
SEEDS = (0, 1, 2)
OPTIMIZERS: dict[str, tuple[float, ...]] = {  # learning rates of each optimizer
    "sgd": (0.01, 0.1, 1.0),
    "adamw": (0.001, 0.01, 0.1),
    "muon": (0.01, 0.1, 1.0),
}

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"schedule": "step", "milestones": [], "warmup": 0.0},
    "step": {"schedule": "step", "milestones": [0.5, 0.75], "warmup": 0.0},
    "cosine": {"schedule": "cosine", "warmup": 0.0},
    "one_cycle": {"schedule": "one_cycle", "warmup": 0.3},
}
SCHEDULE_RATE = 0.1
DRAWN_STEPS = 1000


def teach(page: Page, effort: Effort) -> None:
    """Compute updates by hand, descend a valley, then train with each optimizer and each schedule."""
    _by_hand(page)
    _valley(page)
    train = {"epochs": 2, "batch_size": 128} if effort.full else {"epochs": 5, "batch_size": 64}
    settings = {**image_settings(effort, size=8, pad=1), "train": {**train, "weight_decay": 5e-4}}
    config = lesson_config(effort, settings, NETWORK)
    _draw_schedules(page, config)
    data = LessonData(config)
    _compare_optimizers(page, data)
    _compare_schedules(page, data)


def _by_hand(page: Page) -> None:
    page.section("by_hand", steps=STEPS)
    differences = {name: difference_from_paddle(name) for name in UPDATES}
    page.table("updates", [(name, f"`{UPDATES[name][0]}`", f"{each:.0e}") for name, each in differences.items()])
    page.say("weight_decay")
    page.record(**{f"difference_{name}": each for name, each in differences.items()})


def _valley(page: Page) -> None:
    low, high = CURVATURES
    limit = 2 / high
    page.section("valley", low=low, high=high, limit=limit)
    below, above = (valley(descend(factor * limit, steps=200)[-1]) for factor in (0.99, 1.01))
    page.values(f"rate 0.99 * 2/{high:g}: loss after 200 steps {below:.1e}", f"rate 1.01 * 2/{high:g}: {above:.1e}")
    settings = best_settings()
    paths = {name: descend(rate, momentum) for name, (rate, momentum, _) in settings.items()}
    page.figure("paths", lambda: draw_paths(paths), steps=STEPS)
    rows = []
    for name, (rate, momentum, factor) in settings.items():
        distances = np.linalg.norm(descend(rate, momentum, steps=400), axis=1)
        measured = float((distances[400] / distances[200]) ** (1 / 200))  # late in the descent
        rows.append((page.text(name), *(f"{each:.4f}" for each in (rate, momentum, factor, measured))))
        page.record(**{f"{name}_factor": factor, f"{name}_measured": measured})
    page.table("factors", rows)
    page.say("condition", ratio=high / low, root=np.sqrt(high / low))
    page.record(loss_below_limit=below, loss_above_limit=above)


def _draw_schedules(page: Page, config: Config) -> None:
    rates = {name: _rates(config.train, settings) for name, settings in SCHEDULES.items()}
    page.section("schedules")
    page.figure("factors_of_rate", lambda: draw_schedules(rates))
    page.record(**{f"{name}_rates": [each[0], each[DRAWN_STEPS // 2], each[-1]] for name, each in rates.items()})


def _rates(train: TrainConfig, settings: Mapping[str, Any]) -> list[float]:
    """Return the schedule's factor at each of `DRAWN_STEPS` steps."""
    schedule = make_schedule(train.model_copy(update={**settings, "learning_rate": 1.0, "epochs": 1}), DRAWN_STEPS)
    rates = []
    for _ in range(DRAWN_STEPS):
        rates.append(schedule.get_lr())
        schedule.step()
    return rates


def _compare_optimizers(page: Page, data: LessonData) -> None:
    page.section("recipe", config=data.config, network=NETWORK, seeds=len(SEEDS))
    validation: dict[str, dict[float, SeedStatistics]] = {}
    tests, best = {}, {}
    for name, rates in OPTIMIZERS.items():
        top1 = {rate: _train_seeds(data, {"optimizer": name, "learning_rate": rate}) for rate in rates}
        validation[name] = {rate: of_validation for rate, (of_validation, _) in top1.items()}
        best[name] = max(rates, key=lambda rate: (top1[rate][0].mean, rate))
        tests[name] = top1[best[name]][1]
        logger.info("%s: trained at %d learning rates", name, len(rates))
    page.table(
        "by_rate",
        [
            (name, f"{rate:g}", each.percent() + (" *" if rate == best[name] else ""))
            for name, by_rate in validation.items()
            for rate, each in by_rate.items()
        ],
    )
    page.figure("optimizers", lambda: draw_optimizers(validation))
    page.table("test_top1", [(name, f"{best[name]:g}", each.percent()) for name, each in tests.items()])
    page.say("own_scale", seeds=len(SEEDS), one_image=100 / len(data.splits.test))
    page.record(best_rates=list(best.values()), **{f"{name}_test_top1": each.values for name, each in tests.items()})


def _compare_schedules(page: Page, data: LessonData) -> None:
    page.section("schedule_recipe", rate=SCHEDULE_RATE, seeds=len(SEEDS))
    rate = {"optimizer": "sgd", "learning_rate": SCHEDULE_RATE}
    tests = {name: _train_seeds(data, {**rate, **each})[1] for name, each in SCHEDULES.items()}
    constant = tests["constant"].values
    rows = []
    for name, each in tests.items():
        gain = SeedStatistics.of(one - other for one, other in zip(each.values, constant, strict=True))
        rows.append((name, each.percent(), "" if name == "constant" else gain.points()))
        page.record(**{f"{name}_schedule_test_top1": each.values})
    page.table("schedule_results", rows)
    page.say("schedule_verdict")


def _train_seeds(data: LessonData, settings: Mapping[str, Any]) -> list[SeedStatistics]:
    """Train once a seed with `settings` of the optimizer; return the top-1 on the validation and the test split."""
    return list(map(SeedStatistics.of, zip(*(_train(data, settings, seed) for seed in SEEDS), strict=True)))


def _train(data: LessonData, settings: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """Train one network; return its top-1 on the validation and the test split. One that diverged guesses one class."""
    config, splits = data.config, data.splits
    train = config.train.model_copy(update={**settings, "seed": seed})
    runtime.seed_everything(seed)
    network = create_model(config.model.name, len(splits.classes))
    apply_cpu_backend(network, train)
    loader = data.loader(train.batch_size, seed, augment=config.augment)
    steps = train.epochs * len(loader)
    losses = train_while_finite(network, make_optimizer(network, train, len(loader)), take_batches(loader, steps))

    def top1(split: Split) -> float:
        if len(losses) == steps:
            with suppress(RunFailure):  # the last step may have made its weights infinite
                return data.measure(network, split).top1
        return float(np.bincount(split.labels).max() / len(split))

    return top1(splits.validation), top1(splits.test)


RATE, MOMENTUM, DECAY = 0.02, 0.9, 0.01
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
STEPS = 20
CURVATURES = np.array([1.0, 25.0])  # of the valley ``L(w) = (1 * w1^2 + 25 * w2^2) / 2``
START = np.array([-1.0, 0.4])


def valley(w: np.ndarray) -> np.ndarray:
    """Return the loss at `w` ``[..., 2]``."""
    return 0.5 * (CURVATURES * w**2).sum(-1)


def sgd(w: np.ndarray) -> Iterator[np.ndarray]:
    """Descend the valley from `w` by ``w - rate * g``; yield w after each step, as the other two do."""
    while True:
        w = w - RATE * CURVATURES * w
        yield w


def nesterov(w: np.ndarray) -> Iterator[np.ndarray]:
    """Descend by ``w - rate * (g + momentum * v)`` with ``v = momentum * v + g``, the form of Sutskever et al. 2013."""
    velocity = np.zeros(2)
    while True:
        g = CURVATURES * w
        velocity = MOMENTUM * velocity + g
        w = w - RATE * (g + MOMENTUM * velocity)
        yield w


def adamw(w: np.ndarray) -> Iterator[np.ndarray]:
    """Descend as Loshchilov and Hutter 2019, algorithm 2: Adam's step, and weight decay beside it."""
    mean, square = np.zeros(2), np.zeros(2)
    for step in count(1):
        g = CURVATURES * w
        mean = BETA1 * mean + (1 - BETA1) * g
        square = BETA2 * square + (1 - BETA2) * g**2
        unbiased, spread = mean / (1 - BETA1**step), np.sqrt(square / (1 - BETA2**step))
        w = w - RATE * DECAY * w - RATE * unbiased / (spread + EPSILON)
        yield w


UPDATES: dict[
    str, tuple[str, Callable[[np.ndarray], Iterator[np.ndarray]], Callable[[paddle.Tensor], paddle.optimizer.Optimizer]]
] = {  # by name: the formula, the descent in numpy, and Paddle's optimizer for one parameter
    "SGD": ("w -= rate * g", sgd, lambda w: paddle.optimizer.SGD(RATE, parameters=[w])),
    "Nesterov": (
        "v = m * v + g;  w -= rate * (g + m * v)",
        nesterov,
        lambda w: paddle.optimizer.Momentum(RATE, MOMENTUM, parameters=[w], use_nesterov=True),
    ),
    "AdamW": (
        "w -= rate * decay * w + rate * mean(g) / sqrt(mean(g^2))",
        adamw,
        lambda w: paddle.optimizer.AdamW(RATE, BETA1, BETA2, EPSILON, parameters=[w], weight_decay=DECAY),
    ),
}


def difference_from_paddle(name: str) -> float:
    """Take `STEPS` steps down the valley in numpy and in Paddle; return the largest difference of the paths."""
    _, path, make_optimizer = UPDATES[name]
    parameter = paddle.create_parameter([2], "float64", default_initializer=paddle.nn.initializer.Assign(START))
    optimizer = make_optimizer(parameter)
    curvatures, differences = paddle.to_tensor(CURVATURES), []
    for w in islice(path(START), STEPS):
        (0.5 * (curvatures * parameter**2).sum()).backward()
        optimizer.step()
        optimizer.clear_grad()
        differences.append(np.abs(parameter.numpy() - w).max())
    return float(max(differences))


def descend(rate: float, momentum: float = 0.0, steps: int = STEPS) -> np.ndarray:
    """Return the path of gradient descent with heavy-ball momentum (Polyak 1964) from `START`, ``[steps + 1, 2]``."""
    path, velocity = [START], np.zeros(2)
    for _ in range(steps):
        velocity = momentum * velocity + CURVATURES * path[-1]
        path.append(path[-1] - rate * velocity)
    return np.array(path)


def best_settings() -> dict[str, tuple[float, float, float]]:
    """Return each method's rate, momentum and factor of a step's error, by the theory of quadratics (Polyak 1964).

    With the curvatures m and M: gradient descent at ``2 / (m + M)`` has ``(M - m) / (M + m)``; with momentum the
    factor is ``(sqrt(M) - sqrt(m)) / (sqrt(M) + sqrt(m))``, at its square as momentum.
    """
    low, high = CURVATURES
    roots = np.sqrt(high) + np.sqrt(low)
    factor = (np.sqrt(high) - np.sqrt(low)) / roots
    return {
        "gradient_descent": (2 / (low + high), 0.0, (high - low) / (high + low)),
        "with_momentum": ((2 / roots) ** 2, factor**2, factor),
    }


COLOURS = (BLUE, ORANGE, GREEN, RED)
MARKERS = ("o", "s", "^", "D")


def draw_paths(paths: Mapping[str, np.ndarray]) -> Figure:
    """Draw the paths over the valley's contours, and the loss by step."""
    figure, (plane, losses) = make_figure(10, 3.9, 1, 2)
    x, y = np.meshgrid(np.linspace(-1.1, 0.6, 200), np.linspace(-1.2, 1.2, 200))
    plane.contour(x, y, valley(np.dstack([x, y])), levels=np.geomspace(0.01, 20, 12), colors=GREY, linewidths=0.7)
    for (name, path), colour, marker in zip(paths.items(), COLOURS, MARKERS, strict=False):
        plane.plot(path[:, 0], path[:, 1], color=colour, marker=marker, markersize=4, linewidth=1.4)
        losses.plot(valley(path), color=colour, marker=marker, markersize=4, label=name.replace("_", " "))
    plane.grid(False)
    plane.set(xlabel="w1", ylabel="w2", xlim=(-1.1, 0.6), ylim=(-1.2, 1.2))
    losses.set(xlabel="step", ylabel="loss", yscale="log", xticks=range(0, 21, 5))
    losses.yaxis.set_major_formatter("{x:g}")
    losses.legend(loc="lower left")
    return figure


def draw_schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Draw each schedule's factor of the peak rate over the share of the steps."""
    figure, axes = make_figure(9.5, 3.2)
    for (name, each), colour in zip(rates.items(), COLOURS, strict=True):
        axes.plot(np.linspace(0, 1, len(each)), each, color=colour, label=name)
    axes.set(xlabel="share of all steps", ylabel="learning rate, of its peak", ylim=(-0.02, 1.05))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_optimizers(top1: Mapping[str, Mapping[float, SeedStatistics]]) -> Figure:
    """Draw each optimizer's validation top-1 over the learning rate: a dot a seed, a line through the means."""
    figure, axes = make_figure(9.5, 3.6)
    for (name, by_rate), colour, marker in zip(top1.items(), COLOURS, MARKERS, strict=False):
        rates, percents = list(by_rate), [100 * np.array(each.values) for each in by_rate.values()]
        draw_values_and_mean(axes, rates, percents, name, colour, marker)
    axes.set_xscale("log")
    label_log_axis(axes.xaxis, sorted({rate for by_rate in top1.values() for rate in by_rate}))
    axes.set(xlabel="peak learning rate", ylabel="validation top-1 (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
