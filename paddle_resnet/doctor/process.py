"""The process: the cores it may use, its threads and its BLAS path, as chosen before paddle was imported."""

from __future__ import annotations

import os

from paddle_resnet import runtime
from paddle_resnet.doctor.section import Section
from paddle_resnet.errors import counted
from paddle_resnet.system import machine

SLOWING = {"KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive"}
"""These let waiting threads sleep, which then wake too late for a network's short operations (half the speed)."""


def examine_process() -> Section:
    """Examine what `runtime.prepare_process` found and chose."""
    section = Section("process")
    setup, cores = runtime.prepare_process(), machine.cores()
    quota = "no limit of time" if cores.quota is None else f"time for {cores.quota:g} granted by its control group"
    section.add(
        "cores",
        f"{cores.usable} usable: {cores.machine} in the machine, {cores.affinity} allowed by affinity, {quota}",
        {"usable": cores.usable, **cores._asdict()},
    )
    section.add("threads", str(setup.threads), setup.threads.value)
    if setup.blas_threads.preset:
        section.add("BLAS threads", str(setup.blas_threads), setup.blas_threads.value)
    section.add("BLAS path", str(setup.blas_path))
    section.advice += _about_cores(cores) + _about_threads(setup, cores.usable) + _about_blas_path(setup)
    section.advice += [
        f"{variable}={value} is set, which may halve the speed of training: unset it"
        for variable, value in SLOWING.items()
        if os.environ.get(variable, "").lower() == value
    ]
    if setup.paddle_was_imported:
        section.advice.append(
            "paddle was imported before paddle_resnet, too early for the BLAS path: import paddle_resnet first"
        )
    return section


def _about_cores(cores: machine.Cores) -> list[str]:
    advice = []
    if cores.affinity < cores.machine:
        advice.append(
            f"affinity allows {cores.affinity} of the machine's {cores.machine} cores: start without taskset, or ask "
            "the batch system for more"
        )
    if cores.quota is not None and cores.usable < cores.affinity:
        advice.append(
            f"the control group grants the time of {cores.quota:g} of {cores.affinity} cores: raise the container's "
            "CPU limit (docker run --cpus)"
        )
    return advice


def _about_threads(setup: runtime.ProcessSetup, usable: int) -> list[str]:
    advice = []
    for setting in (setup.threads, setup.blas_threads):
        if not setting.preset:
            continue
        threads = runtime.thread_count(setting)
        if threads is None:
            advice.append(f"{setting.variable}={setting.value} is not a number of threads: unset it")
        elif threads < usable and not setup.paddle_was_imported:
            advice.append(f"{setting.variable}={threads} is set, but {usable} cores are free to this process: unset it")
        elif threads > usable:
            advice.append(
                f"{setting.variable}={threads} is set, but this process has {counted(usable, 'core')}: unset it"
            )
    return advice


def _about_blas_path(setup: runtime.ProcessSetup) -> list[str]:
    setting, best = setup.blas_path, runtime.mkl_path(machine.processor())
    if not setting.preset or setting.value == best:
        return []
    better = "MKL chooses best itself" if best is None else f"{best} is the fast one"
    return [f"{setting.variable}={setting.value} is set, and on this processor {better}: unset it"]
