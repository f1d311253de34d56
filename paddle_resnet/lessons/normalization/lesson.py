"""Batch, layer, instance and group normalisation: one formula, averaged over four different sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import NormFactory, Trainings, train_grid
from paddle_resnet.lessons.common.training_loop import LessonData
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, label_log_axis, make_figure, without_axes
from paddle_resnet.training.process_setup import ignore_paddle_warnings

SHAPE = (4, 6, 2, 2)  # N, C, H, W of the example tensors
GROUPS = 2
EPSILON = 1e-5
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
BATCHES = 40  # number of different batches with one image, for each batch size
TRAINED_BATCH_SIZES = (2, 8, 64)
SEEDS = (0, 1, 2)
EPOCHS, FULL_EPOCHS = 2, 1
RATE_FOR_64 = 0.2
CHANNELS_A_GROUP = 8
NORMALIZATIONS: dict[str, NormFactory] = {
    "Batch": nn.BatchNorm2D,
    "Group": lambda channels: nn.GroupNorm(channels // CHANNELS_A_GROUP, channels),
}

COLOURS = {"Batch": BLUE, "Layer": GREEN, "Instance": RED, "Group": ORANGE}
MARKERS = {"Batch": "o", "Layer": "^", "Instance": "v", "Group": "s"}

MARKER_SIZES = {"Batch": 7, "Layer": 14, "Instance": 10, "Group": 5}
"""Three lines coincide, so each marker is larger than the next."""

DEPTH = np.array([0.5, 0.38])  # direction of the batch axis in the drawing: right and up
MARKED = {"front": BLUE, "top": "#4095C5", "side": "#005B8E"}
UNMARKED = {"front": "#F4F4F4", "top": "#FFFFFF", "side": "#E6E6E6"}


@dataclass(frozen=True)
class Norm:
    """One normalisation."""

    name: str  # without "norm"
    shares: str  # what the values that share statistics go over
    axes: tuple[int, ...]  # of numpy, which group norm applies to ``[N, groups, C / groups, H, W]``
    layer: Callable[[Sequence[int]], nn.Layer]  # makes Paddle's layer for an input's shape

    def by_numpy(self, x: np.ndarray) -> np.ndarray:
        batch, _, height, width = x.shape
        shape = (batch, GROUPS, -1, height, width) if self.name == "Group" else x.shape
        grouped = x.astype(np.float64).reshape(shape)
        deviation = np.sqrt(grouped.var(self.axes, keepdims=True) + EPSILON)
        return ((grouped - grouped.mean(self.axes, keepdims=True)) / deviation).reshape(x.shape)


NORMS = (
    Norm("Batch", "N, H, W", (0, 2, 3), lambda shape: nn.BatchNorm2D(shape[1], epsilon=EPSILON)),
    Norm("Layer", "C, H, W", (1, 2, 3), lambda shape: nn.LayerNorm(list(shape[1:]), epsilon=EPSILON)),
    Norm("Instance", "H, W", (2, 3), lambda shape: nn.InstanceNorm2D(shape[1], epsilon=EPSILON)),
    Norm("Group", "C / groups, H, W", (2, 3, 4), lambda shape: nn.GroupNorm(GROUPS, shape[1], epsilon=EPSILON)),
)


@ignore_paddle_warnings()
def teach(page: Page, effort: Effort) -> None:
    """Draw the four sets, check each layer against numpy, and measure the influence of the batch."""
    _four_sets(page)
    _by_numpy(page)
    _special_cases(page)
    _batch_influence(page)
    _train(page, effort)


def _four_sets(page: Page) -> None:
    page.heading("four_sets_heading")
    page.values("y = gamma * (x - mean(S)) / sqrt(variance(S) + epsilon) + beta")
    page.say("one_formula", shape=SHAPE)
    masks = {norm.name: shared_statistics_mask(norm.layer(SHAPE), SHAPE) for norm in NORMS}
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    page.record(**{f"shared_{name.lower()}": count for name, count in counts.items()})
    axes = {norm.name: str(norm.axes) for norm in NORMS}
    axes["Group"] += " of [N, groups, C / groups, H, W]"
    page.table(
        "sets",
        [
            [norm.name, norm.shares, axes[norm.name], count, math.prod(SHAPE) // count]
            for norm, count in zip(NORMS, counts.values(), strict=True)
        ],
    )
    blocks = {name: mask.reshape(*SHAPE[:2], -1) for name, mask in masks.items()}
    page.figure("four_sets", partial(draw_blocks, blocks), groups=GROUPS)
    page.say("across_images")


def shared_statistics_mask(layer: nn.Layer, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of the inputs that affect the output of the first image, last channel, first pixel."""
    layer.train()
    x = paddle.to_tensor(_random_input(shape), stop_gradient=False)
    layer(x)[0, -1, 0, 0].backward()
    return x.grad.numpy() != 0


