"""Make a virtual environment with the Paddle that fits this machine. Needs Python 3.8 and nothing installed.

`tools/quickstart.py` imports it; the bash scripts run ``setup_environment.py FUNCTION ARGUMENT...``, which prints the
result. Progress goes to standard error. Exit codes: 2 where the caller has to change something, 1 where a step failed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NoReturn, Sequence  # noqa: UP035 (as Python 3.8 has it)

PROJECT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3", "python3.12", "python3.11", "python3.10", "python3.13")
COMMON, SERVICE = "requirements/common.txt", "requirements/serve.txt"
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
INSTALLED = """
from importlib.metadata import PackageNotFoundError, version
for name in ("paddlepaddle-gpu", "paddlepaddle"):
    try:
        print(name + "==" + version(name))
        break
    except PackageNotFoundError:
        pass
"""
PIP_FAILURES = {
    "No space left on device": "the disk is full; free some space (about 3 GB) and run this again",
    "connection broken by|NewConnectionError|NameResolutionError|ConnectTimeout": "no network reaches its package "
    "index; connect (or set pip's proxy or index) and run this again",
    "No matching distribution found for .*": r"\g<0> on this machine and Python",
}
"""What pip's log holds, and what one line says of it."""


def say(line: str) -> None:
    """Tell what is being done."""
    print("==> " + line, file=sys.stderr, flush=True)


def stop(code: int, message: str) -> NoReturn:
    """End the program with one line."""
    print("error: " + message, file=sys.stderr)
    sys.exit(code)


def output(*command: str | Path) -> str | None:
    """Return what a command prints; None if there is no such command, or it fails."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def succeeds(*command: str | Path) -> bool:
    """Run a command, whose output goes to standard error; return whether it succeeded."""
    return subprocess.run([str(word) for word in command], stdout=2).returncode == 0


# --- Paddle


def pinned_paddle(requirements: str) -> str:
    """Return the Paddle that a requirements file names, such as ``paddlepaddle==3.3.1``."""
    lines = (PROJECT / requirements).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("paddlepaddle"))


def is_paddle2(paddle: str) -> bool:
    """Return whether a Paddle belongs to the series 2, which knows neither numpy 2 nor Python 3.13."""
    return "==2." in paddle


def is_too_old(paddle: str) -> bool:
    """Return whether a Paddle is older than 2.6."""
    return re.search(r"==([01]\.|2\.[0-5](\.|$))", paddle) is not None


def chosen_by_hand(paddle: str) -> str:
    """Return a Paddle that the user named, checked."""
    if not re.fullmatch(r"paddlepaddle(-gpu)?==[0-9]+(\.[0-9A-Za-z+]+)+", paddle):
        stop(
            2,
            f"PADDLE={paddle}: expected paddlepaddle==<version> or paddlepaddle-gpu==<version>, such as "
            "PADDLE=paddlepaddle==2.6.2",
        )
    if is_too_old(paddle):
        stop(2, f"PADDLE={paddle}: expected version 2.6 or newer, such as PADDLE=paddlepaddle==2.6.2")
    return paddle


def paddle_for_this_machine() -> str:
    """Return the GPU build where every GPU can run it, and the CPU build elsewhere.

    The GPU build in pip's usual index has device code for 6.1, 7.0, 7.5, 8.0 and 8.6 and no PTX: besides these it runs
    only on later minor versions of the same major one.
    """
    if "GPU " not in (output("nvidia-smi", "-L") or ""):
        return pinned_paddle("requirements.txt")
    # A driver too old to know this query drives no GPU newer than 8.6.
    capabilities = output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader") or ""
    for capability in capabilities.split():
        if not re.fullmatch(r"6\.[1-9]|7\.[0-9]|8\.[0-9]", capability):
            say(
                f"the GPU's compute capability {capability} is not among those of "
                f"{pinned_paddle('requirements/gpu.txt')}: using the CPU build; for a GPU build set these variables: "
                "PADDLE=paddlepaddle-gpu==3.3.1 PIP_EXTRA_INDEX_URL=https://www.paddlepaddle.org.cn/packages/stable/cu126/"
            )
            return pinned_paddle("requirements.txt")
    return pinned_paddle("requirements/gpu.txt")


def installed_paddle(folder: str | Path) -> str:
    """Return the Paddle that an environment holds; an empty text where there is none."""
    return output(python_of(folder), "-c", INSTALLED) or ""


def paddle_of(folder: str | Path) -> str:
    """Return the Paddle that an environment holds, as its owner may have chosen it with care, else this machine's."""
    installed = installed_paddle(folder)
    if is_too_old(installed):
        stop(
            1,
            f"{folder} holds {installed}, and the project needs 2.6 or newer: deactivate it, so that an environment is "
            "made here, or install paddlepaddle==3.3.1 there",
        )
    return installed or paddle_for_this_machine()


