#!/usr/bin/env bash
# Lint, types, import contracts and tests, in a separate virtual environment.
#
#   bash scripts/test.sh            everything that is quick (minutes on two cores)
#   bash scripts/test.sh --slow     the slow tests instead
#   ENERF_DATA=DIR bash scripts/test.sh    also the tests on real scenes: DIR/llff/fern, DIR/blender/...
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment "[test]"

chosen="not slow"
if [ "${1:-}" = "--slow" ]; then
    chosen="slow"
    shift
fi

say "ruff: lint"
.venv/bin/ruff check .
say "ruff: format"
.venv/bin/ruff format --check .
say "mypy: types"
.venv/bin/mypy
say "import-linter: contracts"
.venv/bin/lint-imports
say "pytest: tests ($chosen)"
exec .venv/bin/python -m pytest -q -m "$chosen" "$@"
