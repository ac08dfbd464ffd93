#!/usr/bin/env bash
# A NeRF and an E-NeRF of a small generated scene, compared: a table, pictures and a video.
# Installs into .venv the first time; after that under five minutes on two cores. Interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment ""

python=.venv/bin/python
say "1/3 the scene: rendered by the project's own ray tracer, in LLFF's folder format"
$python -m enerf.cli.generate scene --out data/demo
say "2/3 the two fields, same seed, same batches, same steps"
$python scripts/compare_nerf.py --config demo.txt --methods plain,equilibrate --seeds 0 "$@"
say "3/3 a novel-view video of the E-NeRF"
$python scripts/render_video.py logs/demo/equilibrate_seed0 --frames 30 --fps 15
