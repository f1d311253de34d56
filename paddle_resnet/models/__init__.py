"""The networks: residual blocks, the family's table, and reading weights."""

from paddle_resnet.models.factory import create_model
from paddle_resnet.models.registry import ModelEntry, list_models, model_entry
from paddle_resnet.models.resnet import ResNet, count_parameters
from paddle_resnet.models.weights import LoadReport, load_pretrained, load_weights, read_state_dict

__all__ = [
    "LoadReport",
    "ModelEntry",
    "ResNet",
    "count_parameters",
    "create_model",
    "list_models",
    "load_pretrained",
    "load_weights",
    "model_entry",
    "read_state_dict",
]
