"""The set-up scripts, run against stand-ins for python3, pip and nvidia-smi: no network, no real environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_machine import BASH, Machine

pytestmark = pytest.mark.slow

SCRIPTS = ["tools/quickstart.sh", "tools/test.sh", "tools/setup_environment.sh", ".ci/run"]
CPU, GPU = "paddlepaddle==3.3.1", "paddlepaddle-gpu==2.6.2"


@pytest.fixture
def machine(tmp_path: Path, project: Path) -> Machine:
    return Machine(tmp_path, project)


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The last word is one line that begins with error:, and has the words."""
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and result.stderr.splitlines()[-1] == errors[0], result.stderr
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash(project: Path, script: str) -> None:
    result = subprocess.run([BASH, "-n", str(project / script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# --- which Paddle


def test_without_nvidia_smi_the_cpu_build_is_chosen(machine: Machine) -> None:
    assert machine.call("paddle_for_this_machine").stdout.strip() == CPU


@pytest.mark.parametrize(
    "script",
    ["exit 9", 'echo "No devices were found"; exit 6', "exit 0"],
    ids=["the driver does not answer", "no devices", "an empty list"],
)
def test_nvidia_smi_without_a_gpu_means_the_cpu_build(machine: Machine, script: str) -> None:
    machine.add("nvidia-smi", script)
    assert machine.call("paddle_for_this_machine").stdout.strip() == CPU


# The wheel has sm_61, 70, 75, 80 and 86 and no PTX: a device runs code of its own major version and no later minor one.
@pytest.mark.parametrize("capability", ["6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9"])
def test_gpus_that_the_gpu_build_has_code_for(machine: Machine, capability: str) -> None:
    machine.add_gpus(capability)
    assert machine.call("paddle_for_this_machine").stdout.strip() == GPU


@pytest.mark.parametrize("capability", ["3.5", "5.2", "6.0", "9.0", "10.0", "12.0"])
def test_other_gpus_get_the_cpu_build_and_the_way_to_a_gpu_build(machine: Machine, capability: str) -> None:
    machine.add_gpus(capability)
    result = machine.call("paddle_for_this_machine")
    assert result.stdout.strip() == CPU
    (line,) = result.stderr.splitlines()
    assert f"compute capability {capability}" in line and "www.paddlepaddle.org.cn/packages/stable/cu126/" in line


def test_one_gpu_that_is_too_new_decides_for_all(machine: Machine) -> None:
    machine.add_gpus("8.6", "9.0")
    assert machine.call("paddle_for_this_machine").stdout.strip() == CPU


def test_a_driver_too_old_for_the_question_gets_the_gpu_build(machine: Machine) -> None:
    machine.add("nvidia-smi", 'case "$1" in -L) echo "GPU 0: Tesla V100";; *) echo "not a valid field"; exit 2;; esac')
    assert machine.call("paddle_for_this_machine").stdout.strip() == GPU


@pytest.mark.parametrize(
    "choice", ["2.6.2", "torch==2.0", "paddlepaddle", "paddlepaddle==2.6.2; rm -rf /", "paddlepaddle==2.4.2"]
)
def test_a_paddle_that_is_no_choice_is_one_line(machine: Machine, choice: str) -> None:
    machine.add_python("python3", 311)
    assert_one_line(machine.quickstart(PADDLE=choice), 2, choice, "paddlepaddle==2.6.2")
    assert not (machine.project / ".venv").exists()


def test_a_lock_file_that_is_not_there_is_one_line(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.call("python_for_quickstart", LOCKED="nosuch")
    assert_one_line(result, 2, "LOCKED=nosuch", "nosuch.txt", "expected 1, or the name of a file there")
    assert result.stdout == "" and not (machine.project / ".venv").exists()


# --- which Python


@pytest.mark.parametrize(
    ("pythons", "paddle", "chosen"),
    [
        ({"python3": 311}, CPU, "python3"),
        ({"python3": 309, "python3.11": 311}, CPU, "python3.11"),
        ({"python3": 313, "python3.10": 310}, CPU, "python3.10"),
        ({"python3": 313}, CPU, "python3"),
        ({"python3": 314, "python3.12": 312}, GPU, "python3.12"),
    ],
)
def test_a_fitting_python_is_found(machine: Machine, pythons: dict[str, int], paddle: str, chosen: str) -> None:
    for name, version in pythons.items():
        machine.add_python(name, version)
    assert machine.call(f"find_python {paddle}").stdout.strip() == chosen


def test_a_command_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.add("python3", "echo 'python3: command not found' >&2; exit 127")
    machine.add_python("python3.12", 312)
    assert machine.call(f"find_python {CPU}").stdout.strip() == "python3.12"


@pytest.mark.parametrize(("version", "paddle", "shown"), [(309, CPU, "3.9"), (314, CPU, "3.14"), (313, GPU, "3.13")])
def test_a_python_that_does_not_fit_is_one_line(machine: Machine, version: int, paddle: str, shown: str) -> None:
    machine.add_python("python3", version)
    assert_one_line(machine.quickstart(PADDLE=paddle), 2, f"python3 is {shown}", "3.10 to 3.12", "install one")


def test_no_python_at_all_is_one_line(machine: Machine) -> None:
    assert_one_line(machine.quickstart(), 2, "no python3", "install the packages")


def test_a_python_without_venv_names_the_package(machine: Machine) -> None:
    machine.add_python("python3", 311, has_venv=False)
    assert_one_line(machine.quickstart(), 2, "python3 has no venv", "apt-get install python3-venv")
    assert not (machine.project / ".venv").exists()


def test_another_python_with_venv_serves(machine: Machine) -> None:
    machine.add_python("python3", 311, has_venv=False)
    machine.add_python("python3.12", 312)
    assert machine.call(f"find_python {CPU}").stdout.strip() == "python3.12"


# --- the environment


def test_quickstart_makes_the_environment_and_passes_its_options_on(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.quickstart("-o", "train.epochs=1", "-o", "name=a b")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"ran: {machine.project}/tools/quickstart.py -o train.epochs=1 -o name=a b"
    (call,) = machine.pip_calls()
    wanted = [f"-r {machine.project}/requirements/{name}.txt" for name in ("common", "serve")]
    assert call.endswith(f" {' '.join(wanted)} {CPU}")


def test_quickstart_without_bash_prepares_the_active_environment(machine: Machine, tmp_path: Path) -> None:
    active = tmp_path / "active"
    machine.add_python("python3", 311)
    machine.run("-c", f"python3 -m venv {active}")
    bare = [sys.executable, "-S"]  # without its packages
    result = machine.start([*bare, "tools/quickstart.py", "-o", "name=a b"], {"VIRTUAL_ENV": str(active)})
    assert result.stdout.strip() == "ran: tools/quickstart.py -o name=a b", result.stderr
    assert machine.pip_calls(active)[0].endswith(CPU)


def test_quickstart_without_bash_makes_an_environment_with_its_python(machine: Machine) -> None:
    result = machine.start([sys.executable, "-S", "tools/quickstart.py"], {"PIP_NO_INDEX": "1"})
    assert f"creating {machine.project / '.venv'} with {sys.executable}" in result.stderr
    assert_one_line(result, 1, f"No matching distribution found for {CPU}")


def test_the_second_run_asks_pip_for_nothing(machine: Machine) -> None:
    machine.add_python("python3", 311)
    assert machine.quickstart().returncode == 0
    second = machine.quickstart()
    assert second.returncode == 0 and "creating" not in second.stderr
    assert len(machine.pip_calls()) == 1


def test_quickstart_adds_the_command_of_this_checkout_once(machine: Machine) -> None:
    machine.add_python("python3", 311)
    for _ in range(2):
        machine.quickstart()
    machine.quickstart(PADDLE="paddlepaddle==2.6.2")
    (call,) = machine.pip_calls(of="editable-calls")
    assert call.endswith(f" --no-deps --editable {machine.project}")


def test_without_the_command_quickstart_says_what_to_write_and_runs(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.quickstart(NO_COMMAND="1")
    assert result.returncode == 0 and result.stdout.startswith("ran: ")
    assert "write `python tools/NAME.py` for `paddle-resnet NAME`" in result.stderr


def test_a_changed_requirement_asks_pip_again(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart()
    with (machine.project / "requirements/common.txt").open("a") as file:
        file.write("tomli>=2,<3\n")
    machine.quickstart()
    assert len(machine.pip_calls()) == 2


def test_paddle_2_comes_with_its_own_requirements(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart(PADDLE="paddlepaddle==2.6.2")
    (call,) = machine.pip_calls()
    assert f"-r {machine.project}/requirements/paddle2.txt" in call and call.endswith(" paddlepaddle==2.6.2")


def test_a_paddle_that_is_installed_is_kept(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart(PADDLE="paddlepaddle==3.2.0")
    machine.quickstart()
    assert [call.split()[-1] for call in machine.pip_calls()] == ["paddlepaddle==3.2.0"]


def test_a_paddle_that_is_too_old_is_not_kept_but_said(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart()
    (machine.project / ".venv" / "bin" / "installed").write_text("paddlepaddle==2.4.2\n")
    result = machine.quickstart()
    assert result.returncode != 0
    assert "holds paddlepaddle==2.4.2, and the project needs 2.6 or newer" in result.stderr
    assert len(machine.pip_calls()) == 1


def test_the_other_build_is_removed_before_one_is_installed(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart()
    machine.quickstart(PADDLE=GPU)
    _, removal, installation = machine.pip_calls()
    assert "uninstall" in removal and removal.endswith(" paddlepaddle") and installation.endswith(" " + GPU)


def test_a_half_made_environment_is_begun_again(machine: Machine) -> None:
    machine.add_python("python3", 311)
    (machine.project / ".venv" / "bin").mkdir(parents=True)
    (machine.project / ".venv" / "pyvenv.cfg").touch()
    (machine.project / ".venv" / "bin" / "python").symlink_to(machine.bin / "python3")
    result = machine.quickstart()
    assert result.returncode == 0 and "half made" in result.stderr
    assert len(machine.pip_calls()) == 1


def test_a_folder_that_is_no_virtual_environment_is_left_alone(machine: Machine) -> None:
    machine.add_python("python3", 311)
    precious = machine.project / ".venv" / "thesis.tex"
    precious.parent.mkdir()
    precious.touch()
    assert_one_line(machine.quickstart(), 2, ".venv", "move it away")
    assert precious.exists()


def test_the_active_environment_is_used(machine: Machine, tmp_path: Path) -> None:
    active = tmp_path / "my environment"
    machine.add_python("python3", 311)
    machine.run("-c", f'python3 -m venv "{active}"')
    assert machine.quickstart(VIRTUAL_ENV=str(active)).returncode == 0
    assert len(machine.pip_calls(active)) == 1
    assert not (machine.project / ".venv").exists()


def test_an_active_environment_that_is_gone_is_one_line(machine: Machine, tmp_path: Path) -> None:
    machine.add_python("python3", 311)
    assert_one_line(machine.quickstart(VIRTUAL_ENV=str(tmp_path / "gone")), 2, "gone", "deactivate")


def test_without_network_one_line_says_so_and_the_next_run_installs(machine: Machine) -> None:
    machine.add_python("python3", 311)
    assert_one_line(machine.quickstart(NO_NETWORK="1"), 1, "no network", CPU)
    assert machine.quickstart().returncode == 0


def test_after_a_failed_installation_nothing_is_taken_for_granted(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.quickstart()
    common = machine.project / "requirements/common.txt"
    before = common.read_text()
    common.write_text(before + "tomli>=2,<3\n")
    machine.quickstart(NO_NETWORK="1")
    common.write_text(before)
    machine.quickstart()
    assert len(machine.pip_calls()) == 3


# --- tools/test.sh


def test_the_suite_runs_on_both_series_and_every_part_is_summed_up(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.run("tools/test.sh", "-k", "models")
    assert result.returncode == 0, result.stderr
    assert (
        re.findall(r"^ran: -m (\w+)", result.stdout, re.MULTILINE)
        == ["ruff"] * 2 + ["mypy"] * 3 + ["mkdocs"] + ["pytest"] * 4
    )
    assert len(re.findall("^ran: -m pytest -n 2 .* -k models$", result.stdout, re.MULTILINE)) == 4
    assert (
        len(re.findall(r"^passed +\d+ s +pytest on paddlepaddle==(3\.3\.1|2\.6\.2)$", result.stdout, re.MULTILINE)) == 2
    )
    assert machine.pip_calls()[0].split()[-1] == CPU
    assert machine.pip_calls(machine.project / ".venv-test-paddle2.6.2")[0].split()[-1] == "paddlepaddle==2.6.2"
    assert "requirements/onnx.txt" in machine.pip_calls()[0]
    assert "requirements/onnx_paddle2.txt" in machine.pip_calls(machine.project / ".venv-test-paddle2.6.2")[0]


def test_paddle_by_hand_runs_the_suite_on_that_one_and_leaves_the_users_environment(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.run("tools/test.sh", PADDLE="paddlepaddle==2.6.2")
    assert result.returncode == 0 and result.stdout.count("ran: -m pytest") == 2
    assert "no_paddle" not in result.stdout
    assert not (machine.project / ".venv").exists()


def test_what_says_the_same_runs_on_the_first_only(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.run("tools/test.sh")
    first, without_posix, on_ray, *second, oldest = re.findall("^ran: -m pytest (.*)$", result.stdout, re.MULTILINE)
    assert without_posix == f"{first} -m not slow"
    assert second[0] == f"{first} -m not once"
    assert second[1].startswith(f"{first} -m not slow and not once tests/core ")
    assert oldest.startswith(f"{first} -m not slow tests/config ")
    assert on_ray == "-m ray -rs tests/on_ray"


def test_one_failing_part_fails_the_whole_but_stops_nothing(machine: Machine) -> None:
    machine.add_python("python3", 311)
    machine.add(
        "python3",
        (machine.bin / "python3")
        .read_text()
        .replace("case", '[ "$*" != "-m mypy --platform darwin" ] || exit 1\ncase', 1),
    )
    result = machine.run("tools/test.sh")
    assert result.returncode == 1
    assert re.search(r"^FAILED +\d+ s +mypy for darwin$", result.stdout, re.MULTILINE)
    assert result.stdout.count("ran: -m pytest") == 6  # twice on both series, once on the oldest packages and on Ray


def test_an_environment_that_cannot_be_made_fails_the_whole(machine: Machine) -> None:
    machine.add_python("python3", 311)
    result = machine.run("tools/test.sh", NO_NETWORK="1")
    assert result.returncode == 1
    assert result.stdout.count("FAILED") == 3 and "ran: -m pytest" not in result.stdout
