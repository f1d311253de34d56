"""Whether the oneDNN layers can be used here, and the reason if not."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from paddle_resnet.onednn import bindings, library
from paddle_resnet.onednn.geometry import Window

if TYPE_CHECKING:
    import paddle

ON_LINUX = sys.platform.startswith("linux")


def unavailable_reason(device: str | None = None) -> str | None:
    """Return why the layers of this package cannot be used, in one line; None if they can.

    Args:
        device: where the network is trained, ``"cpu"`` or ``"gpu:0"``; the default is Paddle's current device. Given
            one, no Paddle is imported on Linux.
    """
    if device is None:
        import paddle

        device = paddle.get_device()
    if device != "cpu":
        return f"the device is {device}, and these layers are for the CPU"
    return platform_reason() or _missing_library() or _unfit_library() or (None if ON_LINUX else wrong_result())


def platform_reason() -> str | None:
    """Return why no Paddle on this machine could use the layers, in one line; None if one could."""
    machine = platform.machine()
    if (ON_LINUX or os.name == "nt") and machine in ("x86_64", "AMD64"):
        return None
    return f"these layers need Linux or Windows on an x86-64 processor; this is {sys.platform} on {machine}"


def bfloat16_unavailable_reason() -> str | None:
    """Return why bfloat16 would not be faster, in one line; None if it is. Call `unavailable_reason` first."""
    if library.instruction_set() & library.BFLOAT16 != library.BFLOAT16:
        return f"{_what_limits_library()} oneDNN {library.instruction_set_name()} only, and bfloat16 needs AVX512-BF16"
    return None


def _missing_library() -> str | None:
    try:
        path = library.library_path()
    except OSError as error:
        return str(error)
    if path.is_file():
        return None
    import paddle

    others = sorted(found.name for found in library.library_folder().glob("libdnnl.so*"))
    if others:
        return f"Paddle {paddle.__version__} has {', '.join(others)}; these layers need oneDNN {library.MAJOR_VERSION}"
    return f"Paddle {paddle.__version__} comes without oneDNN ({path} is not there)"


def _unfit_library() -> str | None:
    try:
        version = library.version()
        if version.major != library.MAJOR_VERSION:
            return f"Paddle's oneDNN is {version}, and these layers need major version {library.MAJOR_VERSION}"
        bindings.functions()
    except (OSError, AttributeError) as error:
        return f"{library.library_path()} cannot be used: {' '.join(str(error).split())}"
    if library.instruction_set() & library.AVX2 != library.AVX2:
        return f"{_what_limits_library()} oneDNN {library.instruction_set_name()} only, and these layers need AVX2"
    return None


@functools.cache
def wrong_result() -> str | None:
    """Return how a convolution's results differ from Paddle's, or None: the layers were developed on Linux alone."""
    import paddle

    from paddle_resnet.onednn import convolution

    def results(convolve: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]) -> list[paddle.Tensor]:
        image = paddle.sin(paddle.arange(2 * 6 * 6 * 16, dtype="float32")).reshape([2, 6, 6, 16])
        weight = paddle.cos(paddle.arange(16 * 16 * 9, dtype="float32")).reshape([16, 16, 3, 3])
        image.stop_gradient = weight.stop_gradient = False
        result = convolve(image, weight)
        result.square().mean().backward()
        return [result, image.grad, weight.grad]

    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    try:
        found = results(lambda image, weight: convolution.conv2d(image, weight, None, window))
    except OSError as error:  # as Python calls a wrong access to memory on Windows
        return f"{library.library_path()} failed: {error}"
    expected = results(lambda image, weight: paddle.nn.functional.conv2d(image, weight, padding=1, data_format="NHWC"))
    if all(paddle.allclose(one, other, 1e-3, 1e-3) for one, other in zip(found, expected, strict=True)):
        return None
    return f"{library.library_path()} computes a convolution unlike Paddle"


def _what_limits_library() -> str:
    for variable in library.ISA_LIMITS:
        if variable in os.environ:
            return f"{variable}={os.environ[variable]} leaves"
    return "the processor offers"
