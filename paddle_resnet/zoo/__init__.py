"""The table of networks and of their pretrained weights, as data: importing it needs no Paddle."""

from paddle_resnet.zoo.cifar10_weights import ZooRecord, zoo_models, zoo_record
from paddle_resnet.zoo.registry import ModelEntry, ResNetEntry, list_models, model_entry

__all__ = ["ModelEntry", "ResNetEntry", "ZooRecord", "list_models", "model_entry", "zoo_models", "zoo_record"]
