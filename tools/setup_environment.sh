# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: which Paddle, which Python, and a virtual environment that holds both.
# A function answers on standard output and tells on standard error; `stop` ends the (sub)shell, so callers write `|| exit`.

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Packages of another Python's folder would count as installed.
unset PYTHONPATH PYTHONHOME

say() { printf '==> %s\n' "$*" >&2; }

# stop CODE MESSAGE: 2 where the caller has to change something, 1 where a step failed.
stop() {
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

# --- Paddle ---------------------------------------------------------------------------------------------------------

# pinned_paddle FILE: the Paddle that a requirements file names, such as paddlepaddle==3.3.1.
pinned_paddle() {
  local line
  while IFS= read -r line; do
    case $line in paddlepaddle*) printf '%s\n' "$line" ;; esac
  done <"$PROJECT/$1"
}

# is_paddle2 PADDLE: whether it belongs to the 2.x series, which knows neither numpy 2 nor Python 3.13.
is_paddle2() { [[ $1 == *==2.* ]]; }

is_too_old() { [[ $1 =~ ==([01]\.|2\.[0-5](\.|$)) ]]; }

# chosen_by_hand SPECIFICATION: it, checked.
chosen_by_hand() {
  if [[ ! $1 =~ ^paddlepaddle(-gpu)?==[0-9]+(\.[0-9A-Za-z+]+)+$ ]]; then
    stop 2 "PADDLE=$1: expected paddlepaddle==<version> or paddlepaddle-gpu==<version>, such as PADDLE=paddlepaddle==2.6.2"
  fi
  if is_too_old "$1"; then
    stop 2 "PADDLE=$1: expected version 2.6 or newer, such as PADDLE=paddlepaddle==2.6.2"
  fi
  echo "$1"
}

has_gpu() {
  local gpus
  command -v nvidia-smi >/dev/null && gpus=$(nvidia-smi -L 2>/dev/null) && [[ $gpus == *"GPU "* ]]
}

# The GPU build in pip's usual index has device code for 6.1, 7.0, 7.5, 8.0 and 8.6 and no PTX: besides these it runs only on
# later minor versions of the same major one.
gpu_build_runs_on() { [[ $1 =~ ^(6\.[1-9]|7\.[0-9]|8\.[0-9])$ ]]; }

# paddle_for_this_machine: the GPU build where every GPU can run it, the CPU build elsewhere.
paddle_for_this_machine() {
  local capabilities capability
  if ! has_gpu; then
    pinned_paddle requirements.txt
    return
  fi
  # A driver too old to know this query drives no GPU newer than 8.6.
  capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) || capabilities=
  for capability in $capabilities; do
    if ! gpu_build_runs_on "$capability"; then
      say "the GPU's compute capability $capability is not among those of $(pinned_paddle requirements/gpu.txt): using the CPU build;" \
        "for a GPU build: PADDLE=paddlepaddle-gpu==3.3.1" \
        "PIP_EXTRA_INDEX_URL=https://www.paddlepaddle.org.cn/packages/stable/cu126/ bash $0"
      pinned_paddle requirements.txt
      return
    fi
  done
  pinned_paddle requirements/gpu.txt
}

# installed_paddle FOLDER: the Paddle that an environment holds; nothing where there is none.
installed_paddle() {
  "$1/bin/python" 2>/dev/null - <<'PYTHON' || true
from importlib.metadata import PackageNotFoundError, version

for name in ("paddlepaddle-gpu", "paddlepaddle"):
    try:
        print(f"{name}=={version(name)}")
        break
    except PackageNotFoundError:
        pass
PYTHON
}

# paddle_of FOLDER: the Paddle that an environment holds, else the one for this machine.
# What is there is kept: it may be a build that its owner chose with care.
paddle_of() {
  local installed
  installed=$(installed_paddle "$1")
  if is_too_old "$installed"; then
    stop 1 "$1 holds $installed, and the project needs 2.6 or newer: deactivate it, so that an environment is made here, or install paddlepaddle==3.3.1 there"
  fi
  if [ -n "$installed" ]; then printf '%s\n' "$installed"; else paddle_for_this_machine; fi
}

# --- Python ---------------------------------------------------------------------------------------------------------

# python_version PYTHON: 311 for Python 3.11; fails where it does not run (a leftover of a version manager, say).
python_version() { "$1" -c 'import sys; print(sys.version_info[0] * 100 + sys.version_info[1])' 2>/dev/null; }

dotted() { echo "$(($1 / 100)).$(($1 % 100))"; }

# python_fits VERSION PADDLE: the project promises 3.10 to 3.12; Paddle 3 has wheels for 3.13 too, Paddle 2 has not.
python_fits() { (($1 >= 310 && $1 <= 312)) || { (($1 == 313)) && ! is_paddle2 "$2"; }; }

# find_python PADDLE: the command of a Python with venv that fits; python3 before all, 3.13 only where there is no other.
find_python() {
  local name version spare="" without_venv="" found=""
  for name in python3 python3.12 python3.11 python3.10 python3.13; do
    version=$(python_version "$name") || continue
    found="${found:+$found, }$name is $(dotted "$version")"
    if ! python_fits "$version" "$1"; then
      continue
    elif ! "$name" -c 'import venv, ensurepip' 2>/dev/null; then
      without_venv=${without_venv:-$name}
    elif [ "$version" = 313 ]; then
      spare=$name
    else
      echo "$name"
      return
    fi
  done
  if [ -n "$spare" ]; then
    echo "$spare"
  elif [ -n "$without_venv" ]; then
    stop 2 "$without_venv has no venv: install the package $without_venv-venv (Debian, Ubuntu: sudo apt-get install $without_venv-venv)"
  else
    stop 2 "$1 needs Python 3.10 to 3.12 (${found:-no python3}): install the packages python3.12 and python3.12-venv or their like"
  fi
}

