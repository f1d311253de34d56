#!/usr/bin/env bash
# Lint, type-check, and the test suite on both series of Paddle:
#   bash tools/test.sh [options of pytest]
#   PADDLE=paddlepaddle==2.6.2 bash tools/test.sh      the suite on that Paddle only
# The active virtual environment (else .venv) serves for the Paddle it holds, .venv-test-* for the other one.
set -euo pipefail
# shellcheck source=tools/setup_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"
cd "$PROJECT"
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT

summary=()
failed=0

# part NAME COMMAND...: run one part, whatever became of those before it, and note how it went.
part() {
  local name=$1 started=$SECONDS result=passed
  shift
  say "$name"
  ("$@") || result=FAILED
  if [ "$result" = FAILED ]; then failed=1; fi
  summary+=("$(printf '%-6s  %4d s  %s' "$result" $((SECONDS - started)) "$name")")
  [ "$result" = passed ]
}

own_environment=$(user_environment)
own_paddle=$(paddle_of "$own_environment")

# test_environment PADDLE: where that Paddle is tested.
test_environment() {
  local name=${1#paddle}
  if [ "$1" = "$own_paddle" ]; then echo "$own_environment"; else echo "$PROJECT/.venv-test-${name/==/}"; fi
}

check() {
  local python=$1
  part "ruff check" "$python" -m ruff check --extend-exclude '.venv*' . || true
  part "ruff format" "$python" -m ruff format --check --extend-exclude '.venv*' . || true
  part "mypy" "$python" -m mypy || true
}

# prepare PADDLE: make its environment, and check the code once.
prepare() {
  local paddle=$1 environment onnx=requirements/onnx.txt
  if is_paddle2 "$paddle"; then onnx=requirements/onnx_paddle2.txt; fi
  environment=$(test_environment "$paddle")
  part "environment for $paddle" prepare_environment "$environment" "$paddle" requirements/serve.txt requirements/dev.txt "$onnx" || return 0
  if [ "$checked" = no ]; then
    check "$environment/bin/python"
    checked=yes
  fi
  ready+=("$paddle")
}

suite() {
  local environment
  environment=$(test_environment "$1")
  shift
  "$environment/bin/python" -m pytest "$@"
}

# in_background LOG PADDLE [PYTEST_OPTION...]
in_background() {
  local log=$1
  shift
  if suite "$@" >"$log" 2>&1; then echo 0 >"$log.code"; else echo 1 >"$log.code"; fi
}

# show LOG: its lines once its suite has ended.
show() {
  until [ -s "$1.code" ]; do sleep 0.5; done
  cat "$1"
  return "$(cat "$1.code")"
}

# Two suites at the same time with one thread each take less than one after the other with two threads.
run_suites() {
  local folder=""
  if [ "${#ready[@]}" = 2 ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    folder=$(mktemp -d)
    in_background "$folder/log" "${ready[1]}" "$@" &
  fi
  part "pytest on ${ready[0]}" suite "${ready[0]}" "$@" || true
  if [ -n "$folder" ]; then
    part "pytest on ${ready[1]}, which ran meanwhile" show "$folder/log" || true
    rm -rf "$folder"
  fi
}

if [ -n "${PADDLE:-}" ]; then
  paddles=("$(chosen_by_hand "$PADDLE")")
else
  paddles=("$(pinned_paddle requirements.txt)" paddlepaddle==2.6.2)
  # A GPU build is tested where the machine has one, in place of the same version's CPU build.
  if [ "$own_paddle" = "$(pinned_paddle requirements/gpu.txt)" ]; then paddles[1]=$own_paddle; fi
fi
checked=no
ready=()
for paddle in "${paddles[@]}"; do prepare "$paddle"; done
if [ "${#ready[@]}" -gt 0 ]; then run_suites "$@"; fi

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
