"""The pool of processes: order, bounded memory, and processes that fail or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import worker_tasks
from worker_tasks import as_long, exit_at, refuse, slow_square

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.worker_pool import WorkerPool

pytestmark = pytest.mark.slow


def test_pool_results_are_in_order_and_bounded():
    taken = []

    def tasks():
        for number in range(12):
            taken.append(number)
            yield number

    with WorkerPool(2, slow_square, 1) as pool:
        pool.wait_until_ready()
        results = pool.results(tasks())
        first = next(results)
        assert len(taken) <= 5
        together = [first, *results]
    assert [value for _, value in together] == [number * number + 1 for number in range(12)]
    assert len({process for process, _ in together}) == 2


def test_pool_tasks_may_exceed_a_pipes_buffer():
    """A sender waits until its task is read, and a worker until its result is read: both would wait for ever."""
    found = []

    def work():
        with WorkerPool(1, as_long, 4 << 20) as pool:
            pool.wait_until_ready()
            found.extend(len(result) for result in pool.results([bytes(4 << 20)] * 4))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)
    assert found == [4 << 20] * 4


@pytest.mark.posix
def test_each_process_blocks_the_signals_of_a_terminal(project):
    """The first one too, in a program that has started none before; a terminal sends Ctrl-C to all of them."""
    program = (
        "from worker_tasks import blocked_signals\nfrom paddle_resnet.worker_pool import WorkerPool\n"
        "for _ in range(2):\n    with WorkerPool(1, blocked_signals) as pool:\n        print(*pool.results([0]))\n"
    )
    folders = {"PYTHONPATH": os.pathsep.join(map(str, (project, Path(worker_tasks.__file__).parent)))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | folders, capture_output=True, text=True, check=True
    )
    signals = sorted([signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    assert done.stdout.splitlines() == [str(signals)] * 2


def test_a_failing_pool_process_is_named():
    with WorkerPool(1, exit_at, 2) as pool, pytest.raises(RunFailure, match="code 7"):
        pool.wait_until_ready()
        list(pool.results(range(5)))
    with WorkerPool(1, refuse) as pool, pytest.raises(UsageError, match="not this model"):
        pool.wait_until_ready()


def test_a_process_that_does_not_get_ready_is_a_failure():
    with WorkerPool(1, time.sleep, 600) as pool, pytest.raises(RunFailure, match=r"not ready within 0\.1 s"):
        pool.wait_until_ready(0.1)


def test_futures_of_a_closed_pool_leave_the_next_one_alone():
    for _ in range(3):
        pool = WorkerPool(2, slow_square, 1)
        futures = [pool.submit(number) for number in range(8)]
        assert [future.result()[1] for future in futures[:4]] == [1, 2, 5, 10]
        pool.close()
        # None is cancelled: who waits for it has to hear of the end as of any other failure.
        failures = [future.exception(timeout=0) for future in futures]
        assert all(failure is None or isinstance(failure, RunFailure) for failure in failures)


def test_a_script_is_not_run_again_in_its_pool(project, tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys; sys.path[:0] = sys.argv[1:]\nprint('begun', flush=True)\n"
        "from worker_tasks import slow_square\nfrom paddle_resnet.worker_pool import WorkerPool\n"
        "with WorkerPool(1, slow_square, 0) as pool:\n    print(pool.submit(5).result()[1])\n"
    )
    command = [sys.executable, tmp_path / "script.py", project, project / "tests/helpers"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["begun", "25"]


@pytest.mark.posix
def test_pool_processes_end_with_a_killed_parent(project):
    program = (
        "import os, signal, sys; sys.path[:0] = ['.', 'tests/helpers']\n"
        "from functools import partial\nfrom paddle_resnet.worker_pool import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(1, partial, os.getpid)\n    pool.wait_until_ready()\n"
        "    print(pool._workers[0].process.pid, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60)
    child = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker process outlived its parent")
