#!/usr/bin/env bash
# A neural shape of a generated mesh: a table, a mesh in the file's coordinates, pictures of it.
exec bash "$(dirname "$0")/demo.sh" shapes "$@"
