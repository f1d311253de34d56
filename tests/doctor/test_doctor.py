"""The examination of machine and environment: what it finds, what it advises, and that nothing missing stops it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from paddle_resnet import doctor, runtime
from paddle_resnet.doctor import hardware, paddle_build, software, speed
from paddle_resnet.onednn import library, unavailable_reason
from paddle_resnet.system import machine

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
DOCTOR = PROJECT / "tools" / "doctor.py"
needs_library = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def short_check(monkeypatch):
    """One timed run of each product; the figures are not looked at."""
    monkeypatch.setattr(speed, "SECONDS", 0)


def in_a_new_process(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, *library.ISA_LIMITS)}
    return subprocess.run([sys.executable, *command], cwd=PROJECT, env=kept | variables, capture_output=True, text=True)


def report_of(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- The whole report ---


@pytest.mark.once
def test_the_report_fits_80_columns(tool):
    done = tool("doctor")
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    titles = re.findall(r"^\S.*$", done.stdout, re.MULTILINE)
    assert titles[:5] == ["software", "machine", "process", "Paddle", "speed"]
    assert titles[5] in ("what to change", "nothing to change")
    product = f"Paddle          paddlepaddle {paddle.__version__}"
    assert product in done.stdout.replace("paddlepaddle-gpu", "paddlepaddle")


@needs_library
def test_json_is_for_programs(tool):
    done = tool("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report["usable"] is True
    assert report["software"]["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["Paddle"]["oneDNN"] == {"version": str(library.version()), "isa": library.instruction_set_name()}
    assert report["Paddle"]["oneDNN layers"] == {"usable": True, "reason": None}
    assert all(report["speed"][name] > 0 for name in ("matrix product", "convolution", "with oneDNN"))


def test_the_check_leaves_the_device_as_it_was(monkeypatch):
    chosen = []
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device, "set_device", chosen.append)
    speed.examine_speed()
    assert chosen == ["cpu", "gpu:0"]


def test_rate_counts_multiplications_and_additions(monkeypatch):
    monkeypatch.setattr(speed, "_fastest", lambda work: 1.0)
    outputs, inputs_of_each = 32 * 16 * 16 * 64, 3 * 3 * 64
    forward = outputs * inputs_of_each * 2  # a multiplication and an addition
    step = speed._convolution_step(paddle.nn.Conv2D, [32, 64, 16, 16])
    assert speed._convolution_rate(step) == pytest.approx(3 * forward / 1e9)


# --- Nothing missing stops it ---


def test_without_any_package():
    done = in_a_new_process("-S", str(DOCTOR))
    assert done.returncode == 1
    assert "Paddle is not installed" in done.stdout and "numpy is missing" in " ".join(done.stdout.split())
    assert done.stderr == "error: Paddle is not installed: python -m pip install -r requirements.txt\n"


def test_without_any_package_for_programs():
    report = json.loads(in_a_new_process("-S", str(DOCTOR), "--json").stdout)
    assert report["usable"] is False
    assert report["software"]["packages"]["visualdl"] is None
    assert "speed" not in report


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'x'", name="setuptools"), "as setuptools is missing"),
        (ImportError("libdnnl.so.3: cannot open\nmore"), r"\(ImportError: libdnnl.so.3: cannot open\)"),
        (RuntimeError(), r"\(RuntimeError: \)"),
    ],
)
def test_a_paddle_that_cannot_be_imported(tool, monkeypatch, error, words):
    def fail():
        raise error

    monkeypatch.setattr(runtime, "import_paddle", fail)
    monkeypatch.setattr(software, "package_version", {"paddlepaddle": "3.0"}.get)
    done = tool("doctor")
    assert done.exit_code == 1
    remedy = r"python -m pip install --force-reinstall paddlepaddle==3\.0"
    assert re.fullmatch(rf"error: Paddle cannot be imported,? {words}: {remedy}\n", done.stderr)
    assert "\nspeed\n" not in done.stdout


def test_a_paddle_that_does_not_compute(monkeypatch):
    monkeypatch.setattr(paddle, "ones", lambda shape: paddle.full(shape, 3.0))
    section = paddle_build.examine_paddle()
    assert not section.usable and "computes wrongly" in section.advice[0]


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        (
            {"matplotlib": None, "visualdl": None},
            "matplotlib is missing, visualdl is missing: .*requirements/common.txt",
        ),
        ({"pydantic": "1.10.2"}, "pydantic 1.10.2 is not >=2.7,<3: .*requirements/common.txt"),
        ({"paddlepaddle": "2.6.2", "numpy": "2.2.6"}, "numpy 2.2.6 is not >=1.26,<2: .*requirements/paddle2.txt"),
        ({"paddlepaddle": "2.6.2", "setuptools": None}, "setuptools is missing: .*requirements/common.txt"),
        ({"paddlepaddle-gpu": "2.6.2"}, "both paddlepaddle and paddlepaddle-gpu are installed"),
        ({"rich": "14.1.0"}, None),
    ],
)
def test_packages_against_the_requirements(monkeypatch, versions, words):
    fitting = {"numpy": "1.26.4", "matplotlib": "3.9.0", "pillow": "11.3.0", "pydantic": "2.8.0", "pyyaml": "6.0.2"}
    fitting |= {"rich": "13.9.0", "scikit-learn": "1.5.0", "visualdl": "2.5.3", "paddlepaddle": "3.3.1"}
    fitting |= {"pandas": "2.2.0", "setuptools": "70.0", "safetensors": "0.5.0"}
    fitting |= {"filelock": "3.20.0", "psutil": "6.1.0"}
    monkeypatch.setattr(software, "package_version", (fitting | versions).get)
    advice = [
        line for line in software.examine_software(PROJECT / "requirements").advice if not line.startswith("Python")
    ]
    assert len(advice) == (words is not None)
    assert words is None or re.search(words, advice[0])


# --- Threads, cores and BLAS path ---


def examined_process(monkeypatch, cores=(4, 4, None), first=False, vendor="GenuineIntel", **variables):
    """Advice for a process with these variables of the user's, prepared anew."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone after the test
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "cores", lambda: machine.Cores(*cores))
    monkeypatch.setattr(machine, "processor", lambda: machine.Processor(vendor, "x", frozenset({"avx2", "fma"})))
    monkeypatch.setattr(runtime, "physical_cores", lambda: machine.Cores(*cores).usable)
    monkeypatch.setattr(runtime, "_setup", None)
    if not first:
        monkeypatch.delitem(sys.modules, "paddle")
    return hardware.examine_process()


