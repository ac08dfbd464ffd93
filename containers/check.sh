#!/bin/sh
# What an installed package must do, without its checkout: train, report its state, render a video, extract a mesh.
#
#   sh containers/check.sh [COMMAND]       COMMAND: the enerf command (default: enerf)
set -eu
enerf="${1:-enerf}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$enerf" --version
"$enerf" generate scene --out scene --views 6 --width 32 --height 24
"$enerf" train --config demo.txt --datadir scene --expname run --N_iters 200 --i_video 0 --device auto
"$enerf" status logs
"$enerf" render logs/run --frames 2 --out video.mp4
"$enerf" extract logs/run --resolution 16 --out mesh.ply
test -s video.mp4 && test -s mesh.ply && echo "check passed"
