"""What the tests share: the project on the path, a process prepared before paddle is imported, marks."""

from __future__ import annotations

import gc
import io
import logging
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from paddle_resnet.training import Run

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

# Two threads on every machine, so that sums are taken in the same order; before the import below, which prepares BLAS.
THREADS_ARE_FREE = "OMP_NUM_THREADS" not in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Figures are drawn into files: no test may depend on a display.
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of what a shell starts in the background; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import paddle_resnet  # noqa: E402, F401

# Folders and files whose code imports no Paddle: with every Paddle they say the same, so one of them is enough.
WITHOUT_PADDLE = (
    "config/",
    "core/test_download.py",
    "core/test_errors.py",
    "core/test_files.py",
    "core/test_worker_pool.py",
    "images/test_find.py",
    "inference/test_adaptive_threads.py",
    "inference/test_find_pictures.py",
    "inference/test_prediction_files.py",
    "lessons/test_lesson_texts.py",
    "project/test_architecture.py",
    "project/test_documents.py",
    "project/test_fuzz_readers.py",
    "project/test_no_paddle.py",
    "project/test_requirements.py",
    "project/test_setup_scripts.py",
    "service/test_inference_workers.py",
    "service/test_service.py",
    "service/test_service_errors.py",
    "service/test_service_hostile.py",
    "service/test_service_limits.py",
    "service/test_service_protocol.py",
    "service/test_service_queue.py",
    "system/test_machine.py",
    "system/test_streams.py",
)

# Lessons whose pages train for long. Their claims are about networks, not about a Paddle; what they need of Paddle is
# tested without the page, in the same files, with both.
LONG_LESSONS = (
    *("degradation", "depth", "fashion_mnist", "gradients", "grouped_convolution", "lenet"),
    *("normalization", "optimizers_and_schedules", "receptive_field", "transfer", "what_it_sees"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Give one thread to each worker of pytest-xdist: they inherit this process's environment."""
    if THREADS_ARE_FREE and config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the lists above; skip those that need a GPU, POSIX or Ray where there is none.

    Slow files come first, so that no process of pytest-xdist has a long one left when the others are done.
    """
    items.sort(key=lambda item: item.getparent(pytest.Module).get_closest_marker("slow") is None)
    no_ray = "Ray is not installed (requirements/ray.txt)" if find_spec("ray") is None else ""
    if "PYTEST_XDIST_WORKER" in os.environ:
        no_ray = no_ray or "a Ray cluster needs the machine for itself: pytest -m ray"
    for item in items:
        if item.path.relative_to(PROJECT / "tests").as_posix().startswith(WITHOUT_PADDLE):
            item.add_marker("no_paddle")
            item.add_marker("once")
        if "page" in item.fixturenames and item.path.stem.removeprefix("test_lesson_") in LONG_LESSONS:
            item.add_marker("once")
        if item.get_closest_marker("posix") and not hasattr(os, "fork"):
            item.add_marker(pytest.mark.skip(reason="this system is not POSIX"))
        if no_ray and item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.skip(reason=no_ray))
    need_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not need_gpu:
        return
    reason = _why_no_gpu()
    if reason:
        for item in need_gpu:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Leave what is there before the first test, modules above all, out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def _why_no_gpu() -> str:
    """Why Paddle cannot use a GPU here; empty where it can."""
    import paddle

    if not paddle.device.is_compiled_with_cuda():
        return f"paddlepaddle {paddle.__version__} is a CPU build"
    if paddle.device.cuda.device_count() == 0:
        return f"paddlepaddle-gpu {paddle.__version__} finds no GPU"
    return ""


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@dataclass(frozen=True)
class CompletedTool:
    """How a tool ended, and everything it printed."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def tool() -> Callable[..., CompletedTool]:
    """Run a tool of `tools/` in this process, where a test can replace what the tool uses.

    ``tool("train", "-c", path, "--debug")`` is ``python tools/train.py -c path --debug`` on a command line; arguments
    that are no text, as paths and numbers, become text. Fixtures of any scope may run tools. A tool that does not end
    by SystemExit, as each does through `cli.program.run`, fails the test.
    """
    return _run_tool


def _run_tool(name: str, *arguments: object) -> CompletedTool:
    script = PROJECT / "tools" / f"{name}.py"
    # Not capsys, which fixtures of a module cannot have.
    stdout, stderr = _text_stream(), _text_stream()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [f"tools/{script.name}", *map(str, arguments)])
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        patch.setattr("paddle_resnet.errors._command_form", ["paddle-resnet {}".format])  # the tool sets its own
        patch.syspath_prepend(str(script.parent))
        runpy.run_path(str(script), run_name="__main__")
    return CompletedTool(int(ended.value.code or 0), _written(stdout), _written(stderr))


def _text_stream() -> io.TextIOWrapper:
    """A stream in memory that refuses what UTF-8 cannot encode, as a terminal does and io.StringIO does not."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")


def _written(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `evaluate` draw nothing, which takes longer than all else of a small run."""
    for draw in ("draw_split_plots", "draw_history_plot"):
        monkeypatch.setattr(f"paddle_resnet.evaluation.run_plots.{draw}", lambda *_: {})


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run with random weights and its float32 export, for tests that leave both as they are."""
    from tiny_run import make_run

    from paddle_resnet.exporting import export

    run = make_run(tmp_path_factory.mktemp("exported"))
    export(run)
    return run


@pytest.fixture(autouse=True)
def paddle_out_of_reach(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an import of Paddle fail in a test of `WITHOUT_PADDLE`, also after other tests have imported it."""
    if request.node.get_closest_marker("no_paddle"):
        monkeypatch.setitem(sys.modules, "paddle", None)


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    """What a tool, run within a test, makes of the process's log lines ends with that test."""
    loggers = [logging.getLogger(name) for name in ("paddle_resnet", "uvicorn", "uvicorn.error")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True
