#!/usr/bin/env bash
# A neural shape of a small generated mesh: a table, a mesh in the file's coordinates, pictures of it.
# Installs into .venv the first time; after that about a minute on two cores. Interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment ""

python=.venv/bin/python
say "1/3 the shape: ellipsoid, torus, plate and box with known volumes"
$python -m enerf.cli.generate shape --out data/shapes
say "2/3 its occupancy, learned by a hash grid"
$python scripts/fit_shape.py --config shape_demo.txt "$@"
say "3/3 a mesh of the field, coarse to fine, and pictures of it"
$python scripts/extract_mesh.py logs/demo_shape --resolution 256 --out logs/demo_shape/extracted.ply --views --frames 60
