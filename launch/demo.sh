#!/usr/bin/env bash
# The whole method on the generated demo data set, offline; about 10 minutes on 2 CPU cores.
#
#   bash launch/demo.sh [WORKDIR] [--dry_run] [flags of experiments.run ...]
#
# WORKDIR (default: workdir-demo in the repository) receives results.json and report.html. A second
# run with the same WORKDIR reuses what is up to date. --dry_run prints the commands instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

parse_dry_run "$@"
workdir="$RELAND_ROOT/workdir-demo"
if [[ ${#REST[@]} -gt 0 && "${REST[0]}" != -* ]]; then
  workdir="$(expand_home "${REST[0]}")"
  REST=("${REST[@]:1}")
fi
case "$workdir" in /*) ;; *) workdir="$PWD/$workdir" ;; esac

setup_environment core
say "running the demo: files go to $workdir"
run cd "$RELAND_ROOT"
# No model hub is asked: the text encoder's weights were installed above.
run env HF_HUB_OFFLINE=1 "$RELAND_PYTHON" -m experiments.run \
  --config=experiments/configs/reland.py:demo,sasrec "--workdir=$workdir" ${REST[@]+"${REST[@]}"}
[[ -n "$DRY_RUN" ]] || say "done in $SECONDS s, installation included; open $workdir/report.html"
