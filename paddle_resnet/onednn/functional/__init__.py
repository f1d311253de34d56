"""Functions of tensors on the CPU, computed by oneDNN forward and backward.

Images are ``[N, H, W, C]``, float32 or bfloat16; results and their gradients have the same type. Weights, statistics
and their gradients are float32.

Where no gradient is wanted, a function calls oneDNN directly and keeps nothing. Otherwise it is a `PyLayer`. Paddle
(2.6 and 3.3) frees what a `PyLayer` kept in its first backward pass whatever `retain_graph` says, and a second pass
over the same graph ends the process: take all gradients in one pass.
"""

from paddle_resnet.onednn.functional.convolution import conv2d
from paddle_resnet.onednn.functional.normalization import batch_norm
from paddle_resnet.onednn.functional.pooling import global_average_pool, max_pool2d
from paddle_resnet.onednn.functional.residual import add, fork, zero_pad_shortcut

__all__ = [
    "add",
    "batch_norm",
    "conv2d",
    "fork",
    "global_average_pool",
    "max_pool2d",
    "zero_pad_shortcut",
]
