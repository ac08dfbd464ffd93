#!/usr/bin/env bash
# All GPU measurements, on a computer with a CUDA GPU: one part (at most nine minutes), or all of them in sequence.
#
#   bash benchmarks/gpu.sh PART|all [--data DIR] [--peer PATH] [--out FOLDER]
#
# Existing results are not measured again: repeat the command until it prints "all there". See benchmarks/gpu.py.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    [ -x "$root/.venv/bin/python" ] && python="$root/.venv/bin/python"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$root/benchmarks/gpu.py" "$@"
