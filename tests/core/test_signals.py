"""The first SIGINT, SIGTERM or SIGHUP ends the work where it may, a second one at once, and an ignored one nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_resnet import runtime, signals
from paddle_resnet.cli import program
from paddle_resnet.errors import Stopped

pytestmark = pytest.mark.slow
HANG_UP = getattr(signal, "SIGHUP", 1)  # collected on systems without it too

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def earlier_handlers():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (HANG_UP, 129)])
def test_only_the_first_signal_raises(number, code):
    before = signal.getsignal(number)
    with signals.stoppable():
        with pytest.raises(Stopped) as stopped:
            send(number)
        send(signal.SIGTERM)
        assert signals.received() == number
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before


def test_deferred_work_comes_to_its_end():
    done = []
    with signals.stoppable(), pytest.raises(Stopped), signals.uninterrupted():
        send(HANG_UP)
        done.append("the end of the step")
    assert done
    with signals.stoppable():
        assert signals.received() == 0
        with signals.deferred():
            send(signal.SIGTERM)
        assert signals.received() == signal.SIGTERM


def test_deferred_outside_a_command_passes_the_second_signal():
    with contextlib.suppress(Stopped), signals.deferred():
        send(signal.SIGTERM)
        assert signals.received() == signal.SIGTERM
        send(signal.SIGTERM)
        pytest.fail("the second signal did nothing")


def test_what_was_ignored_stays_ignored():
    signal.signal(HANG_UP, signal.SIG_IGN)
    with signals.stoppable():
        send(HANG_UP)
        with signals.deferred():
            send(HANG_UP)
        assert signals.received() == 0


def test_importing_paddle_leaves_signals_to_python(monkeypatch):
    """As paddle's import does, another handler is put into C behind Python's back."""
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGTERM, ctypes.c_void_p(1))  # 1: ignore
    send(signal.SIGTERM)
    assert received == []
    runtime.import_paddle()
    send(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_blocked_signals_wait():
    with signals.stoppable(), pytest.raises(Stopped):
        with signals.blocked():
            send(signal.SIGTERM)
            assert signals.received() == 0
        pytest.fail("the signal is lost")


def test_workers_ignore_signals_that_cannot_be_blocked(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    signals.ignore_in_worker()
    assert [signal.getsignal(number) for number in signals.SIGNALS] == [signal.SIG_IGN] * len(signals.SIGNALS)


TOOL = """
import os, signal, sys, time
sys.orig_argv = ["python", os.path.join({tools!r}, "made_up.py")]  # as in a command's own process
sys.path.insert(0, os.path.dirname({tools!r}))
from paddle_resnet.cli import parsing, program
program.SECONDS_TO_A_SECOND_SIGNAL = 0.0
def act(arguments):
    {body}
program.run(parsing.command_parser("A command\\n\\nthat is made up."), act)
"""


HANG = """
    import ctypes, threading
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    threading.Thread(target=lambda: [(time.sleep(0.3), libc.kill(os.getpid(), 15)) for _ in range(2)]).start()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def run_command(body, **options):
    code = TOOL.format(tools=str(PROJECT / "tools"), body=body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGHUP)", 129, "error: hung up"),
        # What compiled code makes of an exception is told as the signal that it was.
        ("\n    try: os.kill(os.getpid(), 15)\n    except BaseException: raise OSError('pages of text')", 143,
         "error: terminated"),
        # In C that never returns no handler of Python's runs: the second signal ends the process all the same.
        (HANG, 143, "error: terminated"),
    ],
)  # fmt: skip
def test_a_command_ends_with_the_code_of_its_signal(body, code, line):
    done = run_command(body)
    assert (done.returncode, done.stderr.splitlines(), done.stdout) == (code, [line], "")


HANGING = """
import ctypes, paddle_resnet.cli.models as command
from paddle_resnet import signals
def act(arguments):
    with signals.deferred():
        print("begun", flush=True)
        library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
        library.pthread_mutex_init(mutex, None)
        while True:  # compiled code that waits for itself, as threads of OpenMP for each other
            library.pthread_mutex_lock(mutex)
command.main = act
"""


@pytest.mark.posix
def test_a_second_signal_ends_a_step_that_hangs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    command = [sys.executable, "-m", "paddle_resnet", "models"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(program.SECONDS_TO_A_SECOND_SIGNAL)
        for _ in range(100):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
                break
        else:
            process.kill()
        assert process.returncode == 143
