#!/usr/bin/env bash
# A small ResNet on generated pictures of ten figures, with and without equilibrated weights: a table and curves.
# Installs into .venv the first time; after that about two minutes on two cores. Interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment ""

python=.venv/bin/python
say "1/2 the images: 2,000 pictures for training and 500 for testing"
[ -f data/figures/batches.meta.txt ] || $python -m enerf.datasets.labelled.synthetic data/figures --kind cifar --n_train 2000 --n_test 500
say "2/2 batch normalization alone, with weight normalisation, weight standardisation, equilibration"
$python scripts/compare_classifiers.py --config classifier_demo.txt --expname demo_classifiers "$@"
