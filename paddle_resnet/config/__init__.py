"""The config of a run: its schema, and loading it from YAML and overrides."""

from paddle_resnet.config.loading import known_keys
from paddle_resnet.config.schema import (
    SPLIT_NAMES,
    AugmentConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    Integer,
    ModelConfig,
    PerChannel,
    Real,
    SplitName,
    TrainConfig,
)

__all__ = [
    "SPLIT_NAMES",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "Integer",
    "ModelConfig",
    "PerChannel",
    "Real",
    "SplitName",
    "TrainConfig",
    "known_keys",
]
