"""Paddle itself, the device it computes on, and the oneDNN library it carries."""

from __future__ import annotations

import os

from paddle_resnet import runtime
from paddle_resnet.doctor.hardware import driver_sees_gpu
from paddle_resnet.doctor.section import Section
from paddle_resnet.doctor.software import installed_builds


def examine_paddle() -> Section:
    """Examine Paddle; the section is not `usable` if Paddle cannot be imported or computes wrongly."""
    section = Section("Paddle")
    problem = _import_problem() or _product_problem()
    if problem is not None:
        section.add("usable", f"no: {problem}", False)
        builds = [f"--force-reinstall {build}=={version}" for build, version in installed_builds().items()]
        section.advice.append(f"{problem}: python -m pip install {builds[0] if builds else '-r requirements.txt'}")
        section.usable = False
        return section
    import paddle

    section.add("usable", f"yes, {paddle.__version__}", True)
    _device(section)
    _onednn(section)
    return section


def _import_problem() -> str | None:
    try:
        runtime.import_paddle()
    except ModuleNotFoundError as error:
        if error.name == "paddle":
            return "Paddle is not installed"
        return f"Paddle cannot be imported, as {error.name} is missing"
    except Exception as error:  # whatever is wrong with the installation
        return f"Paddle cannot be imported ({_in_one_line(error)})"
    return None


def _product_problem() -> str | None:
    """Return why a product of two matrices fails or is wrong; None if it is right."""
    try:
        import paddle

        ones = paddle.ones([2, 2])
        product = (ones @ ones).numpy()
    except Exception as error:
        return f"Paddle does not compute ({_in_one_line(error)})"
    return None if (product == 2).all() else f"Paddle computes wrongly (2 is expected, found {product.tolist()})"


def _in_one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _device(section: Section) -> None:
    import paddle

    gpu_build = paddle.device.is_compiled_with_cuda()
    gpus = paddle.device.cuda.device_count() if gpu_build else 0
    names = [paddle.device.cuda.get_device_name(index) for index in range(gpus)]
    details = ", ".join(["GPU build" if gpu_build else "CPU build", *names])
    section.add("device", f"{'gpu:0' if gpus else 'cpu'} ({details})", {"gpu_build": gpu_build, "gpus": names})
    if gpu_build and not gpus:
        section.advice.append(
            "this is Paddle's GPU build, and it finds no GPU: check that nvidia-smi lists one, or install the CPU "
            "build of requirements.txt"
        )
    elif not gpu_build and driver_sees_gpu():
        section.advice.append(
            "nvidia-smi lists a GPU, and this is Paddle's CPU build: requirements/gpu.txt says which build uses it"
        )


def _onednn(section: Section) -> None:
    from paddle_resnet import onednn
    from paddle_resnet.onednn import library

    try:
        section.add(
            "oneDNN", library.description(), {"version": str(library.version()), "isa": library.instruction_set_name()}
        )
        carried = library.version().major == library.MAJOR_VERSION
    except (OSError, AttributeError):
        section.add("oneDNN", "not found", {"version": None, "isa": None})
        carried = False
    if not carried and onednn.platform_reason() is None:
        section.advice.append(
            f"this Paddle does not carry oneDNN {library.MAJOR_VERSION}, which makes training on the CPU fast; that of "
            "requirements.txt does, on Linux and x86-64: reinstall it"
        )
    reason = onednn.unavailable_reason("cpu")
    text = "usable" if reason is None else f"not usable: {reason}"
    section.add("oneDNN layers", text, {"usable": reason is None, "reason": reason})
    section.advice += [
        f"{variable}={os.environ[variable]} keeps oneDNN from the processor's newer instructions: unset it"
        for variable in library.ISA_LIMITS
        if variable in os.environ
    ]
