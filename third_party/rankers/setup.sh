#!/usr/bin/env bash
# Makes the environment that the other libraries of rankers run in.
#
#   bash third_party/rankers/setup.sh [FOLDER] [--dry_run]
#
# FOLDER is by default third_party/rankers/.venv, where ranker_bench.py looks for it. Nothing of it is shared with
# this project's own environment. --dry_run prints the commands instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../launch/setup.sh"

parse_dry_run "$@"
folder="${REST[0]:-$here/.venv}"
say "making the environment of the other libraries in $folder (a few GB with PyTorch, a few minutes)"
run python3.11 -m venv "$folder"
run "$folder/bin/python" -m pip install -qq --disable-pip-version-check -r "$here/requirements.txt"
