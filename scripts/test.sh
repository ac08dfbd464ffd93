#!/usr/bin/env bash
# Lint, types, import contracts and tests, in a separate virtual environment.
#
#   bash scripts/test.sh            everything that is quick (minutes on two cores)
#   bash scripts/test.sh --slow     the slow tests instead
#   bash scripts/test.sh --ci-slow  the slow tests without lint and types, ended after an hour: what CI runs second
#   ENERF_DATA=DIR bash scripts/test.sh    also the tests on real scenes: DIR/llff/fern, DIR/blender/...
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment "[test]"

chosen="not slow" lint=yes limit=""
case "${1:-}" in
    --slow) chosen="slow" && shift ;;
    --ci-slow) chosen="slow" lint="" limit="timeout --kill-after=30 3600" && shift ;;
esac

# a process for each core, each computing on one thread: two that want all cores wait for each other
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
workers=$((cores < 2 ? 2 : cores > 8 ? 8 : cores))
export OMP_NUM_THREADS=1

pytest() {
    say "pytest: tests ($chosen), in $workers processes"
    exec $limit .venv/bin/python -m pytest -q -n "$workers" --dist worksteal -m "$chosen" "$@"
}

[ -n "$lint" ] || pytest "$@"
say "ruff: lint"
.venv/bin/ruff check .
say "ruff: format"
.venv/bin/ruff format --check .
say "mypy: types"
.venv/bin/mypy
say "import-linter: contracts"
.venv/bin/lint-imports
pytest "$@"
