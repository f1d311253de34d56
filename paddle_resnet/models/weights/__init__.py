"""Weights: files of Paddle, PyTorch and safetensors read as data, checked against a network, and written."""

from paddle_resnet.models.weights.convert import Conversion, convert_weights
from paddle_resnet.models.weights.loading import load_pretrained, load_weights
from paddle_resnet.models.weights.reading import read_state_dict
from paddle_resnet.models.weights.report import LoadReport
from paddle_resnet.models.weights.writing import write_state_dict
from paddle_resnet.models.weights.zoo import ZooRecord, zoo_models, zoo_record

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
