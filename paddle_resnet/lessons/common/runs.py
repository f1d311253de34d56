"""Training within a lesson: an ordinary run of the toolkit, whose folder lies in the lesson's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.evaluation.report import measure_split, metrics_section
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.common.statistics import Spread
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page, Text
from paddle_resnet.training import train
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.run_folder import RunFolder


def train_within(page: Page, effort: Effort, name: str, settings: Mapping[str, Any]) -> RunFolder:
    """Train one network as `settings` (a config's nested keys) and the lesson's overrides say; return its folder.

    Its curves are in VisualDL's format beside those of the lesson's other runs:
    ``visualdl --logdir <lesson's folder>/runs``.
    """
    config = Config.from_values({**settings, "name": name, "output": page.folder / RUNS}, effort.overrides)
    return train(config)


def images_of(config: Config) -> Text:
    """Name the training images."""
    size = config.data.image_size
    if config.data.source == "digits":
        return Text(
            f"scikit-learn's digits ({size}x{size} pixels)", f"scikit-learn 自带的手写数字（{size}x{size} 像素）"
        )
    return Text("CIFAR-10 (augmented by random crops and mirroring)", "CIFAR-10（用随机裁剪与水平翻转做数据增强）")


def say_what_differs(page: Page, config: Config) -> None:
    """Say how networks and numbers differ from those of He et al. 2015, where they do."""
    if config.model.stem == "cifar_pool":
        page.say(
            """The networks differ from the paper's in one thing: max-pooling after the first convolution halves the
            images, which quarters the work of all later layers. `-o model.stem=cifar` trains the paper's networks.""",
            """网络结构有一处与论文不同：第一个卷积之后用最大池化把图像边长减半，其后各层的计算量降为四分之一。
            `-o model.stem=cifar` 可训练与论文相同的网络。""",
        )
    if config.train.cpu_precision == "auto":
        page.say(
            """While a CPU trains, what flows between the layers is in bfloat16 where the processor has it
            (`train.cpu_precision=auto`); the errors are measured in float32.""",
            """在 CPU 上训练时，若处理器支持，层与层之间的数据用 bfloat16（`train.cpu_precision=auto`）；
            误差用 float32 测量。""",
        )
    if config.data.source != "digits" and not config.data.verify:
        page.say(
            """The archive's MD5 was not compared with the official one (`data.verify=false`): the pixels may differ
            from the published ones.""",
            """本次运行没有核对数据包的官方 MD5（`data.verify=false`），像素可能与官方发布的数据不同。""",
        )


SEED_KEY = "train.seed"


@dataclass(frozen=True)
class MeasuredTraining:
    """One training, and what its last weights get wrong. Errors are fractions: 1 - top-1.

    Attributes:
        config: of the run.
        training_error: over all training images, without augmentation, in evaluation mode.
        test_error: over the whole test split, likewise.
        training_curve: by epoch, as training goes: of augmented images, each by the weights of its moment.
        validation_curve: by epoch, at its end.
        steps: of training.
        seconds: of training, without validation.
    """

    config: Config
    training_error: float
    test_error: float
    training_curve: np.ndarray
    validation_curve: np.ndarray
    steps: int
    seconds: float


def seeds_of(effort: Effort, usual: Sequence[int]) -> tuple[int, ...]:
    """The seeds to train with: the usual ones, or the one that an override names."""
    if any(override.partition("=")[0] == SEED_KEY for override in effort.overrides):
        return (Config.from_values({}, effort.overrides).train.seed,)
    return tuple(usual)


def train_and_measure(page: Page, effort: Effort, name: str, settings: Mapping[str, Any]) -> MeasuredTraining:
    """Train as `train_within`, then measure the last weights; the figures are also in the run's ``metrics.json``.

    The last weights, not the best by validation: what is asked is how far training came.
    """
    run = train_within(page, effort, name, settings)
    network = run.load_network("last")
    use_cpu_backend(network, run.config.train.cpu_backend, runtime.select_device(run.config.device))
    scorer = NetworkScorer(network, run.normalize())
    errors = {split: _measured_error(run, scorer, split) for split in ("train", "test")}
    logger.info("%s: training error %.2f%%, test error %.2f%%", name, *(100 * error for error in errors.values()))
    history = run.history()
    return MeasuredTraining(
        config=run.config,
        training_error=errors["train"],
        test_error=errors["test"],
        training_curve=np.array([1 - record.train_top1 for record in history]),
        validation_curve=np.array([1 - record.validation_top1 for record in history]),
        steps=len(history) * (len(run.splits().train) // run.config.train.batch_size),
        seconds=sum(record.seconds for record in history),
    )


def percent_over_seeds(fractions: Sequence[float]) -> str:
    """Mean and standard deviation in percent, ``97.21 ± 0.43``; of a single run its value."""
    return Spread.of(fractions).percent() if len(fractions) > 1 else f"{100 * fractions[0]:.2f}"


def _measured_error(run: RunFolder, scorer: NetworkScorer, split: str) -> float:
    evaluation = measure_split(run, scorer, split)
    run.update_metrics(metrics_section(split, "last"), evaluation.summary() | {"checkpoint": "last"})
    return 1 - evaluation.top1
