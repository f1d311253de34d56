"""Every private attribute of Paddle that this package uses, and how Paddle 2.6 and 3.3 differ in them.

Each function says why the public interface is not enough. The names `_mean` and `_variance` of a BatchNorm are used as
they are: they are keys of its state dict. Paddle is imported when a function is called, except by those that look into
its installed folder.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import paddle
    from paddle import nn

Sizes = int | list[int] | tuple[int, ...]
"""A size as the user of a layer gave it: one number, one for each axis, or (of padding) one for each side."""


def is_paddle_2() -> bool:
    """Return whether this is Paddle 2.x: it writes .pdmodel programs, where Paddle 3 writes .json ones."""
    import paddle

    return paddle.__version__.startswith("2.")


def paddle_folder() -> Path | None:
    """Return the folder of the installed Paddle."""
    found = importlib.util.find_spec("paddle")
    return Path(found.origin).parent if found and found.origin else None


def library_folder() -> Path:
    """Return the folder of the shared libraries inside the installed Paddle; raise OSError if there is none."""
    folder = paddle_folder()
    if folder is None:
        raise OSError("Paddle is not installed")
    return folder / "libs"


def is_cpu_build(folder: Path) -> bool:
    """Return whether Paddle in this folder is the build for CPUs, by the file that a build writes for `paddle.version`.

    Paddle is not imported, as `is_compiled_with_cuda` would need, which takes a second.
    """
    file = folder / "version" / "__init__.py"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    versions = dict(re.findall(r"^(cuda|hip)_version\s*=\s*(\S+)$", text, re.MULTILINE))
    return versions.get("cuda") == "'False'" and versions.get("hip", "None") in ("None", "'False'")


def optimizer_of(model: paddle.Model) -> paddle.optimizer.Optimizer:
    """Return the optimizer that `model` was prepared with; `paddle.Model` has no accessor for it."""
    return model._optimizer


def grad_scaler_of(model: paddle.Model) -> paddle.amp.GradScaler | None:
    """Return the loss scaler; `paddle.Model` makes it in its first step of mixed precision, and has no accessor."""
    return getattr(model, "_scaler", None)


def set_grad_scaler(model: paddle.Model, scaler: paddle.amp.GradScaler) -> None:
    """Give `model` the loss scaler of a checkpoint; it would make a new one in its first step."""
    model._scaler = scaler


def learning_rate_of(optimizer: paddle.optimizer.Optimizer) -> float | paddle.optimizer.lr.LRScheduler:
    """Return the number or the schedule; `get_lr` gives only the schedule's present value."""
    return optimizer._learning_rate


def parameters_of(optimizer: paddle.optimizer.Optimizer) -> list[paddle.Tensor]:
    """Return the parameters that the optimizer moves; it has no accessor for them."""
    return optimizer._parameter_list


def create_optimizer_state(optimizer: paddle.optimizer.Optimizer, parameters: Iterable[paddle.Tensor]) -> None:
    """Create the optimizer's state of these parameters, unless it is there.

    Paddle creates the state of a parameter in the parameter's first step. It refuses to do so after a state without
    that parameter was loaded.
    """
    import paddle
    from paddle.base.layer_helper import LayerHelper

    optimizer.helper = LayerHelper(type(optimizer).__name__)
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), list(parameters))


def momentum_velocity(optimizer: paddle.optimizer.Momentum, parameter: paddle.Tensor) -> paddle.Tensor:
    """Return the velocity of a parameter, to be changed in place; `state_dict` gives it by an internal name."""
    return optimizer._get_accumulator(optimizer._velocity_acc_str, parameter)


def empty_on_cpu(shape: Iterable[int], dtype: paddle.dtype) -> paddle.Tensor:
    """Return a tensor that is not filled; `paddle.empty` takes 8 microseconds to look at its arguments, this one 2."""
    import paddle

    return paddle._C_ops.empty(shape, dtype, paddle.CPUPlace())


class ConvolutionSettings(NamedTuple):
    """What a `Conv2D` was made with."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int
    zero_padded: bool
    """False for another padding_mode ("reflect") and for padding "SAME" or "VALID"; `padding` is meaningless then."""


def convolution_settings(layer: nn.Conv2D) -> ConvolutionSettings:
    """Return stride, padding, dilation and groups; `Conv2D` has public attributes for none of them."""
    zero_padded = layer._padding_algorithm == "EXPLICIT" and layer._padding_mode == "zeros"
    return ConvolutionSettings(layer._stride, layer._updated_padding, layer._dilation, layer._groups, zero_padded)


class BatchNormSettings(NamedTuple):
    """What a BatchNorm was made with."""

    momentum: float
    epsilon: float
    use_global_stats: bool | None
    """True: running statistics in training too; False: the batch's in evaluation too; None: the usual."""


def batch_norm_settings(layer: nn.BatchNorm2D) -> BatchNormSettings:
    """Return momentum, epsilon and the choice of statistics; BatchNorm layers have no public attributes for them."""
    return BatchNormSettings(layer._momentum, layer._epsilon, layer._use_global_stats)


def has_forward_hooks(layer: nn.Layer) -> bool:
    """Return whether hooks are called before or after the layer's `forward`."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks)


def data_format(layer: nn.Layer) -> str:
    """Return "NCHW", "NHWC" or the like; some layers keep it in a public attribute, some in a private one."""
    return getattr(layer, "_data_format", getattr(layer, "data_format", "NCHW"))


def paddle_2_programs() -> AbstractContextManager[None]:
    """Within the block, static programs are of Paddle 2's kind, the only kind that VisualDL can draw."""
    import paddle

    return getattr(paddle.pir_utils, "DygraphOldIrGuard", nullcontext)()  # 2.6 makes no others
