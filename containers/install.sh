#!/bin/sh
# Installs the package from this checkout into the Python that is found; both Dockerfiles and the check run it.
#
#   sh containers/install.sh cpu|cuda      PYTHON=python3 names another Python
#
# The versions are those of scripts/constraints.txt. cpu: the CPU build of torch that the tests use. cuda: the build
# that the base image has, which is kept.
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
case "${1:-}" in
    cpu) torch="torch==2.13.0" ;;
    cuda) torch="torch==$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')" ;;
    *) echo "usage: $0 cpu|cuda" >&2; exit 2 ;;
esac
"$python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -c scripts/constraints.txt \
    "$torch" ".[app,diagnostics,viewer,sfm,soap,scale,texture]"
"$python" -m pip check
