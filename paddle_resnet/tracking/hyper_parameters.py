"""A run's hyper-parameters, by which VisualDL compares runs."""

from __future__ import annotations

import json
from functools import reduce

from paddle_resnet.config import Config

COMPARED = (
    *("model.name", "model.pretrained", "model.stem", "data.source", "data.image_size"),
    *("train.optimizer", "train.learning_rate", "train.epochs", "train.batch_size", "train.accumulate", "train.seed"),
    *("train.momentum", "train.weight_decay", "train.schedule", "train.warmup", "train.label_smoothing", "train.ema"),
    *("train.clip_norm", "train.layer_decay", "train.freeze_epochs", "train.first_size"),
    *("augment.pad", "augment.scale", "augment.flip", "augment.cutout", "augment.erase", "augment.trivial_augment"),
    *("augment.mixup", "augment.cutmix", "model.dropout", "model.stochastic_depth"),
)
"""What recipes differ in. All keys would be more columns than can be looked through; VisualDL's texts have them."""


def hyper_parameters(config: Config) -> dict[str, float | str]:
    """The values of `COMPARED`, by names such as ``train/learning_rate``: a name with a dot is an empty column there.

    Keys of numbers are numbers, all others text, so that a name is of one type in all runs. A key that may be null is
    text too: VisualDL has no number for that.
    """
    found: dict[str, float | str] = {}
    for key in COMPARED:
        *groups, name = key.split(".")
        group = reduce(getattr, groups, config)
        kind, value = type(group).model_fields[name].annotation, getattr(group, name)
        if kind is int or kind is float:
            found[key.replace(".", "/")] = kind(value)
        else:
            found[key.replace(".", "/")] = value if isinstance(value, str) else json.dumps(value)
    return found
