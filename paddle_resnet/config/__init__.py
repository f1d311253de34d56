"""The config of a run: its schema, and reading it from YAML and overrides."""

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
    known_keys,
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
