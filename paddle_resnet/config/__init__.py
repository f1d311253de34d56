"""The config of a run: its schema, and loading it from YAML and overrides."""

from paddle_resnet.config.loading import known_keys
from paddle_resnet.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    Integer,
    ModelConfig,
    PerChannel,
    Real,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "Integer",
    "ModelConfig",
    "PerChannel",
    "Real",
    "TrainConfig",
    "known_keys",
]
