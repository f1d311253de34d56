"""The cores, the processor and the memory of machines whose kernel files are written here."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from paddle_resnet.system import machine

FOUR_CORES = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 2: "2,6", 6: "2,6", 3: "3,7", 7: "3,7"}
NO_LIMIT_OF_VERSION_1 = "9223372036854771712"


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Write the kernel's files of a machine; all else is missing."""
    for name in ("CPU_INFO", "CPU_TOPOLOGY", "MEMORY_INFO", "CGROUP", "CGROUPS_OF_PROCESS"):
        monkeypatch.setattr(machine, name, tmp_path / name)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


@pytest.fixture
def four_cores(kernel, monkeypatch):
    """Four cores of two hyper-threads each; the process may run on the processors given."""

    def allow(processors=tuple(FOUR_CORES)):
        kernel({f"CPU_TOPOLOGY/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in FOUR_CORES.items()})
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(processors), raising=False)

    return allow


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"CGROUP/cpu.max": "200000 100000"}, 2),
        ({"CGROUP/cpu.max": "max 100000"}, 4),
        ({"CGROUP/cpu.max": "50000 100000"}, 1),
        ({"CGROUP/cpu.max": "250000 100000"}, 2),
        ({"CGROUP/cpu/cpu.cfs_quota_us": "300000", "CGROUP/cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"CGROUP/cpu/cpu.cfs_quota_us": "-1", "CGROUP/cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_cores_under_a_containers_limit(kernel, four_cores, files, expected):
    four_cores()
    kernel(files)
    assert machine.physical_cores() == expected


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/batch/job", {"CGROUP/batch/job/cpu.max": "150000 100000"}, 1.5),
        ("0::/batch/job", {"CGROUP/batch/job/cpu.max": "max 100000", "CGROUP/batch/cpu.max": "300000 100000"}, 3),
        ("0::/batch/job", {"CGROUP/batch/job/cpu.max": "200000 100000", "CGROUP/batch/cpu.max": "400000 100000"}, 2),
        ("0::/batch/job", {"CGROUP/batch/other/cpu.max": "100000 100000"}, None),
        ("0::/../outside", {"CGROUP/cpu.max": "200000 100000"}, 2),
        ("1:name=systemd:/x\n0::/job", {"CGROUP/unified/job/cpu.max": "200000 100000"}, 2),
        (
            "4:cpu,cpuacct:/job\n3:memory:/other",
            {"CGROUP/cpu,cpuacct/job/cpu.cfs_quota_us": "100000", "CGROUP/cpu,cpuacct/job/cpu.cfs_period_us": "50000"},
            2,
        ),
        (
            "4:cpuset:/job",
            {"CGROUP/cpu/job/cpu.cfs_quota_us": "100000", "CGROUP/cpu/job/cpu.cfs_period_us": "50000"},
            None,
        ),
    ],
)
def test_limits_of_nested_control_groups(kernel, four_cores, groups, files, quota):
    four_cores()
    kernel({"CGROUPS_OF_PROCESS": groups, **files})
    assert machine.cores() == (4, 4, quota)


@pytest.mark.parametrize(("processors", "affinity"), [((0, 4), 1), ((0, 1), 2), ((0, 1, 5), 2)])
def test_affinity_counts_cores_not_hyper_threads(four_cores, processors, affinity):
    four_cores(processors)
    assert machine.cores() == (4, affinity, None)


def test_without_topology_every_processor_is_a_core(kernel, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert machine.cores() == (3, 3, None)


@pytest.mark.parametrize(
    ("physical", "affinity", "cores"), [(4, range(8), 4), (4, range(2), 2), (None, range(8), 8), (4, None, 4)]
)
def test_cores_of_systems_without_a_kernel_that_tells(kernel, monkeypatch, physical, affinity, cores):
    """Windows has both numbers, macOS no affinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    process = type("Process", (), {"cpu_affinity": lambda self: list(affinity)} if affinity else {})
    stand_in = SimpleNamespace(cpu_count=lambda logical: physical, Process=process)
    monkeypatch.setitem(sys.modules, "psutil", stand_in)
    assert machine.physical_cores() == cores
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine.physical_cores() == 8


def test_processor(kernel):
    kernel({"CPU_INFO": "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC 1\nflags\t\t: fpu avx2 fma\n\n"})
    assert machine.processor() == ("AuthenticAMD", "EPYC 1", {"fpu", "avx2", "fma"})


def test_processor_of_a_kernel_without_the_file(kernel):
    assert machine.processor().vendor == ""
    assert machine.processor().features == set()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8192000),
        ({"CGROUP/memory.max": "4096000"}, 4096000),
        ({"CGROUP/memory.max": "max"}, 8192000),
        ({"CGROUP/memory/memory.limit_in_bytes": NO_LIMIT_OF_VERSION_1}, 8192000),
    ],
)
def test_free_memory(kernel, files, expected):
    kernel({"MEMORY_INFO": "MemTotal:   16000 kB\nMemFree:  1 kB\nMemAvailable:   8000 kB", **files})
    assert machine.free_memory() == expected


def test_free_memory_where_the_kernel_does_not_tell(kernel, monkeypatch):
    stand_in = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=123))
    monkeypatch.setitem(sys.modules, "psutil", stand_in)
    assert machine.free_memory() == 123
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine.free_memory() is None
