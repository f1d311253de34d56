"""Kill a short run with SIGKILL at random moments, resume it each time, and compare it with one that ran through.

Not part of the suite, for it takes minutes. Ends with status 1 unless, each time, the weights are bit for bit those of
the uninterrupted run, history and curves are the same without a doubled or a missing step, and no temporary file is
left.

    python tests/soak/kill_and_resume.py                    # 20 kills
    python tests/soak/kill_and_resume.py --kills 3 -o train.cpu_backend=native
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from resumed_runs import differences  # first: it finds the package, and prepares the process before paddle is imported

PROJECT = Path(__file__).resolve().parents[2]
SHORT = [
    "model.name=resnet8",
    "model.dropout=0.2",
    "data.image_size=16",
    "train.first_size=8",
    "train.epochs=4",
    "train.ema=0.9",
    "train.checkpoint_steps=3",
    "device=cpu",
]
LATEST = 1.2
"""Times the seconds of training: some kills come when the run is tested."""


def command(output: Path, name: str, overrides: list[str]) -> list[str]:
    """The command that trains the run `name`, or goes on with it."""
    keys = [*SHORT, *overrides, f"output={output}", f"name={name}"]
    options = [word for key in keys for word in ("-o", key)]
    config = str(PROJECT / "configs" / "quickstart.yaml")
    return [sys.executable, str(PROJECT / "tools" / "train.py"), "-c", config, "--resume", "auto", *options]


def start(arguments: list[str], run: Path) -> subprocess.Popen[bytes]:
    """Start a training; return when its folder is there."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not run.exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def seconds_of_training(arguments: list[str], run: Path) -> float:
    """Let a run go to its end; return the seconds from its folder's first file to its last epoch."""
    process = start(arguments, run)
    begin = time.monotonic()
    while not (run / "metrics.json").exists() and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - begin
    if process.wait() != 0:
        sys.exit(f"a run that nobody stopped failed: {' '.join(arguments)}")
    return seconds


def kill_at_random(arguments: list[str], run: Path, seconds: float, moments: random.Random) -> str | None:
    """Kill a run within about the `seconds` that it trains, or soon after; say where, or None if it had ended."""
    process = start(arguments, run)
    moment = moments.uniform(0, LATEST * seconds)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        return None
    left = len([*run.rglob(".*")])
    return f"killed after {moment:5.2f} s, {position(run)}, {left} temporary files"


def main() -> int:
    """Kill, resume and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="change the run")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    kills = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        reference = output / "reference"
        seconds = seconds_of_training(command(output, "reference", options.override), reference)
        print(f"the uninterrupted run trained for {seconds:.1f} s", flush=True)
        while kills < options.kills:
            run = output / "killed"
            arguments = command(output, run.name, options.override)
            killed = kill_at_random(arguments, run, seconds, moments)
            if killed is not None:
                kills += 1
                resumed = subprocess.run(arguments, capture_output=True, text=True)
                found = differences(reference, run)
                if resumed.returncode != 0:
                    found.append(f"exit status {resumed.returncode}: {resumed.stderr.strip()}")
                failed += bool(found)
                print(f"{kills:3d}  {killed}: {'; '.join(found) or 'resumed bit for bit'}", flush=True)
            shutil.rmtree(run)
    print(f"{kills - failed} of {kills} runs came out bit for bit as the uninterrupted one")
    return 1 if failed else 0


def position(run: Path) -> str:
    """Where the run's checkpoint stands, in words."""
    try:
        state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    except OSError:
        return "no checkpoint"
    return f"checkpoint after {state['epoch']} epochs and {state['step']} steps"


if __name__ == "__main__":
    sys.exit(main())