def _by_numpy(page: Page) -> None:
    page.heading("by_numpy_heading")
    page.values(
        "def standardized(x, axes, epsilon=1e-5):",
        "    deviation = np.sqrt(x.var(axes, keepdims=True) + epsilon)",
        "    return (x - x.mean(axes, keepdims=True)) / deviation",
    )
    x = _random_input(SHAPE)
    rows = []
    for norm in NORMS:
        layer = norm.layer(SHAPE)
        layer.train()
        in_training = layer(paddle.to_tensor(x)).numpy()
        layer.eval()
        in_evaluation = layer(paddle.to_tensor(x)).numpy()
        error = float(np.abs(in_training - norm.by_numpy(x)).max())
        change = float(np.abs(in_evaluation - in_training).max())
        learned = [list(each.shape) for each in layer.parameters() if not each.stop_gradient]
        rows.append([norm.name, type(layer).__name__, f"{error:.1e}", f"{change:.4f}", *learned])
        page.record(**{f"error_{norm.name.lower()}": error, f"eval_change_{norm.name.lower()}": change})
    page.table("against_numpy", rows)
    page.say("only_batch_differs")


def _special_cases(page: Page) -> None:
    page.heading("special_cases_heading")
    x = paddle.to_tensor(_random_input(SHAPE))
    channels = SHAPE[1]
    one_group, all_groups = (nn.GroupNorm(groups, channels, epsilon=EPSILON) for groups in (1, channels))
    layer_norm, instance_norm = NORMS[1].layer(SHAPE), NORMS[2].layer(SHAPE)
    one = float((one_group(x) - layer_norm(x)).abs().max().item())
    many = float((all_groups(x) - instance_norm(x)).abs().max().item())
    page.record(one_group_minus_layer=one, all_groups_minus_instance=many)
    page.values(
        f"GroupNorm(1, {channels})(x) - LayerNorm([{channels}, {SHAPE[2]}, {SHAPE[3]}])(x):   at most {one:.1e}",
        f"GroupNorm({channels}, {channels})(x) - InstanceNorm2D({channels})(x):      at most {many:.1e}",
    )
    page.say("special_cases")
    _show_cancellation(page, x.numpy(), many)


def _show_cancellation(page: Page, x: np.ndarray, difference: float) -> None:
    """Explain the difference: float32 rounds ``E[x^2] - E[x]^2``, by which Paddle's GroupNorm gets a variance."""
    rows = x.reshape(*SHAPE[:2], -1)
    mean, exact = rows.mean(-1, dtype=np.float32), rows.var(-1, dtype=np.float64)
    by_squares = (rows**2).mean(-1, dtype=np.float32) - mean**2
    ratio = np.abs(mean) / np.sqrt(exact)
    worst = np.unravel_index(ratio.argmax(), ratio.shape)
    # The first-order change of the output by the variance's error.
    error = np.abs(rows - mean[..., None]).max(-1) * np.abs(by_squares - exact) / (2 * (exact + EPSILON) ** 1.5)
    page.values(
        f"mean {mean[worst]:.4f}, standard deviation {np.sqrt(exact[worst]):.4f}",
        f"variance, exact                       {exact[worst]:.8f}",
        f"E[x^2] - E[x]^2 in float32            {by_squares[worst]:.8f}",
        f"effect of this error on the output    {error[worst]:.1e}",
    )
    page.say("cancellation", difference=difference, ratio=ratio[worst], error=error[worst])
    page.record(cancellation_effect=error[worst], mean_to_deviation=ratio[worst])


