"""What a thread keeps of oneDNN: bounded, its own, not shared by a forked child; and why the library cannot be used."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onednn_reference as reference
import paddle
import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.onednn import accelerate, availability, library, platform_reason, primitives, unavailable_reason
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.geometry import Window
from paddle_resnet.onednn.layers import ChannelsLastResNet

pytestmark = pytest.mark.slow
needs_library = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
WINDOW = Window((3, 3), (1, 1), (1, 1), (1, 1))


def convolution_is_right(seed, height=6):
    """Run a convolution forward and backward, and compare with float64 numpy."""
    rng = np.random.default_rng(seed)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((2, height, 5, 4), (16, 4, 3, 3)))
    inputs = [paddle.to_tensor(array, stop_gradient=False) for array in (x, weight)]
    result = onednn_layers.conv2d(*inputs, None, WINDOW)
    result.sum().backward()  # paddle.grad is not made for threads
    found = [result, *(tensor.grad for tensor in inputs)]
    expected, gradients = reference.convolution(x, weight, None, WINDOW, 1, np.ones)
    pairs = zip(found, (expected, *gradients[:2]), strict=True)
    return all(np.allclose(one, other, rtol=0, atol=1e-4) for one, other in pairs)


@needs_library
def test_a_library_that_computes_wrongly_or_fails_is_not_used(monkeypatch):
    """Where these layers have never been run, a convolution is compared with Paddle's first."""
    monkeypatch.setattr(availability, "ON_LINUX", False)
    monkeypatch.setattr(availability, "platform_reason", lambda: None)
    right = onednn_layers.conv2d
    for convolve, reason in (
        (right, None),
        (lambda *arguments: right(*arguments) * 1.1, "computes a convolution unlike Paddle"),
        (lambda *arguments: Path("/no/such/file").stat(), "failed: "),
    ):
        monkeypatch.setattr("paddle_resnet.onednn.convolution.conv2d", convolve)
        availability.wrong_result.cache_clear()
        found = unavailable_reason("cpu")
        assert found is None if reason is None else reason in found
    availability.wrong_result.cache_clear()


@pytest.fixture
def small_context(monkeypatch):
    """A fresh context of this thread that keeps two primitives."""
    context = primitives.Context(capacity=2)
    monkeypatch.setattr(primitives, "_local", threading.local())
    primitives._local.context = context
    return context


@pytest.fixture
def living(monkeypatch):
    """Count of the C objects that were made and not yet destroyed, since the test began."""
    count = [0]
    make, destroy = primitives.Handle.__init__, primitives.Handle.__del__
    ours = set()

    def counted_make(handle, *arguments):
        make(handle, *arguments)
        ours.add(handle.address)
        count[0] += 1

    def counted_destroy(handle):
        if handle.address in ours:
            count[0] -= 1
        destroy(handle)

    monkeypatch.setattr(primitives.Handle, "__init__", counted_make)
    monkeypatch.setattr(primitives.Handle, "__del__", counted_destroy)
    return count


@needs_library
def test_a_small_cache_evicts_and_destroys(living, small_context):
    counts = []
    for height in (3, 4, 5, 6, 7, 8, 9, 10):
        assert convolution_is_right(height, height)
        assert len(small_context._primitives) == 2
        gc.collect()
        counts.append(living[0])
    assert len(set(counts[1:])) == 1
    small_context._primitives.clear()
    gc.collect()
    assert living[0] < counts[-1]


@needs_library
def test_the_last_used_primitives_stay(small_context):
    built = []

    def build(context, geometry):
        built.append(geometry)
        return geometry

    for geometry in "abacab":
        small_context.cached(build, geometry)
    assert built == ["a", "b", "c", "b"]


@needs_library
def test_many_steps_take_no_more_memory():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def run(steps):
        x = paddle.ones([2, 16, 16, 16])
        weight = paddle.ones([16, 16, 3, 3])
        x.stop_gradient = weight.stop_gradient = False
        for _ in range(steps):
            onednn_layers.add(onednn_layers.conv2d(x, weight, None, WINDOW), x, relu=True).sum().backward()
            x.clear_gradient(), weight.clear_gradient()

    run(50)
    before = resident()
    run(400)  # a leak of one activation a step would be 26 MB
    assert resident() - before < 8e6


@needs_library
def test_two_threads_at_once():
    right = []

    def work(first):
        right.extend(convolution_is_right(seed) for seed in range(first, first + 60))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 120


