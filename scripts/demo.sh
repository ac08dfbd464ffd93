#!/usr/bin/env bash
# A NeRF of a small generated scene with a video, depth and a mesh, then NeRF and E-NeRF compared: a table and curves.
# Installs into .venv the first time; under five minutes on two cores, installation included. Interrupted, it resumes.
#   bash scripts/demo.sh [nerf|shapes|classifiers]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment "[app]"
exec .venv/bin/enerf demo "$@"
