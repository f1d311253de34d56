"""The precisions and backends of exported models, by name. Needs no paddle, so that commands can list them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Precision = Literal["fp32", "fp16", "bf16", "int8"]
BackendName = Literal["paddle", "onnxruntime", "onednn", "tensorrt"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)

CPU_SUPPORT: dict[BackendName, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "paddle": ("fp32", "bf16"),
    "onednn": ("fp32", "bf16", "int8"),
}
GPU_SUPPORT: dict[BackendName, tuple[Precision, ...]] = {"paddle": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16")}
"""The preferred backend first: on a CPU ONNX Runtime was the faster one in float32 wherever it was measured."""
CPU_PRECISIONS = tuple(name for name in PRECISIONS if any(name in able for able in CPU_SUPPORT.values()))


class Execution(NamedTuple):
    """How a model is run: on "cpu" or "gpu:<i>", by which library, in which precision."""

    device: str
    backend: BackendName
    precision: Precision