def _batch_influence(page: Page) -> None:
    page.heading("batch_influence_heading")
    spreads = {norm.name: [batch_sensitivity(norm, size) for size in BATCH_SIZES] for norm in NORMS}
    page.record(**{f"spread_{name.lower()}": values for name, values in spreads.items()}, batch_sizes=BATCH_SIZES)
    by_batch = spreads["Batch"]
    slope = float(np.polyfit(np.log(BATCH_SIZES), np.log(by_batch), 1)[0])
    page.record(spread_slope=slope)
    others = max(max(values) for name, values in spreads.items() if name != "Batch")
    small, large = ({"size": BATCH_SIZES[index], "scatter": by_batch[index]} for index in (0, -1))
    words = page.text("exactly_0" if others == 0 else "at_most", largest=others)
    page.say("scatter", batches=BATCHES, small=small, large=large, slope=slope, others=words)
    page.figure("batch_influence", partial(draw_batch_sensitivity, BATCH_SIZES, spreads))


def batch_sensitivity(norm: Norm, batch_size: int) -> float:
    """Return the standard deviation of one image's output over random batches, root mean square over its values.

    Each channel of an image has its own level, because real images differ more than the pixels of one image.
    """
    random = np.random.default_rng(0)
    shape = (batch_size, *SHAPE[1:])
    layer = norm.layer(shape)
    layer.train()
    first = _images(random, (1, *SHAPE[1:]))
    outputs = []
    for _ in range(BATCHES):
        batch = np.concatenate([first, _images(random, (batch_size - 1, *SHAPE[1:]))])
        outputs.append(layer(paddle.to_tensor(batch)).numpy()[0])
    return float(np.sqrt(np.var(outputs, axis=0, dtype=np.float64).mean()))


