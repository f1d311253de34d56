#!/usr/bin/env bash
# Lint, type-check, and the test suite on both series of Paddle:
#   bash tools/test.sh [options of pytest]
#   PADDLE=paddlepaddle==2.6.2 bash tools/test.sh      the suite on that Paddle only
# The tests run in a process for each core, four at most; `-n0` runs them in one, as `--pdb` needs.
# The active virtual environment (else .venv) serves for the Paddle it holds, .venv-test-* for the other one.
set -euo pipefail
# shellcheck source=tools/setup_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$PROJECT"
trap 'exit 130' INT

summary=$(mktemp)
ready=$(mktemp)
later=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$summary" "$ready" "$later"' EXIT

# part NAME COMMAND...: run one part, whatever became of those before it, and note how it went.
part() {
  local name=$1 started=$SECONDS result=passed
  shift
  say "$name"
  ("$@") || result=FAILED
  printf '%-6s  %4d s  %s\n' "$result" $((SECONDS - started)) "$name" >>"$summary"
  [ "$result" = passed ]
}

own_environment=$(setup user_environment)
own_paddle=$(setup paddle_of "$own_environment")

# test_environment PADDLE: where that Paddle is tested.
test_environment() {
  local name=${1#paddle}
  if [ "$1" = "$own_paddle" ]; then echo "$own_environment"; else echo "$PROJECT/.venv-test-${name/==/}"; fi
}

# build_site PYTHON: into site/; its config is strict, so that a broken link is an error (with --quiet it would be none).
build_site() { NO_MKDOCS_2_WARNING=1 "$1" -m mkdocs build; }

check() {
  local python=$1
  part "ruff check" "$python" -m ruff check --extend-exclude '.venv*' . || true
  part "ruff format" "$python" -m ruff format --check --extend-exclude '.venv*' . || true
  local platform
  for platform in linux win32 darwin; do part "mypy for $platform" "$python" -m mypy --platform "$platform" || true; done
  if "$python" -c 'import jieba, material, mkdocs, mkdocstrings_handlers.python' 2>/dev/null; then
    part "documentation site" build_site "$python" || true
  else
    say "documentation site: skipped, as this environment lacks packages of requirements/docs.txt"
  fi
}

# Tests start many processes, each of which would compile the modules anew.
unset PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS=1
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || cores=2
parallel=(-n "$cores" --maxprocesses 4 --dist loadscope --no-loadscope-reorder)

# prepare PADDLE: make or complete its environment.
prepare() {
  local more=(requirements/onnx.txt requirements/docs.txt requirements/ray.txt)
  if [[ $1 == *==2.* ]]; then more=(requirements/onnx_paddle2.txt); fi
  setup prepare_environment "$(test_environment "$1")" "$1" requirements/serve.txt requirements/dev.txt "${more[@]}"
}

# suite PADDLE [PYTEST_OPTION...]: all tests with the first Paddle; with another one those that may end otherwise there, and
# without POSIX the folders of what depends both on the system and on Paddle.
suite() {
  local paddle=$1 all=() fast=(-m "not slow") python
  shift
  python=$(test_environment "$paddle")/bin/python
  if [ "$paddle" != "${prepared[0]}" ] && [ "$#" = 0 ]; then
    all=(-m "not once")
    fast=(-m "not slow and not once" tests/{core,doctor,onednn,system})
  fi
  part "pytest on $paddle" "$python" -m pytest "${parallel[@]}" "${all[@]}" "$@" || true
  part "pytest without POSIX on $paddle" without_posix "$python" -m pytest "${parallel[@]}" "${fast[@]}" "$@" || true
  if [ "$paddle" = "${prepared[0]}" ] && [ "$#" = 0 ] && [ -z "${PADDLE:-}" ]; then
    # By itself: a cluster of two nodes needs both cores. Where Ray is not installed, a line says so.
    part "pytest on a Ray cluster" "$python" -m pytest -m ray -rs tests/on_ray || true
  fi
}

# without_posix COMMAND...: as on Windows, in an interpreter without what only POSIX has.
without_posix() { PYTHONPATH=tests/helpers/stripped HYPOTHESIS_NO_PLUGINS=1 "$@"; }

if [ -n "${PADDLE:-}" ]; then
  paddles=("$(setup chosen_by_hand "$PADDLE")")
else
  paddles=("$(setup pinned_paddle requirements.txt)" paddlepaddle==2.6.2)
  # A GPU build is tested where the machine has one, in place of the same version's CPU build.
  if [ "$own_paddle" = "$(setup pinned_paddle requirements/gpu.txt)" ]; then paddles[1]=$own_paddle; fi
fi

# environment PADDLE, and the one of the oldest versions that the requirements allow: make it, and note that it is ready.
environment() { part "environment for $1" prepare "$1" && echo "$1" >>"$ready"; }
lowest() { LOCKED=lowest setup prepare_environment "$PROJECT/.venv-test-lowest" "$(setup pinned_paddle requirements.txt)"; }
is_ready() { grep -qxF "$1" "$ready"; }

other_environments() {
  local paddle
  for paddle in "${paddles[@]:1}"; do environment "$paddle" || true; done
  if [ "$#" = 0 ] && [ -z "${PADDLE:-}" ]; then part "environment of the oldest packages" lowest && echo lowest >>"$ready"; fi
}

# pip uses one core: beside the first environment and the checks in it, the others are made, and printed when all are done.
other_environments "$@" >"$later" 2>&1 &
if environment "${paddles[0]}"; then check "$(test_environment "${paddles[0]}")/bin/python"; fi
wait
cat "$later"

prepared=()
for paddle in "${paddles[@]}"; do
  if is_ready "$paddle"; then prepared+=("$paddle"); fi
done
for paddle in "${prepared[@]}"; do suite "$paddle" "$@"; done
# The fast tests of what uses these packages most.
if is_ready lowest; then
  part "pytest on the oldest packages" .venv-test-lowest/bin/python -m pytest "${parallel[@]}" -m "not slow" \
    tests/{config,core,data,exporting,images,inference,plots,service,system,training} || true
fi

printf '\n'
cat "$summary"
[[ $(cat "$summary") != *FAILED* ]]
