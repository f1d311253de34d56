"""Small ONNX files in the form of exported networks, and the backend that runs them."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np

from paddle_resnet.inference.onednn_backend import OneDNNBackend

SIZE = 17


class Builder:
    """An ONNX graph in the form of exported networks: from uint8 pixels, channels last."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes, self.constants = [], []
        self._random = np.random.default_rng(0)
        images = self.add("Cast", "images", to=1)
        self.pixels = self.add("Sub", self.add("Transpose", images, perm=[0, 3, 1, 2]), self.constant([99.5, 120, 130]))

    def constant(self, values, kind=np.float32):
        values = np.asarray(values, kind)
        values = values.reshape(-1, 1, 1) if values.ndim == 1 and not self.constants else values
        name = f"constant{len(self.constants)}"
        self.constants.append(self._numpy.from_array(values, name))
        return name

    def array(self, name):
        return next(self._numpy.to_array(each) for each in self.constants if each.name == name)

    def random(self, *shape, scale=None):
        """A constant that keeps the size of what it is multiplied with; the first one divides pixels."""
        scale = scale or np.prod(shape[1:]) ** -0.5 / (1 if len(self.constants) > 1 else 50)
        return self.constant(self._random.normal(0, scale, shape))

    def add(self, operation, *inputs, output=None, **attributes):
        output = output or f"{operation}{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def conv(self, source, inputs, out, kernel=3, stride=1, groups=1, dilation=1):
        pad = dilation * (kernel - 1) // 2
        constants = self.random(out, inputs // groups, kernel, kernel), self.random(out, scale=0.1)
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
        return self.add("Conv", source, *constants, group=groups, **window)

    def end(self, operation, *inputs, **attributes):
        return self.add(operation, *inputs, output="probabilities", **attributes)

    def head(self, source, inputs):
        flat = self.add("Flatten", self.add("GlobalAveragePool", source), axis=1)
        logits = self.add("Add", self.add("MatMul", flat, self.random(inputs, 5)), self.random(5, scale=0.1))
        return self.end("Softmax", logits, axis=-1)

    def file(self, output="probabilities"):
        """Return the model's bytes."""
        make = self._helper.make_tensor_value_info
        ends = [make("images", 2, ["n", SIZE, SIZE, 3])], [make(output, 1, None)]
        graph = self._helper.make_graph(self.nodes, "tested", *ends, self.constants)
        opset = self._helper.make_opsetid("", 13)
        return self._helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def scaled(b):
    """Pixels divided by 50, as a first layer does it."""
    return b.add("Relu", b.conv(b.pixels, 3, 16, 3, 2))


def basic(b):
    x = scaled(b)
    y = b.conv(b.add("Relu", b.conv(x, 16, 16)), 16, 16)
    x = b.add("Relu", b.add("Add", y, x))
    shortcut = b.conv(x, 16, 32, 1, 2)
    y = b.conv(b.add("Relu", b.conv(x, 16, 32, 3, 2)), 32, 32)
    b.head(b.add("Relu", b.add("Add", y, shortcut)), 32)


def bottleneck(b):
    """With a max-pooling, groups, dilation and a shortcut that is computed last."""
    x = b.add("MaxPool", scaled(b), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = b.add("Relu", b.conv(x, 16, 32, 1))
    y = b.add("Relu", b.conv(y, 32, 32, 3, groups=4, dilation=2))
    y = b.conv(y, 32, 48, 1)
    b.head(b.add("Relu", b.add("Add", y, b.conv(x, 16, 48, 1))), 48)


def averaged(b):
    """With average poolings before the shortcut's convolution, as ResNet-D has them, one of them padded."""
    x = scaled(b)
    pooled = b.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    y = b.add("Relu", b.conv(pooled, 16, 24, 1))
    b.head(b.add("AveragePool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 24)


def preactivation(b):
    """A ReLU that follows no convolution, and a tensor that is added twice."""
    x = b.add("MaxPool", b.conv(b.pixels, 3, 16, 3, 2), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = b.add("Add", b.conv(b.add("Relu", b.conv(b.add("Relu", x), 16, 16)), 16, 16), x)
    b.head(b.add("Add", b.conv(b.add("Relu", b.conv(b.add("Relu", y), 16, 16)), 16, 16), x), 16)


def own_input_added(b):
    """As fast_resnet8 has it, with a BatchNorm that follows a pooling, and a ReLU before the addition."""
    x = b.add("MaxPool", scaled(b), kernel_shape=[2, 2], strides=[2, 2])
    statistics = [b.random(16, scale=1), b.random(16, scale=1), b.random(16, scale=1), b.constant(np.full(16, 0.7))]
    x = b.add("Relu", b.add("BatchNormalization", x, *statistics, epsilon=1e-5))
    x = b.add("Relu", b.add("Add", b.conv(x, 16, 16), x))
    y = b.add("Relu", b.conv(b.add("Relu", b.conv(x, 16, 16)), 16, 16))
    b.head(b.add("Add", x, y), 16)


def flattened(b):
    """LeNet's head: a matrix over all pixels, transposed, with its bias."""
    x = b.add("MaxPool", scaled(b), kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Relu", b.add("Gemm", b.add("Flatten", x, axis=1), b.random(20, 256), b.random(20, scale=1), transB=1))
    logits = b.add("Gemm", x, b.random(5, 20), b.random(5, scale=1), transB=1)
    b.end("Softmax", logits, axis=-1)


NETWORKS = [basic, bottleneck, averaged, preactivation, own_input_added, flattened]


def backend_of(model, folder, precision="fp32", threads=1):
    (folder / "model.onnx").write_bytes(model)
    file = SimpleNamespace(name="model.onnx", sha256=hashlib.sha256(model).hexdigest())
    config = SimpleNamespace(
        folder=folder,
        files=SimpleNamespace(onnx_of=lambda precision: file),
        input=SimpleNamespace(image_size=SIZE, batch=None),
    )
    return OneDNNBackend(config, precision, threads)
