"""The config of a run: its schema, and loading it from YAML and overrides."""

from paddle_resnet.config.schema import AugmentConfig, Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig

__all__ = ["AugmentConfig", "Config", "DataConfig", "EvaluationConfig", "ModelConfig", "TrainConfig"]
