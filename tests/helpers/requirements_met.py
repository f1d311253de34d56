"""What tests of exported models need, as marks that skip them where it is missing."""

from importlib.util import find_spec

import pytest

from paddle_resnet.onednn import unavailable_reason

HAS_ONNX = all(map(find_spec, ("onnxruntime", "paddle2onnx", "onnx", "ml_dtypes")))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the packages of requirements/onnx.txt are not installed")
needs_onednn = pytest.mark.skipif(unavailable_reason("cpu") is not None, reason="this Paddle has no oneDNN")
