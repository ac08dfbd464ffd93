#!/usr/bin/env bash
# A small ResNet on generated images of ten figures, with and without equilibrated weights: a table and curves.
exec bash "$(dirname "$0")/demo.sh" classifiers "$@"
