#!/usr/bin/env bash
# Write requirements/locked-paddle3.txt, locked-paddle2.txt and lowest.txt anew: every package of the tests with its version and hashes, for Linux and
# Python 3.10 to 3.12, and licences.md, the licences of all of them. CI installs from the lock files; users from the bounded requirements.
#   pip install uv pip-licenses && bash requirements/lock.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '[project]\nname = "lock"\nversion = "0"\nrequires-python = ">=3.10,<3.13"\n[tool.uv]\nenvironments = ["sys_platform == '"'linux'"' and python_full_version < '"'3.13'"'"]\n' \
  >"$folder/pyproject.toml"

# lock NAME PADDLE FILE...
lock() {
  local name=$1 paddle=$2
  shift 2
  echo "$paddle" | uv --project "$folder" pip compile --quiet --universal --python-version 3.10 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links - "$@" --output-file "$name"
}
lock locked-paddle3.txt paddlepaddle==3.3.1 common.txt dev.txt onnx.txt docs.txt ray.txt
lock locked-paddle2.txt paddlepaddle==2.6.2 common.txt dev.txt onnx_paddle2.txt paddle2.txt
# The oldest version that each requirement allows, which tools/test.sh tries too.
UV_RESOLUTION=lowest-direct lock lowest.txt paddlepaddle==3.3.1 common.txt dev.txt onnx.txt

# licences.md, from what is installed: run it after tools/test.sh has made both environments.
licences() { pip-licenses --python="$1" --with-system --format=csv --order=name | grep -v -e '^"pip"' -e '^"Name"'; }
# Only Python 3.10 needs these; their licences were read by hand on 2026-11-29.
only_on_python_310() {
  printf '| %s | %s |\n' async-timeout Apache-2.0 coloredlogs MIT exceptiongroup MIT humanfriendly MIT mpmath BSD-3-Clause sympy BSD-3-Clause tomli MIT
}
{
  printf '# Licences of the packages that the lock files name\n\nWritten by `lock.sh` from the packages'"'"' own metadata.\n\n| package | licence |\n|---|---|\n'
  { licences ../.venv/bin/python; licences ../.venv-test-paddle2.6.2/bin/python; } |
    sed -E 's/^"([^"]*)","[^"]*","([^"]*)"$/| \1 | \2 |/' | cat - <(only_on_python_310) | sort --ignore-case --unique
} >licences.md
