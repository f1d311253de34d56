"""Kill export, eval, predict, convert and a download with SIGKILL at random moments, and run each again.

Not part of the suite, for it takes minutes; `kill_and_resume.py` does the same for training. Ends with status 1 unless,
each time: what an earlier command had written is whole, or replaced by the whole new one; no process is left; and the
next command writes the same as one that was not killed, and leaves no temporary file, in the folders of the user and in
the system's.

    python tests/soak/kill_tools.py output/quickstart                       # 20 kills of each
    python tests/soak/kill_tools.py output/quickstart --kills 3 --tools export,download
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from loopback import serving

PROJECT = Path(__file__).resolve().parents[2]
EARLIEST, LATEST = 0.2, 1.1
"""Times the seconds of the command; before the first it only starts Python."""
OF_TIME = re.compile(rb"exported_at: [^\n]*|\"seconds\": [^\n]*")
"""Lines that differ from one command to the next."""
SECONDS_TO_END = 5.0
OF_OTHERS = {".ses"}
"""What ONNX Runtime leaves in the system's folder of temporary files: the number of its session."""

FETCH = """
import sys
from pathlib import Path
from paddle_resnet.download import fetch
fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""


class Command(NamedTuple):
    """A command, and what it writes."""

    words: list[str]
    written: list[Path]
    keeps_earlier: bool = True
    """It replaces what is there already; False: it refuses to."""


def commands(run: Path, samples: Path, folder: Path, url: str, content: bytes) -> dict[str, Command]:
    """The commands, by name."""

    def tool(name: str, *words: object) -> list[str]:
        return [sys.executable, str(PROJECT / "tools" / f"{name}.py"), *map(str, words)]

    answers = [folder / f"answers.{kind}" for kind in ("csv", "json", "jsonl")]
    csv, json, lines = answers
    converted, fetched = folder / "converted.safetensors", folder / "cache" / "file.bin"
    return {
        "export": Command(tool("export", run, "--onnx", "--images", 0), [run / "inference"]),
        "eval": Command(tool("eval", run), [run / "evaluation_test.json", run / "figures"]),
        "predict": Command(
            tool("predict", run, samples, "--workers", 2, "--csv", csv, "--json", json, "--json-lines", lines), answers
        ),
        "convert": Command(
            tool("convert_weights", run / "checkpoints" / "best" / "model.pdparams", converted),
            [converted],
            keeps_earlier=False,
        ),
        "download": Command(
            [sys.executable, "-c", FETCH, url, str(fetched), hashlib.md5(content).hexdigest()],
            [fetched],
            keeps_earlier=False,
        ),
    }


def contents(paths: list[Path]) -> dict[str, bytes]:
    """The files at these paths and below them, without the lines of time."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return {str(file): OF_TIME.sub(b"", file.read_bytes()) for file in files}


def start(command: Command, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that what it leaves can be found."""
    return subprocess.Popen(
        command.words,
        env=environment,
        cwd=PROJECT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finished(command: Command, environment: dict[str, str]) -> str | None:
    """Run it to its end; return what it said if it failed."""
    process = start(command, environment)
    _, errors = process.communicate()
    return f"exit status {process.returncode}: {errors.decode().strip()[-300:]}" if process.returncode else None


def outlived(session: int) -> bool:
    """Whether a process of the session is still there some seconds after its first was killed."""
    end = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < end:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    os.killpg(session, signal.SIGKILL)
    return True


def kill(command: Command, environment: dict[str, str], moment: float) -> tuple[bool, list[str]]:
    """Kill the command at a moment; return whether it still ran, and what is wrong."""
    before = contents(command.written)
    process = start(command, environment)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wrong = ["a process was left"] if outlived(process.pid) else []
    after = contents(command.written)
    wrong += [f"damaged: {name}" for name in before if after.get(name) != before[name]]
    return process.returncode == -signal.SIGKILL, wrong


def trial(
    command: Command,
    environment: dict[str, str],
    expected: dict[str, bytes],
    moment: float,
    leftovers: Callable[[], list[str]],
) -> tuple[bool, str, list[str]]:
    """Kill once and run again; return whether it was killed, what was left until then, and what is wrong."""
    if not command.keeps_earlier:
        for path in command.written:
            path.unlink(missing_ok=True)
    killed, wrong = kill(command, environment, moment)
    left = leftovers()
    whole = contents(command.written) == expected
    if whole and not command.keeps_earlier:
        for path in command.written:
            path.unlink()
    if failure := finished(command, environment):
        wrong.append(failure)
    if contents(command.written) != expected:
        wrong.append("the next command wrote something else")
    return killed, ", ".join(left), [*wrong, *(f"left: {name}" for name in leftovers())]


def main() -> int:
    """Kill, run again and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of the quick start, which is copied")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--tools", default="export,eval,predict,convert,download")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    content = random.Random(0).randbytes(60 << 20)
    kills = failed = 0
    with tempfile.TemporaryDirectory() as work, serving(content) as server:
        folder, run, temporary = Path(work), Path(work) / "run", Path(work) / "tmp"
        shutil.copytree(options.run, run)
        temporary.mkdir()
        environment = {**os.environ, "TMPDIR": str(temporary)}

        def leftovers() -> list[str]:
            hidden = {path for pattern in (".*", "*.part", "*.tmp") for path in folder.rglob(pattern)}
            found = hidden | set(temporary.iterdir())
            return sorted(str(path.relative_to(folder)) for path in found if path.name not in OF_OTHERS)

        for name, command in commands(run, run / "samples", folder, server.url, content).items():
            if name not in options.tools.split(","):
                continue
            begin = time.monotonic()
            if failure := finished(command, environment):
                sys.exit(f"{name}, without a kill: {failure}")
            seconds, expected = time.monotonic() - begin, contents(command.written)
            print(f"{name} takes {seconds:.1f} s and writes {len(expected)} files", flush=True)
            done = 0
            while done < options.kills:
                moment = moments.uniform(EARLIEST, LATEST) * seconds
                killed, left, wrong = trial(command, environment, expected, moment, leftovers)
                failed += bool(wrong)
                if killed:
                    done += 1
                    print(f"{done:3d}  {name} killed after {moment:5.2f} s, left {left or 'nothing'}: ", end="")
                    print("; ".join(wrong) or "then as if not", flush=True)
            kills += done
    print(f"{kills} kills, {failed} with damage, something left or another result")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
