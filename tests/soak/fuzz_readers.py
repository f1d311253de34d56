"""Damaged and hostile files to every reader: whether it raises, crashes, hangs or takes memory as no reader may.

    python tests/soak/fuzz_readers.py --cases 50000 [--readers png,jpeg] [--seed 1] [--keep failures/]
    python tests/soak/fuzz_readers.py --replay failures/png-123 --readers png

Case N of a reader is the same file for the same seed. A child process reads the files one after another; this one
starts it again after a crash or a hang. A case fails on an exception that is not the project's own, on 5 s of
processor time, on 60 s without an end, and on 500 MB beyond what the child had before. Exit status 1: some did.
The files of .npz are not here: the package reads none.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[2]),
    str(Path(__file__).resolve().parents[1] / "helpers"),
]

import fuzz_mutators  # noqa: E402
import fuzz_targets  # noqa: E402

PROCESSOR_SECONDS, WALL_SECONDS = 5.0, 60.0
MEMORY_BYTES = 500 << 20
START_SECONDS = 300.0


@dataclass
class Row:
    """What became of a reader's cases."""

    ends: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


# --- the child


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    return 0


def case_data(target: fuzz_targets.Target, name: str, seed: int, case: int) -> bytes:
    """The file of a case."""
    return fuzz_mutators.mutated(target.seeds, target.mutators, random.Random(f"{seed} {name} {case}"))


def _end_of(read: fuzz_targets.Read, data: bytes) -> str:
    from paddle_resnet.errors import PaddleResNetError

    try:
        read(data)
    except PaddleResNetError as error:
        if _has_memory_error(error):
            return "memory: refused"
        text = str(error)
        return "refused" if len(text) < 2000 and "\n" not in text else f"foreign: a message of {len(text)} characters"
    except MemoryError:
        return "memory: refused"
    except BaseException as error:
        return f"foreign: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return "accepted"


def _has_memory_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def child(name: str, seed: int, first: int, last: int, folder: Path, replay: Path | None) -> None:
    """Read the cases; write ``begin N`` before each and its end after it."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    target = fuzz_targets.make(name, folder)
    if "accepted" not in [_end_of(target.read, data) for data in target.seeds]:
        raise ValueError(f"{name}: no file is read before it is damaged, so that damage tells nothing")
    limit = _status("VmData") + MEMORY_BYTES
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for case in range(first, last):
        data = replay.read_bytes() if replay else case_data(target, name, seed, case)
        print("begin", case, file=out)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        end = _end_of(target.read, data)
        grown = _status("VmHWM") - before
        if grown > MEMORY_BYTES:
            end = "memory: grew"
        print("end", case, grown, end, file=out)
    print("done", file=out)


# --- the parent


def _processor_seconds(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def run_reader(name: str, cases: int, seed: int = 0, replay: Path | None = None) -> Row:
    """Give a reader so many files."""
    row, first = Row(), 0
    while first < cases:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--child", name, str(seed), str(first), str(cases), folder]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                command + ([str(replay)] if replay else []), stdout=subprocess.PIPE, env=environment
            ) as process:
                first = _follow(process, row, first)
    return row


def _follow(process: subprocess.Popen[bytes], row: Row, first: int) -> int:
    """Take a child's reports until it ends; return the case that comes next."""
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    began, used, running, done = time.monotonic(), 0.0, -1, False
    while True:
        if select.select([descriptor], [], [], 0.5)[0]:
            block = os.read(descriptor, 1 << 16)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            for line in map(bytes.decode, lines):
                word, _, text = line.partition(" ")
                if word == "begin":
                    running = int(text)
                elif word == "end":
                    case, grown, end = text.split(" ", 2)
                    running, first, row.peak = -1, int(case) + 1, max(row.peak, int(grown))
                    _count(row, int(case), end)
                done = done or word == "done"
            began, used = time.monotonic(), _processor_seconds(process.pid)
            continue
        limit = WALL_SECONDS if running >= 0 else START_SECONDS
        if (
            running >= 0 and _processor_seconds(process.pid) - used > PROCESSOR_SECONDS
        ) or time.monotonic() - began > limit:
            process.kill()
            process.wait()
            _count(row, max(running, first), "hang" if running >= 0 else "crash: no case was begun")
            return max(running, first) + 1
    code = process.wait()
    if done:
        return first
    _count(row, max(running, first), f"crash: status {code}")
    return max(running, first) + 1


def _count(row: Row, case: int, end: str) -> None:
    kind = end.partition(":")[0]
    row.ends[kind] += 1
    if kind not in ("accepted", "refused"):
        row.failures.append((case, end))


def table(rows: dict[str, Row]) -> str:
    """The counts, a line a reader."""
    kinds = ("accepted", "refused", "foreign", "crash", "hang", "memory")
    lines = [f"{'reader':16}{'cases':>9}" + "".join(f"{kind:>10}" for kind in kinds) + f"{'peak MB':>10}"]
    for name, row in rows.items():
        counts = "".join(f"{row.ends[kind]:>10,}" for kind in kinds)
        lines.append(f"{name:16}{sum(row.ends.values()):>9,}{counts}{row.peak / 2**20:>10.0f}")
    totals = sum((row.ends for row in rows.values()), Counter())
    counts = "".join(f"{totals[kind]:>10,}" for kind in kinds)
    peak = max((row.peak for row in rows.values()), default=0)
    return "\n".join([*lines, f"{'all':16}{sum(totals.values()):>9,}{counts}{peak / 2**20:>10.0f}"])


def _keep(name: str, row: Row, seed: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp())
    target = fuzz_targets.make(name, work)
    for case, _ in row.failures[:50]:
        (folder / f"{name}-{case}").write_bytes(case_data(target, name, seed, case))
    shutil.rmtree(work)


def main() -> int:
    """Read, and report; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50_000, help="of all readers together")
    parser.add_argument("--readers", default=",".join(fuzz_targets.names()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that fail")
    parser.add_argument("--replay", type=Path, help="one file, to the first of --readers")
    options = parser.parse_args()
    names = options.readers.split(",")
    rows: dict[str, Row] = {}
    for name in names[:1] if options.replay else names:
        cases = 1 if options.replay else -(-options.cases // len(names))
        row = rows[name] = run_reader(name, cases, options.seed, options.replay)
        for end, number in Counter(end for _, end in row.failures).most_common(8):
            example = next(case for case, each in row.failures if each == end)
            print(f"{name}: {number} x {end} (first: case {example})", flush=True)
        if options.keep and row.failures and not options.replay:
            _keep(name, row, options.seed, options.keep)
        print(table({name: row}).splitlines()[1], flush=True)
    print(table(rows))
    return 1 if any(row.failures for row in rows.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        given = sys.argv[2:]
        child(given[0], *map(int, given[1:4]), Path(given[4]), Path(given[5]) if given[5:] else None)
    else:
        sys.exit(main())
