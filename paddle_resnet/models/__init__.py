"""The networks: residual blocks, the family's table, and reading weights."""

from paddle_resnet.models.batch_norm import BatchNorm
from paddle_resnet.models.classifier import ImageClassifier, count_parameters
from paddle_resnet.models.factory import create_configured_model, create_model
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.models.weights.loading import LoadReport, load_weights
from paddle_resnet.models.weights.state_dict import convert_weights, read_state_dict, write_state_dict
from paddle_resnet.zoo import ModelEntry, ZooRecord, list_models, model_entry, zoo_models, zoo_record

__all__ = [
    "BatchNorm",
    "ImageClassifier",
    "LoadReport",
    "ModelEntry",
    "ResNet",
    "ZooRecord",
    "convert_weights",
    "count_parameters",
    "create_configured_model",
    "create_model",
    "list_models",
    "load_weights",
    "model_entry",
    "read_state_dict",
    "write_state_dict",
    "zoo_models",
    "zoo_record",
]
