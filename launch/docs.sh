#!/usr/bin/env bash
# Builds the documentation site: README, docs/, the map of the code, and the API from the docstrings.
#
#   bash launch/docs.sh [--dry_run] [arguments of `mkdocs build` ...]
#
# A warning, such as a broken link or a parameter described that a function does not have, is an error.
# The site is in build/docs/site; open index.html there. It loads nothing from the network. Only its search needs a
# server, for example: python -m http.server --directory build/docs/site
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

parse_dry_run "$@"
setup_environment docs
run cd "$RELAND_ROOT"
run "$RELAND_PYTHON" docs/pages.py build/docs
# mkdocs looks for ruff, which formats signatures, on the PATH.
run env "PATH=${RELAND_PYTHON%/*}:$PATH" NO_MKDOCS_2_WARNING=1 \
  "$RELAND_PYTHON" -m mkdocs build --strict --config-file build/docs/mkdocs.yml ${REST[@]+"${REST[@]}"}
[[ -n "$DRY_RUN" ]] || say "built in $SECONDS s, installation included; open $RELAND_ROOT/build/docs/site/index.html"