def _images(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    levels = random.normal(size=(*shape[:2], 1, 1))
    return (levels + 0.5 * random.normal(size=shape)).astype(np.float32)


def _random_input(shape: tuple[int, ...]) -> np.ndarray:
    """Return random values with a mean and scale for each image and channel."""
    random = np.random.default_rng(0)
    centre, spread = random.normal(0, 2, (*shape[:2], 1, 1)), random.uniform(0.5, 2, (*shape[:2], 1, 1))
    return (centre + spread * random.normal(size=shape)).astype(np.float32)


def _train(page: Page, effort: Effort) -> None:
    """Train with batch and with group normalisation at each batch size, the learning rate in proportion."""
    data = LessonData.open(effort)
    epochs = effort.epochs(FULL_EPOCHS if effort.full else EPOCHS)
    page.section(
        "recipe",
        config=data.config,
        epochs=epochs,
        seeds=len(SEEDS),
        channels_a_group=CHANNELS_A_GROUP,
        rate_for_64=RATE_FOR_64,
    )
    settings = [(size, RATE_FOR_64 * size / 64) for size in TRAINED_BATCH_SIZES]
    runs = train_grid(data, NORMALIZATIONS, settings, epochs, SEEDS)
    rows = []
    for size, *trained in zip(TRAINED_BATCH_SIZES, *runs.values(), strict=True):
        for name, each in zip(runs, trained, strict=True):
            errors = 1 - each.test_top1
            losses = f"{each.mean_loss:.3f}", f"{np.mean(each.test_losses):.3f}"
            rows.append([size, name, *losses, f"{errors.mean():.1%}", f"{errors.min():.1%} – {errors.max():.1%}"])
    page.table("results", rows)
    page.figure("batch_sizes", partial(draw_trainings, TRAINED_BATCH_SIZES, runs))
    _conclude(page, runs, len(data.splits.test))


def _conclude(page: Page, runs: dict[str, list[Trainings]], images: int) -> None:
    errors = {name: [float(np.mean(1 - each.test_top1)) for each in by_size] for name, by_size in runs.items()}
    losses = {name: [each.mean_loss for each in by_size] for name, by_size in runs.items()}
    page.record(training_batch_sizes=TRAINED_BATCH_SIZES)
    page.record(**{f"test_error_{name.lower()}": values for name, values in errors.items()})
    page.record(**{f"training_loss_{name.lower()}": values for name, values in losses.items()})
    small = TRAINED_BATCH_SIZES[0]
    small_losses = {name: values[0] for name, values in losses.items()}
    page.say(
        "small_batches",
        large=TRAINED_BATCH_SIZES[-1],
        small=small,
        large_losses={name: values[-1] for name, values in losses.items()},
        small_losses=small_losses,
        change={name: 100 * (values[0] - values[-1]) for name, values in errors.items()},
        one_image=100 / images,
    )
    test_loss = runs["Batch"][0].test_losses.mean()
    page.say("two_functions", small=small, training_loss=small_losses["Batch"], test_loss=test_loss)
    page.say("two_changes")


def draw_blocks(masks: Mapping[str, np.ndarray]) -> Figure:
    """Draw a block of N x C x HW cells for each mask ``[N, C, HW]``, with the batch as depth."""
    figure, panels = make_figure(10, 3.1, 1, len(masks))
    for axes, (name, mask) in zip(panels, masks.items(), strict=True):
        _draw_block(axes, mask)
        axes.set_title(f"{name} norm", fontsize=12)
    return figure


def _draw_block(axes: Axes, mask: np.ndarray) -> None:
    """Draw the visible faces: first image (front), last channel (side), first pixel (top)."""
    images, channels, pixels = mask.shape
    right, up = np.array([1.0, 0.0]), np.array([0.0, 1.0])

    def cell(corner: np.ndarray, one: np.ndarray, other: np.ndarray, marked: bool, face: str) -> None:
        colour = (MARKED if marked else UNMARKED)[face]
        corners = [corner, corner + one, corner + one + other, corner + other]
        axes.add_patch(Polygon(corners, facecolor=colour, edgecolor=INK, linewidth=0.8, joinstyle="round"))

    for channel in range(channels):
        for pixel in range(pixels):
            cell(channel * right + (pixels - 1 - pixel) * up, right, up, mask[0, channel, pixel], "front")
        for image in range(images):
            cell(channel * right + pixels * up + image * DEPTH, right, DEPTH, mask[image, channel, 0], "top")
    for image in range(images):
        for pixel in range(pixels):
            corner = channels * right + (pixels - 1 - pixel) * up + image * DEPTH
            cell(corner, DEPTH, up, mask[image, -1, pixel], "side")

    axes.text(channels / 2, -0.25, "C", ha="center", va="top")
    axes.text(-0.25, pixels / 2, "H, W", ha="center", va="center", rotation=90)
    middle = channels * right + images / 2 * DEPTH
    axes.text(middle[0] + 0.25, middle[1] - 0.2, "N", ha="left", va="top")
    axes.set(
        xlim=(-0.7, channels + images * DEPTH[0] + 0.2), ylim=(-0.9, pixels + images * DEPTH[1] + 0.2), aspect="equal"
    )
    without_axes(axes)


def draw_batch_sensitivity(batch_sizes: Sequence[int], spreads: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the variation of an image's output over the batch size, a line per normalisation."""
    figure, axes = make_figure(9.5, 3.6)
    for name, values in spreads.items():
        size = MARKER_SIZES[name]
        axes.plot(batch_sizes, values, color=COLOURS[name], marker=MARKERS[name], markersize=size, label=f"{name} norm")
    first = spreads["Batch"][0]
    guide = [first * (batch_sizes[0] / size) ** 0.5 for size in batch_sizes]
    axes.plot(batch_sizes, guide, color=GREY, linestyle=":", linewidth=1.5, label="1 / sqrt(N)")
    _batch_axis(axes, batch_sizes)
    axes.set(ylabel="scatter of the output", ylim=(-0.02, None))
    axes.legend(loc="upper right")
    return figure


def draw_trainings(batch_sizes: Sequence[int], runs: Mapping[str, Sequence[Trainings]]) -> Figure:
    """Draw training loss, test loss and test error over the batch size: a dot per run, a line through the means."""
    figure, panels = make_figure(9.5, 3.7, 1, 3)
    measures: dict[str, Callable[[Trainings], np.ndarray]] = {
        "training loss, last epoch (nats)": lambda each: each.last_epoch_losses,
        "test loss (nats)": lambda each: each.test_losses,
        "test error (%)": lambda each: 100 * (1 - each.test_top1),
    }
    for axes, (title, measure) in zip(panels, measures.items(), strict=True):
        for name, by_size in runs.items():
            values = list(map(measure, by_size))
            draw_values_and_mean(axes, batch_sizes, values, f"{name} norm", COLOURS[name], MARKERS[name])
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylim(bottom=0)
        _batch_axis(axes, batch_sizes)
    panels[0].legend(loc="upper right")
    return figure


def _batch_axis(axes: Axes, batch_sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    label_log_axis(axes.xaxis, batch_sizes)
    axes.set_xlabel("batch size, N (images)")
