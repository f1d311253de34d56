"""Threads and BLAS path before paddle is imported; the device; seeds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_resnet import distributed, paddle_compat, runtime
from paddle_resnet.errors import UsageError
from paddle_resnet.system import machine

PROJECT = Path(__file__).resolve().parents[2]
AVX2 = {"fpu", "avx", "avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("vendor", "features", "expected"),
    [
        ("AuthenticAMD", AVX512, "7"),
        ("AuthenticAMD", AVX512 - {"avx512vl"}, "5"),
        ("AuthenticAMD", AVX2, "5"),
        ("AuthenticAMD", {"fpu", "avx"}, None),
        ("GenuineIntel", AVX512, None),
        ("", set(), None),
    ],
)
def test_mkl_path_only_where_it_helps(vendor, features, expected):
    assert runtime.mkl_path(machine.Processor(vendor, "a model", frozenset(features))) == expected


VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")


@pytest.fixture
def anew(monkeypatch):
    """Prepare the process as if for the first time, before paddle, on an AMD processor of three cores."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone after the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr(runtime, "_setup", None)
    monkeypatch.setattr(runtime, "physical_cores", lambda: 3)
    monkeypatch.setattr(machine, "processor", lambda: machine.Processor("AuthenticAMD", "a model", frozenset(AVX512)))
    monkeypatch.delitem(sys.modules, "paddle")
    return runtime.prepare_process


def test_what_is_chosen_on_an_amd_processor(anew):
    assert str(anew()) == (
        "threads OMP_NUM_THREADS=3 (the cores this process may use); "
        "BLAS path MKL_DEBUG_CPU_TYPE=7 (MKL's fast path on this AMD processor)"
    )
    assert [os.environ.get(variable) for variable in VARIABLES] == ["3", None, "7"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_of_the_user_is_kept(anew, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert f"{variable}=1 (set by you)" in str(anew())
    assert os.environ[variable] == "1"


@pytest.mark.parametrize("value", ["", "two", "2,1", "0"])
def test_threads_that_paddle_does_not_understand(anew, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert f"OMP_NUM_THREADS={value} (set by you; not a number of threads, so Paddle takes 1)" in str(anew())


@pytest.mark.parametrize(
    ("given", "threads", "origin"),
    [
        (b"HOME=/", "1", "its share of the cores, of 2 processes"),
        (b"HOME=/\0OMP_NUM_THREADS=3", "3", "set by you"),
    ],
)
def test_processes_that_were_launched_together_share_the_cores(anew, monkeypatch, tmp_path, given, threads, origin):
    """The launcher imports paddle, and so hands on OMP_NUM_THREADS, whether its user had set it or not."""
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "environ").write_bytes(given)
    monkeypatch.setattr(distributed, "FIRST_ENVIRONMENT", str(tmp_path / "environ"))
    assert f"OMP_NUM_THREADS={threads} ({origin})" in str(anew())


def in_a_new_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


SHOW = "import os, paddle_resnet as p; print(os.environ['OMP_NUM_THREADS'], p.runtime.prepare_process())"


def test_import_sets_the_threads():
    assert in_a_new_process(SHOW).startswith(f"{machine.physical_cores()} threads OMP_NUM_THREADS=")


def test_variables_of_the_user_are_kept():
    line = in_a_new_process(SHOW, OMP_NUM_THREADS="7", MKL_DEBUG_CPU_TYPE="3")
    assert line.startswith("7 threads OMP_NUM_THREADS=7 (set by you)")
    assert "MKL_DEBUG_CPU_TYPE=3 (set by you)" in line


AFTER_PADDLE = """
import paddle, paddle_resnet
from paddle_resnet.system import threads
print(threads.count(), paddle_resnet.prepare())
"""


@pytest.mark.slow
def test_paddle_imported_first_gets_its_threads():
    line = in_a_new_process(AFTER_PADDLE)
    assert line.startswith(f"{machine.physical_cores()} threads OMP_NUM_THREADS={machine.physical_cores()} (the cores")
    assert "paddle was imported first" in line
    assert "paddle was imported first" not in in_a_new_process(SHOW)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel shows what the user set")
def test_one_thread_of_the_user_stays_one():
    assert in_a_new_process(AFTER_PADDLE, OMP_NUM_THREADS="1").startswith("1 threads OMP_NUM_THREADS=1 (set by you")


@pytest.mark.slow
def test_prepare_takes_a_number_of_threads():
    code = "import paddle_resnet as p; s = p.prepare(3); import paddle_resnet.system.threads as t; print(t.count(), s)"
    assert in_a_new_process(code).startswith("3 threads OMP_NUM_THREADS=3 (set by you)")


def test_no_thread_is_refused():
    with pytest.raises(UsageError, match="threads: expected a whole number from 1 to 256, got 0"):
        runtime.prepare(0)


@pytest.mark.slow
def test_paddle_is_imported_quietly_and_zlib_works_after_it():
    """Paddle 2.6.2's own zlib symbols crash Python's (gzip, PNG) unless that is loaded first."""
    code = "import paddle_resnet; paddle_resnet.runtime.import_paddle(); import gzip; "
    code += "print(gzip.decompress(gzip.compress(b'whole')).decode())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("whole\n", "")


def test_seed_everything_repeats_all_three_generators():
    def draw():
        runtime.seed_everything(7)
        return random.random(), float(np.random.rand()), paddle.rand([1]).item()

    first = draw()
    assert draw() == first
    runtime.seed_everything(8)
    assert (random.random(), float(np.random.rand()), paddle.rand([1]).item()) != first


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="the CPU build's answer")
def test_device_on_the_cpu_build():
    assert runtime.select_device("auto") == "cpu"
    assert runtime.select_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="the installed Paddle is the CPU build"):
        runtime.select_device("gpu")