# --- The environment ------------------------------------------------------------------------------------------------

# user_environment: the active virtual environment, else the project's own.
user_environment() { printf '%s\n' "${VIRTUAL_ENV:-$PROJECT/.venv}"; }

# make_environment FOLDER PADDLE: see that a whole virtual environment stands there, with a Python that fits.
make_environment() {
  local folder=$1 paddle=$2 python version
  # venv writes bin/activate last: without it the creation was cut short.
  if [ -f "$folder/bin/activate" ] && version=$(python_version "$folder/bin/python"); then
    python_fits "$version" "$paddle" && return
    stop 2 "$folder has Python $(dotted "$version"), $paddle needs 3.10 to 3.12: $(way_out "$folder")"
  fi
  if [ "$folder" = "${VIRTUAL_ENV:-}" ]; then
    stop 2 "$folder, the active virtual environment, has no Python that runs: $(way_out "$folder")"
  fi
  if [ -e "$folder" ] && [ ! -f "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder")" ]; then
    stop 2 "$folder is not a virtual environment: move it away and run this again"
  fi
  python=$(find_python "$paddle") || exit
  if [ -f "$folder/pyvenv.cfg" ]; then say "$folder is half made or its Python is gone: beginning it again"; fi
  say "creating $folder with $python"
  "$python" -m venv --clear "$folder" >&2 || stop 1 "$python could not make a virtual environment in $folder: its message is above"
}

way_out() {
  if [ "$1" = "${VIRTUAL_ENV:-}" ]; then echo "run deactivate first"; else echo "remove $1 and run this again"; fi
}

# prepare_environment FOLDER PADDLE [REQUIREMENTS_FILE...]: make FOLDER hold Paddle, the common requirements and those of the files.
# What was installed is written into the environment; while it says the same, pip is not asked.
prepare_environment() {
  local folder=$1 paddle=$2 file stamp stamp_file
  shift 2
  make_environment "$folder" "$paddle"
  local files=("$PROJECT/requirements/common.txt")
  stamp_file=$folder/.installed-common
  for file in "$@"; do
    files+=("$PROJECT/$file")
    stamp_file=$stamp_file-$(basename "$file" .txt)
  done
  if is_paddle2 "$paddle"; then files+=("$PROJECT/requirements/paddle2.txt"); fi
  if [ -n "${LOCKED:-}" ]; then files=("$(lock_file "$paddle")"); fi
  stamp="$paddle, Python $(python_version "$folder/bin/python"), $(cat "${files[@]}")"
  if [ -f "$stamp_file" ] && [ "$(cat "$stamp_file")" = "$stamp" ] && [ "$(installed_paddle "$folder")" = "$paddle" ]; then
    say "$folder is ready: $paddle"
    return
  fi
  rm -f "$folder"/.installed-*
  install_with_pip "$folder" "$paddle" "${files[@]}"
  printf '%s\n' "$stamp" >"$stamp_file" || stop 1 "$stamp_file: could not be written"
}

# lock_file PADDLE: every package of the tests, with version and hashes; LOCKED=1 asks for it.
lock_file() { if is_paddle2 "$1"; then echo "$PROJECT/requirements/locked-paddle2.txt"; else echo "$PROJECT/requirements/locked-paddle3.txt"; fi; }

# install_with_pip FOLDER PADDLE FILE...
install_with_pip() {
  local folder=$1 paddle=$2 log=$1/pip.log installed file
  shift 2
  local options=(--no-input --disable-pip-version-check --log "$log")
  for file in "$@"; do options+=(-r "$file"); done
  # A pip of one's own settings may install into the home directory, which a virtual environment refuses.
  export PIP_USER=0
  "$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$folder/bin/python" -m ensurepip >&2 ||
    stop 2 "$folder has no pip: $(way_out "$folder")"
  rm -f "$log"
  installed=$(installed_paddle "$folder")
  if [ -n "$installed" ] && [ "${installed%%==*}" != "${paddle%%==*}" ]; then
    say "removing $installed: the CPU and the GPU build fill the same folder"
    "$folder/bin/python" -m pip uninstall -y "${installed%%==*}" >&2 || stop 1 "pip could not remove $installed from $folder"
  fi
  say "installing $paddle and what else is missing into $folder (minutes the first time)"
  if [ -n "${LOCKED:-}" ]; then options+=(--require-hashes); else options+=("$paddle"); fi
  "$folder/bin/python" -m pip install "${options[@]}" >&2 || stop 1 "$(why_pip_failed "$log" "$paddle")"
  rm -f "$log"
}

# why_pip_failed LOG PADDLE: one line.
why_pip_failed() {
  local log=$1 paddle=$2
  if grep -q 'No space left on device' "$log" 2>/dev/null; then
    echo "pip could not install $paddle: the disk is full; free some space (about 3 GB) and run this again"
  elif grep -qE 'connection broken by|NewConnectionError|NameResolutionError|ConnectTimeout' "$log" 2>/dev/null; then
    echo "pip could not install $paddle: no network reaches its package index; connect (or set pip's proxy or index) and run this again"
  elif grep -q 'No matching distribution found' "$log" 2>/dev/null; then
    echo "pip could not install $paddle: $(sed -n 's/.*\(No matching distribution found for .*\)/\1/p' "$log" | head -n 1) on this machine and Python"
  else
    echo "pip could not install $paddle: its messages stand above and in $log"
  fi
}
