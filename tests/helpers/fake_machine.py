"""A machine of stand-ins for python3, pip and nvidia-smi, on which the set-up scripts run without network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

BASH = shutil.which("bash") or "/bin/bash"

# Answers as a Python of VERSION would. Its `-m venv` makes an environment that holds a copy of itself, and its `-m pip`
# notes what it was asked, then "installs" Paddle or this checkout, or fails as NO_NETWORK or NO_COMMAND says.
FAKE_PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
  *setup_environment.py*) exec REAL "$@" ;;
  *version_info*) echo VERSION ;;
  *"import venv"*) HAS_VENV ;;
  "-m venv "*)
    for folder; do :; done
    rm -f "$folder/bin/python"
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" && touch "$folder/bin/activate" ;;
  "-m pip install "*--editable*)
    echo "$*" >> "$here/editable-calls"
    [ -z "$NO_COMMAND" ] || exit 1
    touch "$here/paddle-resnet" ;;
  "-m pip install "*)
    echo "$*" >> "$here/pip-calls"
    [ -z "$NO_NETWORK" ] || { echo "connection broken by NewConnectionError" > "$here/../pip.log"; exit 1; }
    for argument; do case "$argument" in paddlepaddle*) echo "$argument" > "$here/installed";; esac; done ;;
  "-m pip uninstall "*) echo "$*" >> "$here/pip-calls" ;;
  "-m pip --version") ;;
  *importlib.metadata*) cat "$here/installed" 2>/dev/null ;;
  *) echo "ran: $*" ;;
esac
"""


class Machine:
    """A machine of stand-ins: a PATH with only what is put on it, and a copy of the scripts and requirements."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.project = folder / "my project"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for command in ("bash", "cat", "cp", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "touch"):
            (self.bin / command).symlink_to(str(shutil.which(command)))
        for part in ("requirements", "tools"):
            shutil.copytree(project / part, self.project / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(project / "requirements.txt", self.project)

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def add_python(self, name: str, version: int, *, has_venv: bool = True) -> None:
        values = {"VERSION": f"{version // 100} {version % 100}", "HAS_VENV": f"exit {int(not has_venv)}"}
        script = FAKE_PYTHON.replace("REAL", sys.executable)
        for name_of_value, value in values.items():
            script = script.replace(name_of_value, value)
        self.add(name, script)

    def add_gpus(self, *capabilities: str) -> None:
        lines = "".join(f"echo {capability};" for capability in capabilities)
        self.add("nvidia-smi", f'case "$1" in -L) echo "GPU 0: Stand-in (UUID: GPU-0)";; *) {lines} esac')

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.start([BASH, *command], variables)

    def start(self, command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.project), **variables}
        return subprocess.run(command, env=environment, cwd=self.project, capture_output=True, text=True)

    def call(self, function: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Call a function of `setup_environment.py`."""
        script = str(self.project / "tools" / "setup_environment.py")
        return self.start([sys.executable, script, *function.split()], variables)

    def quickstart(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("tools/quickstart.sh", *options, **variables)

    def pip_calls(self, environment: Path | None = None, *, of: str = "pip-calls") -> list[str]:
        """Return what pip was asked to install or remove, or, of "editable-calls", which checkouts to add."""
        path = (environment or self.project / ".venv") / "bin" / of
        return path.read_text().splitlines() if path.exists() else []
