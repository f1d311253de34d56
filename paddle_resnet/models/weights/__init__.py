"""Weights: files of Paddle, PyTorch and safetensors read as data, checked against a network, and written."""

from paddle_resnet.models.weights.loading import LoadReport, load_pretrained, load_weights
from paddle_resnet.models.weights.pretrained import ZooRecord, zoo_models, zoo_record
from paddle_resnet.models.weights.state_dict import Conversion, convert_weights, read_state_dict, write_state_dict

__all__ = [
    "Conversion",
    "LoadReport",
    "ZooRecord",
    "convert_weights",
    "load_pretrained",
    "load_weights",
    "read_state_dict",
    "write_state_dict",
    "zoo_models",
    "zoo_record",
]
