"""Weights: files of Paddle, PyTorch and safetensors read as data, checked against a network, and written."""