def test_unknown_device():
    with pytest.raises(UsageError, match="tpu: expected auto, cpu, gpu"):
        runtime.select_device("tpu")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("cuda_version     = 'False'\nhip_version      = None\n", True),
        ("cuda_version     = 'False'\n", True),
        ("cuda_version     = '12.6'\nhip_version      = None\n", False),
        ("cuda_version     = 'False'\nhip_version      = '5.7'\n", False),
        ("", False),
        ("cuda_version     = '12.6'\n# \xe9\n", False),
    ],
)
def test_the_version_file_tells_the_cpu_build(facts, expected, monkeypatch, tmp_path):
    (tmp_path / "paddle/version").mkdir(parents=True)
    (tmp_path / "paddle/__init__.py").write_text("raise AssertionError('paddle is imported')")
    (tmp_path / "paddle/version/__init__.py").write_text(facts, encoding="latin-1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "paddle")
    assert paddle_compat.is_cpu_build(paddle_compat.paddle_folder()) == expected


def test_the_version_file_agrees_with_the_installed_paddle():
    assert paddle_compat.is_cpu_build(paddle_compat.paddle_folder()) != paddle.device.is_compiled_with_cuda()


def test_without_paddle_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)
    assert [runtime.resolve_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="device gpu: Paddle is not installed"):
        runtime.resolve_device("gpu")


def test_a_folder_named_paddle_is_no_paddle(monkeypatch, tmp_path):
    (tmp_path / "paddle").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "paddle")
    with pytest.raises(UsageError, match="device gpu: Paddle is not installed"):
        runtime.resolve_device("gpu")


def pretend_gpus(monkeypatch, count: int) -> list[str]:
    chosen: list[str] = []
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: count)
    monkeypatch.setattr(paddle.device, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("name", "expected"), [("auto", "gpu:0"), ("gpu", "gpu:0"), ("gpu:1", "gpu:1"), ("cpu", "cpu")]
)
def test_device_with_two_gpus(monkeypatch, name, expected):
    chosen = pretend_gpus(monkeypatch, 2)
    assert runtime.select_device(name) == expected
    assert chosen == [expected]


def test_each_of_several_processes_has_its_own_gpu(monkeypatch):
    chosen = pretend_gpus(monkeypatch, 4)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("FLAGS_selected_gpus", "3")
    assert [runtime.select_device(name) for name in ("auto", "gpu", "cpu")] == ["gpu:3", "gpu:3", "cpu"] == chosen
    with pytest.raises(UsageError, match="device gpu:1: each of several processes has its own"):
        runtime.select_device("gpu:1")


def test_gpu_build_without_a_gpu_falls_back(monkeypatch):
    pretend_gpus(monkeypatch, 0)
    assert runtime.select_device("auto") == "cpu"
    with pytest.raises(UsageError, match="no GPU was found"):
        runtime.select_device("gpu:0")


def test_gpu_number_too_high(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match="gpu:1"):
        runtime.select_device("gpu:2")


def test_dynamic_threads_are_forbidden(anew, monkeypatch):
    monkeypatch.setenv("OMP_DYNAMIC", "TRUE")
    assert "OMP_DYNAMIC is set to false" in str(anew())
    assert os.environ["OMP_DYNAMIC"] == "false"