@pytest.mark.parametrize(
    ("situation", "words"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "4"}, None),
        ({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1 is set, but 4 cores are free to this process: unset it"),
        ({"OMP_NUM_THREADS": "8"}, "OMP_NUM_THREADS=8 is set, but this process has 4 cores: unset it"),
        ({"OMP_NUM_THREADS": "4,2"}, "OMP_NUM_THREADS=4,2 is not a number of threads: unset it"),
        ({"MKL_NUM_THREADS": "2"}, "MKL_NUM_THREADS=2 is set, but 4 cores are free to this process: unset it"),
        ({"cores": (4, 1, None)}, "affinity allows 1 of the machine's 4 cores"),
        ({"cores": (4, 4, 1.5)}, "the control group grants the time of 1.5 of 4 cores"),
        ({"cores": (4, 4, 16.0)}, None),
        ({"MKL_DEBUG_CPU_TYPE": "5"}, "MKL_DEBUG_CPU_TYPE=5 is set, and on this processor MKL chooses best itself"),
        ({"MKL_DEBUG_CPU_TYPE": "5", "vendor": "AuthenticAMD"}, None),
        ({"MKL_DEBUG_CPU_TYPE": "4", "vendor": "AuthenticAMD"}, "on this processor 5 is the fast one"),
        ({"KMP_BLOCKTIME": "0"}, "KMP_BLOCKTIME=0 is set, which may halve the speed"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "OMP_WAIT_POLICY=passive is set"),
        ({"OMP_NUM_THREADS": "1", "first": True}, "paddle was imported before paddle_resnet"),
    ],
)
def test_advice_on_the_process(monkeypatch, situation, words):
    advice = examined_process(monkeypatch, **situation).advice
    assert len(advice) == (words is not None)
    assert words is None or words in advice[0]


@pytest.mark.once
def test_one_core_of_many():
    one_core = "import os, runpy, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    report = report_of(in_a_new_process("-c", one_core + run_doctor()))
    assert report["process"]["threads"] == "1"
    assert report["process"]["cores"]["usable"] == 1
    more = report["process"]["cores"]["machine"] > 1
    assert any("affinity allows 1 of" in line for line in report["advice"]) == more


def test_paddle_imported_first():
    report = report_of(in_a_new_process("-c", "import paddle, runpy, sys; " + run_doctor()))
    assert report["process"]["threads"] == str(machine.physical_cores())
    assert any("paddle was imported before paddle_resnet" in line for line in report["advice"])


