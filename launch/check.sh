#!/usr/bin/env bash
# Checks the code without running it: its style with ruff, its types with mypy. Both are configured in pyproject.toml.
#
#   bash launch/check.sh [--dry_run] [arguments of mypy ...]
#
# Without arguments mypy checks reland_jax/, experiments/ and launch/: half a minute the first time, then seconds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

parse_dry_run "$@"
setup_environment dev
run cd "$RELAND_ROOT"
run "$RELAND_PYTHON" -m ruff check .
run "$RELAND_PYTHON" -m mypy ${REST[@]+"${REST[@]}"}
