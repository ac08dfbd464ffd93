#!/usr/bin/env bash
# What matters on a GPU, in at most eight minutes: tests, steps per second, cost of equilibration, time to PSNR, frames.
#
#   bash benchmarks/gpu_first.sh [--bundle FOLDER] [--peer PATH] [--out FOLDER] [--minutes 8] [--only PART ...] [--dry_run]
#
# FOLDER is made by gpu_bundle.py; the machine needs torch for CUDA and no network. See benchmarks/gpu_first.py.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    [ -x "$root/.venv/bin/python" ] && python="$root/.venv/bin/python"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$root/benchmarks/gpu_first.py" "$@"
