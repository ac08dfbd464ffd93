#!/usr/bin/env bash
# All GPU figures, wherever a CUDA GPU is met: one part (at most nine minutes), or all of them one after the other.
#
#   bash benchmarks/gpu.sh PART|all [--data DIR] [--peer PATH] [--out FOLDER]
#
# What is there is not measured again: give the same command until it says "all there". See benchmarks/gpu.py.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    [ -x "$root/.venv/bin/python" ] && python="$root/.venv/bin/python"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$root/benchmarks/gpu.py" "$@"
