#!/usr/bin/env bash
# Makes the environment that RecBole runs in: Python 3.10 or 3.11, and the pins of requirements.txt.
#
#   bash third_party/recbole/setup.sh [FOLDER] [--dry_run]
#
# FOLDER is by default third_party/recbole/.venv, where bench.py looks for it. Nothing of it is shared
# with this project's own environment. --dry_run prints the commands instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../launch/setup.sh"

parse_dry_run "$@"
folder="${REST[0]:-$here/.venv}"

find_old_python() {
  local name
  for name in python3.11 python3.10 python3; do
    "$name" -c 'import sys; raise SystemExit(sys.version_info[:2] not in ((3, 10), (3, 11)))' \
      2>/dev/null || continue
    command -v "$name"
    return
  done
  fail "RecBole 1.2.1 needs Python 3.10 or 3.11 (its ray has no wheels for newer ones); none found."
}

python="$(find_old_python)"
say "making RecBole's environment in $folder with $("$python" -V) (2 GB, a few minutes)"
run "$python" -m venv "$folder"
run "$folder/bin/python" -m pip install -qq --disable-pip-version-check \
  --extra-index-url https://download.pytorch.org/whl/cpu -r "$here/requirements.txt"