def run_doctor() -> str:
    paths = [str(DOCTOR.parents[1]), str(DOCTOR.parent)]
    return (
        f"sys.path[:0] = {paths!r}; sys.argv = ['doctor.py', '--json']; "
        f"from paddle_resnet.doctor import speed; speed.SECONDS = 0; "
        f"runpy.run_path({str(DOCTOR)!r}, run_name='__main__')"
    )


# --- oneDNN ---


@needs_library
def test_an_instruction_set_too_old():
    code = "import runpy, sys; " + run_doctor()
    report = report_of(in_a_new_process("-c", code, ONEDNN_MAX_CPU_ISA="SSE41", OMP_NUM_THREADS="1"))
    assert report["process"]["threads"] == "1"
    assert report["Paddle"]["oneDNN"]["isa"] == "SSE4.1"
    reason = "ONEDNN_MAX_CPU_ISA=SSE41 leaves oneDNN SSE4.1 only, and these layers need AVX2"
    assert report["Paddle"]["oneDNN layers"] == {"usable": False, "reason": reason}
    assert "with oneDNN" not in report["speed"]
    assert any(line.startswith("ONEDNN_MAX_CPU_ISA=SSE41 keeps oneDNN from") for line in report["advice"])
    assert any(line.startswith(f"training uses Paddle's own layers, as {reason}") for line in report["advice"])


def test_no_library(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_folder", lambda: tmp_path)
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    sections = {section.title: section for section in doctor.examine(PROJECT / "requirements")}
    assert sections["Paddle"].values["oneDNN"] == {"version": None, "isa": None}
    assert "does not carry oneDNN 3" in sections["Paddle"].advice[-1]
    assert "comes without oneDNN" in sections["speed"].advice[-1]
    assert "with oneDNN" not in sections["speed"].values


@needs_library
def test_another_major_version(monkeypatch):
    monkeypatch.setattr(library, "version", lambda: library.Version(4, 1, 0))
    section = paddle_build.examine_paddle()
    assert section.values["oneDNN"]["version"] == "4.1.0"
    assert section.values["oneDNN layers"]["reason"].startswith("Paddle's oneDNN is 4.1.0")
    assert "does not carry oneDNN 3" in section.advice[-1]


# --- Device, memory, disk, home ---


def test_gpu_build_without_a_gpu(monkeypatch):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    section = paddle_build.examine_paddle()
    assert section.values["device"] == {"gpu_build": True, "gpus": []}
    assert "this is Paddle's GPU build, and it finds no GPU" in section.advice[0]


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="the CPU build's advice")
@pytest.mark.parametrize(("says", "seen"), [("GPU 0: Stand-in (UUID: GPU-0)", True), ("No devices were found", False)])
def test_cpu_build_beside_a_gpu(monkeypatch, tmp_path, says, seen):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{says}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("nvidia-smi lists a GPU" in line for line in paddle_build.examine_paddle().advice) == seen


def test_little_memory_and_disk(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1_500_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 400_000_000}))
    section = hardware.examine_hardware()
    assert section.values["free memory"] == 1_500_000_000
    assert "only 1.5 GB of memory are free" in section.advice[0]
    assert "only 0.4 GB of disk are free" in section.advice[1]


def test_a_home_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    section = hardware.examine_hardware()
    assert section.values["home"] == {"writable": False}
    assert "is not writable" in section.advice[-1]


@pytest.mark.once
def test_a_busy_machine(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert "the load was 3.0 on 4 processors" in speed.examine_speed().advice[0]


def test_no_advice_where_onednn_is_impossible(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_folder", lambda: tmp_path)
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    sections = {section.title: section for section in doctor.examine(PROJECT / "requirements")}
    assert "x86-64" in sections["Paddle"].values["oneDNN layers"]["reason"]
    assert not [line for section in sections.values() for line in section.advice if "oneDNN" in line]


@pytest.mark.once
def test_a_user_without_a_home(monkeypatch):
    def unknown(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(Path, "expanduser", unknown)
    sections = {section.title: section for section in doctor.examine(PROJECT / "requirements")}
    assert any("set HOME" in line for section in sections.values() for line in section.advice)


def test_fewer_threads_are_advised_where_they_are_faster(monkeypatch):
    monkeypatch.setattr(speed.threads, "usable", lambda: [2, 1])
    monkeypatch.setattr(speed.threads, "can_change", lambda: True)
    monkeypatch.setattr(speed.threads, "fastest", lambda works: (1, {2: 0.9, 1: 0.1}))
    section = speed.Section("speed")
    speed._compare_threads(section, lambda: None)
    assert section.values["threads"] == {2: 1.0, 1: 9.0}
    assert "1 thread is 9.0 times as fast as 2" in section.advice[0]
    assert "unset OMP_NUM_THREADS" in section.advice[0]  # the tests set it
