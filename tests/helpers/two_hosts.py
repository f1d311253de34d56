"""Two network namespaces as two hosts, each with its own processes and its own folder, joined by a cable (veth).

`run_in_namespaces` starts this file as root of a user namespace, so that no privilege is needed where the kernel lets
users make them, and nothing is left when it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TRAIN = Path(__file__).with_name("halting_train.py")
ADDRESSES = ["10.77.0.1", "10.77.0.2"]
PORTS = {"through": 8077, "killed": 8078}
SECONDS = 200


def run_in_namespaces(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this file with the arguments in new namespaces."""
    command = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, __file__, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


def unavailable_reason(folder: Path) -> str:
    """Why there are no namespaces here; empty where there are."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    done = run_in_namespaces(folder, "probe")
    return "" if done.returncode == 0 else f"no network namespaces: {done.stderr.strip().splitlines()[-1]}"


def make_hosts(folder: Path) -> None:
    """Make a network namespace for each host, kept by a file, and a cable between the two."""
    subprocess.run(["ip", "link", "add", "host0", "type", "veth", "peer", "name", "host1"], check=True)
    for number, address in enumerate(ADDRESSES):
        name = namespace(folder, number)
        name.touch()
        subprocess.run(["unshare", f"--net={name}", "true"], check=True)
        subprocess.run(["ip", "link", "set", f"host{number}", "netns", str(name), "name", "eth0"], check=True)
        for words in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
            subprocess.run(["nsenter", f"--net={name}", "ip", *words.split()], check=True)


def namespace(folder: Path, number: int) -> Path:
    return folder / f"network{number}"


def launch(folder: Path, number: int, halted: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a host's part of the training in its folder, by the command of docs/training.md.

    Killing the process kills everything that the host runs.
    """
    own = folder / f"host{number}"
    own.mkdir(parents=True, exist_ok=True)
    command = [
        "nsenter",
        f"--net={namespace(folder.parent, number)}",
        "unshare",
        "--pid",
        "--kill-child",
        "--mount-proc",
    ]
    command += [sys.executable, "-m", "paddle.distributed.launch", "--nnodes", "2", "--nproc_per_node", "1"]
    command += ["--rank", str(number), "--master", f"{ADDRESSES[0]}:{PORTS[folder.name]}", "--host", ADDRESSES[number]]
    command += [str(TRAIN), "-c", str(folder.parent / "config.yaml"), "--resume", "auto"]
    environment = os.environ | ({} if halted is None else {"HALT": str(halted)})
    with (own / "launch.log").open("ab") as log:
        return subprocess.Popen(command, cwd=own, stdout=log, stderr=log, env=environment)


def ends(hosts: list[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for both, and return their exit codes."""
    return [host.wait(SECONDS) for host in hosts]


def kill_second_host(folder: Path) -> dict[str, object]:
    """Train until the second host stands still between two steps, and kill it; return what became of the first."""
    halted = folder.parent / "halted"
    first, second = launch(folder, 0), launch(folder, 1, halted)
    while not halted.exists() and first.poll() is None:
        time.sleep(0.02)
    second.kill()
    code = first.wait(SECONDS)
    state = json.loads((folder / "host0/output/hosts/checkpoints/last/state.json").read_text())
    return {"code": code, "position": [state["epoch"], state["step"]]}


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2]
    make_hosts(folder)
    if what == "probe":
        return
    through, killed = folder / "through", folder / "killed"
    uninterrupted = [launch(through, number) for number in range(2)]
    seen = kill_second_host(killed)
    seen["resumed"] = ends([launch(killed, number) for number in range(2)])
    seen["through"] = ends(uninterrupted)
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
