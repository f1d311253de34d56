"""Who computes a network's layers on the CPU, and in what numbers; and the memory that training keeps."""

from __future__ import annotations

import os
import subprocess
import sys

import paddle
import pytest

from paddle_resnet import create_model, runtime
from paddle_resnet.errors import UsageError
from paddle_resnet.onednn import accelerate, library, unavailable_reason
from paddle_resnet.onednn.layers import ChannelsLastResNet

AVX512_VNNI, AVX512_BF16 = 0x67, 0xE7


@pytest.fixture
def network():
    return create_model("resnet8")


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
@pytest.mark.parametrize(
    ("precision", "instructions", "used"),
    [
        ("float32", AVX512_BF16, "float32"),
        ("auto", AVX512_BF16, "bfloat16"),
        ("auto", AVX512_VNNI, "float32"),
        ("bfloat16", AVX512_BF16, "bfloat16"),
    ],
)
def test_precision(network, monkeypatch, caplog, precision, instructions, used):
    monkeypatch.setattr(library, "instruction_set", lambda: instructions)
    with caplog.at_level("INFO", logger="paddle_resnet"):
        accelerate(network, "auto", "cpu", precision)
    assert isinstance(network, ChannelsLastResNet) and network.precision == used
    assert caplog.messages[-1].endswith(used)


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
def test_bfloat16_needs_a_processor_that_has_it(network, monkeypatch):
    monkeypatch.setattr(library, "instruction_set", lambda: AVX512_VNNI)
    with pytest.raises(UsageError, match=r"train\.cpu_precision bfloat16: .*AVX512-VNNI only.*use auto or float32"):
        accelerate(network, "auto", "cpu", "bfloat16")
    assert not isinstance(network, ChannelsLastResNet)


def test_bfloat16_needs_onednn(network):
    with pytest.raises(UsageError, match="bfloat16 needs the oneDNN backend, but it is not used, as asked for"):
        accelerate(network, "native", "cpu", "bfloat16")


def test_a_gpus_network_is_left_alone(network):
    accelerate(network, "onednn", "gpu:0", "bfloat16")
    assert not isinstance(network, ChannelsLastResNet)


COUNT_PAGE_FAULTS = """
import resource
import numpy as np
from paddle_resnet.runtime import keep_freed_memory

assert keep_freed_memory()
counts = []
for _ in range(6):
    np.ones(10_000_000)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[-1] - counts[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_used_again():
    environment = {name: value for name, value in os.environ.items() if name not in runtime.ALLOCATOR_VARIABLES}
    faults = subprocess.run(
        [sys.executable, "-c", COUNT_PAGE_FAULTS], env=environment, capture_output=True, text=True, check=True
    ).stdout
    # Four arrays of 80 MB are 80,000 pages of 4 kB where the system gives each of them anew.
    assert int(faults) < 1000


def test_the_users_allocator_is_kept(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not runtime.keep_freed_memory()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"precision": "fp16"}, "precision: expected one of auto, float32, bfloat16, got 'fp16'"),
        ({"backend": "mkldnn"}, "backend: expected one of auto, onednn, native, got 'mkldnn'"),
        ({"backend": None}, "backend: expected one of auto, onednn, native, got None$"),
    ],
)
def test_unknown_words_are_refused(arguments, complaint):
    with pytest.raises(UsageError, match=complaint):
        accelerate(create_model("resnet8"), **arguments)


def test_what_is_no_layer_is_refused():
    with pytest.raises(UsageError, match="expected a network of create_model, got Model"):
        accelerate(paddle.Model(create_model("resnet8")))


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
def test_a_check_for_nan_is_left_to_paddles_operators(caplog):
    """With this flag, memory without a value yet counts as a wrong result."""
    paddle.set_flags({"FLAGS_check_nan_inf": True})
    try:
        network = accelerate(create_model("resnet8", num_classes=10), device="cpu")
        network(paddle.zeros([2, 3, 32, 32])).sum().backward()
    finally:
        paddle.set_flags({"FLAGS_check_nan_inf": False})
    assert "Paddle's own operators, as FLAGS_check_nan_inf is set" in caplog.text