# --- Python


def python_of(folder: str | Path) -> Path:
    """Return an environment's interpreter."""
    return Path(folder, SCRIPTS, "python.exe" if os.name == "nt" else "python")


def python_version(python: str | Path) -> tuple[int, int] | None:
    """Return an interpreter's version; None if it does not run, as a leftover of a version manager."""
    found = output(python, "-c", "import sys; print(*sys.version_info[:2])")
    major, _, minor = (found or "").partition(" ")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def python_fits(version: tuple[int, int], paddle: str) -> bool:
    """Return whether a Paddle has wheels for a Python: both series for 3.10 to 3.12, Paddle 3 for 3.13 too."""
    return (3, 10) <= version <= (3, 12) or (version == (3, 13) and not is_paddle2(paddle))


def find_python(paddle: str, *first: str) -> str:
    """Return the command of a Python with venv that fits: one of `first`, or of `PYTHONS`.

    Paddle's converter to ONNX has no wheel for Python 3.13, so an older one is preferred.
    """
    found, without_venv, spare = [], "", ""
    for name in (*first, *PYTHONS):
        version = python_version(name)
        if version is None:
            continue
        found.append(f"{name} is {dotted(version)}")
        if not python_fits(version, paddle):
            continue
        if output(name, "-c", "import venv, ensurepip") is None:
            without_venv = without_venv or name
        elif version < (3, 13) or name in first:
            return name
        else:
            spare = name
    if spare:
        return spare
    if without_venv:
        package = f"{without_venv}-venv"
        stop(2, f"{without_venv} has no venv: install {package} (Debian, Ubuntu: sudo apt-get install {package})")
    stop(
        2,
        f"{paddle} needs Python 3.10 to 3.12 ({', '.join(found) or 'no python3'}): install one (Debian, Ubuntu: "
        "the packages python3.12 and python3.12-venv)",
    )


def dotted(version: tuple[int, int]) -> str:
    """Write a version as ``3.12``."""
    return f"{version[0]}.{version[1]}"


# --- the environment


def user_environment() -> str:
    """Return the folder of the active virtual environment, else of the project's own."""
    return os.environ.get("VIRTUAL_ENV") or str(PROJECT / ".venv")


def make_environment(folder: Path, paddle: str, python: Sequence[str] = ()) -> None:
    """See that a whole virtual environment stands there, with a Python that fits."""
    version = python_version(python_of(folder)) if (folder / SCRIPTS / "activate").is_file() else None  # written last
    if version is not None:
        if not python_fits(version, paddle):
            stop(2, f"{folder} has Python {dotted(version)}, {paddle} needs 3.10 to 3.12: {way_out(folder)}")
        return
    if str(folder) == os.environ.get("VIRTUAL_ENV"):
        stop(2, f"{folder}, the active virtual environment, has no Python that runs: {way_out(folder)}")
    half_made = (folder / "pyvenv.cfg").is_file()
    if not half_made and folder.exists() and any(folder.iterdir()):
        stop(2, f"{folder} is not a virtual environment: move it away and run this again")
    chosen = find_python(paddle, *python)
    if half_made:
        say(f"{folder} is half made or its Python is gone: beginning it again")
    say(f"creating {folder} with {chosen}")
    if not succeeds(chosen, "-m", "venv", "--clear", folder):
        stop(1, f"{chosen} could not make a virtual environment in {folder}: its message is above")


def way_out(folder: Path) -> str:
    """Return what to do about an environment that cannot be used."""
    return (
        "run deactivate first"
        if str(folder) == os.environ.get("VIRTUAL_ENV")
        else f"remove {folder} and run this again"
    )


def prepare_environment(folder: str | Path, paddle: str, *requirements: str, python: Sequence[str] = ()) -> bool:
    """Make an environment hold Paddle, the common requirements and those of the files; return whether any was missing.

    What was installed is written into the environment; while it says the same, pip is not asked. The variable LOCKED
    selects a file of exact versions instead: 1 the lock file of the Paddle, another value the file of that name.
    """
    folder = Path(folder)
    locked = os.environ.get("LOCKED", "")
    name = locked if locked != "1" else "locked-paddle2" if is_paddle2(paddle) else "locked-paddle3"
    lock_file = PROJECT / f"requirements/{name}.txt"
    if locked and not lock_file.is_file():
        stop(2, f"LOCKED={locked}: there is no {lock_file}; expected 1, or the name of a file there, such as lowest")
    make_environment(folder, paddle, python)
    files = [PROJECT / name for name in (COMMON, *requirements)]
    stamp_file = folder / "-".join([".installed", *(path.stem for path in files)])
    if is_paddle2(paddle):
        files.append(PROJECT / "requirements/paddle2.txt")
    if locked:
        files = [lock_file]
    version = dotted(python_version(python_of(folder)) or (0, 0))
    stamp = f"{paddle}, Python {version}, " + "".join(path.read_text(encoding="utf-8") for path in files)
    if stamp_file.is_file() and stamp_file.read_text(encoding="utf-8") == stamp and installed_paddle(folder) == paddle:
        say(f"{folder} is ready: {paddle}")
        return False
    for old in folder.glob(".installed-*"):
        old.unlink()
    install_with_pip(folder, paddle, files, bool(locked))
    stamp_file.write_text(stamp, encoding="utf-8")
    return True