@needs_library
def test_each_thread_has_its_own_context():
    found = []
    thread = threading.Thread(target=lambda: found.append(primitives.thread_context()))
    thread.start()
    thread.join()
    assert found[0] is not primitives.thread_context()
    assert primitives.thread_context() is primitives.thread_context()


@needs_library
def test_a_forked_child_starts_anew():
    assert convolution_is_right(0)
    parent = primitives.thread_context()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if primitives.thread_context() is not parent and convolution_is_right(1) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert primitives.thread_context() is parent
    assert convolution_is_right(0)


@needs_library
def test_a_failing_call_says_what_failed():
    from paddle_resnet.onednn.bindings import DataType, OneDNNError

    with pytest.raises(OneDNNError, match=r"memory_desc_create_with_strides failed: invalid arguments"):
        primitives.strided((-1, 2), (2, 1), DataType.FLOAT32)


@pytest.mark.skipif(
    platform_reason() is not None or "avx2" not in Path("/proc/cpuinfo").read_text(), reason="not such a processor"
)
def test_available_here():
    """Not by what the code says of itself: a fault of its own would skip its tests."""
    assert unavailable_reason() is None
    assert library.version().major == 3
    assert library.instruction_set_name()


@pytest.fixture
def empty_library_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_folder", lambda: tmp_path)
    library.load.cache_clear()
    yield tmp_path
    library.load.cache_clear()


def test_reason_on_another_device():
    assert "gpu:0" in unavailable_reason("gpu:0")


def test_reason_without_the_library(empty_library_folder):
    assert "comes without oneDNN" in unavailable_reason("cpu")


def test_reason_without_paddle(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)
    assert unavailable_reason("cpu") == "Paddle is not installed"


def test_reason_with_another_major_version(empty_library_folder):
    (empty_library_folder / "libdnnl.so.4").touch()
    assert "libdnnl.so.4" in unavailable_reason("cpu")


def test_reason_with_a_damaged_library(empty_library_folder):
    (empty_library_folder / "libdnnl.so.3").write_bytes(b"not a library")
    reason = unavailable_reason("cpu")
    assert "cannot be used" in reason
    assert "\n" not in reason


@needs_library
def test_reason_when_the_library_says_another_version(monkeypatch):
    monkeypatch.setattr(library, "version", lambda: library.Version(4, 0, 1))
    assert "4.0.1" in unavailable_reason("cpu")


@needs_library
def test_reason_when_a_function_is_missing(monkeypatch):
    def functions_of_another_library():
        return ctypes.CDLL(None)["dnnl_no_such_function"]

    monkeypatch.setattr("paddle_resnet.onednn.bindings.functions", functions_of_another_library)
    assert "dnnl_no_such_function" in unavailable_reason("cpu")


@needs_library
def test_reason_on_an_old_processor(monkeypatch):
    monkeypatch.setattr(library, "instruction_set", lambda: 0x1)
    assert "SSE4.1" in unavailable_reason("cpu")


def test_reason_on_another_architecture(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "aarch64" in unavailable_reason("cpu")


@needs_library
def test_reason_when_a_variable_limits_the_instruction_set():
    """The library reads the variable once, when it is first asked: in a process of its own."""
    code = "from paddle_resnet import onednn; print(onednn.unavailable_reason('cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ONEDNN_MAX_CPU_ISA=SSE41 leaves oneDNN SSE4.1 only, and these layers need AVX2\n"


@needs_library
def test_a_run_logs_its_onednn(caplog):
    network = create_model("resnet8", num_classes=3)
    accelerate(network, "auto", "cpu")
    assert isinstance(network, ChannelsLastResNet)
    (line,) = caplog.messages
    assert line.startswith(f"CPU backend: oneDNN {library.version()}, {library.instruction_set_name()}")


def test_a_fallback_logs_its_reason(caplog, empty_library_folder):
    network = create_model("resnet8", num_classes=3)
    accelerate(network, "auto", "cpu")
    assert not isinstance(network, ChannelsLastResNet)
    (line,) = caplog.messages
    assert line.startswith("CPU backend: Paddle's own operators, as Paddle ") and "comes without oneDNN" in line
    with pytest.raises(UsageError, match=r"cpu_backend onednn: .* comes without oneDNN .*; use auto or native"):
        accelerate(network, "onednn", "cpu")
