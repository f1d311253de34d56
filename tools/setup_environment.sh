# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh.

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Packages of another Python's folder would count as installed.
unset PYTHONPATH PYTHONHOME

say() { printf '==> %s\n' "$*" >&2; }

# setup FUNCTION ARGUMENT...: a function of setup_environment.py, by any Python that can run that file.
setup() {
  local name
  for name in python3 python3.12 python3.11 python3.10 python3.13; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
      "$name" "$PROJECT/tools/setup_environment.py" "$@"
      return
    fi
  done
  printf 'error: no python3 of version 3.8 or newer: install the packages python3.12 and python3.12-venv or their like\n' >&2
  return 2
}