def install_with_pip(folder: Path, paddle: str, files: Sequence[Path], locked: bool) -> None:
    """Install Paddle and what the requirements files name."""
    log = folder / "pip.log"
    pip = (python_of(folder), "-m", "pip")
    # A pip of one's own settings may install into the home directory, which a virtual environment refuses.
    os.environ["PIP_USER"] = "0"
    if output(*pip, "--version") is None and not succeeds(python_of(folder), "-m", "ensurepip"):
        stop(2, f"{folder} has no pip: {way_out(folder)}")
    if log.exists():
        log.unlink()
    name = installed_paddle(folder).partition("==")[0]
    if name and name != paddle.partition("==")[0]:
        say(f"removing {name}: the CPU and the GPU build fill the same folder")
        if not succeeds(*pip, "uninstall", "-y", name):
            stop(1, f"pip could not remove {name} from {folder}")
    say(f"installing {paddle} and what else is missing into {folder} (minutes the first time)")
    options = ["--no-input", "--disable-pip-version-check", "--log", str(log)]
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        options.append("--no-compile")  # a third of the time: most modules are never imported, the others compiled then
    for path in files:
        options += ["-r", str(path)]
    if not succeeds(*pip, "install", *options, "--require-hashes" if locked else paddle):
        stop(1, f"pip could not install {paddle}: {why_pip_failed(log)}")
    if log.exists():
        log.unlink()


def why_pip_failed(log: Path) -> str:
    """Return the reason that pip's log gives, in one line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    for pattern, words in PIP_FAILURES.items():
        found = re.search(pattern, text)
        if found:
            return found.expand(words)
    return f"its messages stand above and in {log}"


# --- the quick start


def python_for_quickstart(*first: str, environment: str | None = None) -> str:
    """Make the environment of the quick start; return its interpreter. The variable PADDLE chooses a Paddle by hand."""
    environment = environment or user_environment()
    by_hand = os.environ.get("PADDLE")
    paddle = chosen_by_hand(by_hand) if by_hand else paddle_of(environment)
    if prepare_environment(environment, paddle, SERVICE, python=first):
        add_checkout(Path(environment))
    return str(python_of(environment))


def add_checkout(environment: Path) -> None:
    """Install this checkout, for the command `paddle-resnet` and programs that import it, unless one is installed."""
    if any((environment / SCRIPTS).glob("paddle-resnet*")):
        return
    install = (python_of(environment), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
    if not succeeds(*install, "--no-deps", "--editable", PROJECT):
        say("pip could not add the command paddle-resnet: write `python tools/NAME.py` for `paddle-resnet NAME`")


def run_in_environment(arguments: Sequence[str]) -> None:
    """Run the program `arguments` by an environment's Python and exit; return if this Python holds what is needed."""
    lines = (PROJECT / COMMON).read_text(encoding="utf-8").splitlines()
    names = [re.split(r"[<>=;]", line)[0] for line in lines if line and line[0] not in "#-"]
    if all(map(is_installed, names)) and (is_installed("paddlepaddle") or is_installed("paddlepaddle-gpu")):
        return
    forget_python_path()
    own = sys.prefix if sys.prefix != sys.base_prefix else None
    command = [python_for_quickstart(sys.executable, environment=own), *arguments]
    if os.name != "nt":
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a console sends Ctrl-C to both
    sys.exit(subprocess.call(command))


def is_installed(name: str) -> bool:
    """Return whether this Python has a distribution of this name."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def forget_python_path() -> None:
    """Remove the variables by which packages of another Python's folder would count as installed."""
    for name in ("PYTHONPATH", "PYTHONHOME"):
        os.environ.pop(name, None)


FUNCTIONS = (
    pinned_paddle,
    chosen_by_hand,
    paddle_for_this_machine,
    paddle_of,
    find_python,
    user_environment,
    prepare_environment,
    python_for_quickstart,
)

if __name__ == "__main__":
    forget_python_path()
    try:
        result = {function.__name__: function for function in FUNCTIONS}[sys.argv[1]](*sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
    if result is not None:
        print(result)
