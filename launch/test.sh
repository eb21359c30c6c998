#!/usr/bin/env bash
# Installs what the tests need and runs them.
#
#   bash launch/test.sh [--optional] [--dry_run] [pytest arguments ...]
#
# Without arguments: every test that is not marked slow. All of them: bash launch/test.sh -m ''
# --optional: the tests of parts that need optional packages (ScaNN, Ray), which are installed as well.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

parse_dry_run "$@"
set=dev
if [[ "${REST[0]:-}" == --optional ]]; then
  set=optional
  REST=(-m optional "${REST[@]:1}")
fi
setup_environment "$set"
run cd "$RELAND_ROOT"
run env HF_HUB_OFFLINE=1 "$RELAND_PYTHON" -m pytest -n auto --dist loadfile ${REST[@]+"${REST[@]}"}
