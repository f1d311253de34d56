"""The versions of what made an export."""

from __future__ import annotations

from importlib import metadata

import paddle

from paddle_resnet import __version__

ONNX_PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")


def versions(*, onnx: bool) -> dict[str, str]:
    """Name the versions of this project, of Paddle and, for an ONNX file, of what made that."""
    packages = {name: metadata.version(name) for name in ONNX_PACKAGES} if onnx else {}
    return {"paddle_resnet": __version__, "paddle": paddle.__version__, **packages}
