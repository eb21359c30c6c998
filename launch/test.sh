#!/usr/bin/env bash
# Installs what the tests need and runs them.
#
#   bash launch/test.sh [--dry_run] [pytest arguments ...]
#
# Without arguments: every test that is not marked slow. All of them: bash launch/test.sh -m ''
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

parse_dry_run "$@"
setup_environment dev
run cd "$RELAND_ROOT"
run env HF_HUB_OFFLINE=1 "$RELAND_PYTHON" -m pytest -n auto --dist loadfile ${REST[@]+"${REST[@]}"}
