r"""Serves recommendations over HTTP, with a page to try them.

    python -m experiments.serve --bundle=BUNDLE [--bundle=NAME=BUNDLE ...] [--port=8000]

POST /recommend, /explain, /similar; GET /items, /models, /healthz, /readyz, /metrics, /openapi.json, /docs
and the page at /. Several bundles are shown side by side there; a request names one as "model", and the first
is the usual one. A bundle that is put in the place of one that is served is taken into service without a
dropped request (SIGHUP makes the server look at once); a damaged one is refused, and the old one goes on.

The server listens to this machine alone unless --host says otherwise; then it wants a token, which is read
from the environment variable RELAND_SERVE_TOKEN and sent by clients as "Authorization: Bearer TOKEN".
Needs: pip install -r requirements-serve.txt
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.harness.logs import log_to_console
from reland_jax.types import RelandError

TOKEN = "RELAND_SERVE_TOKEN"
_NEEDED = ("starlette", "uvicorn", "pydantic", "prometheus_client")


def main() -> None:
    """Serves until it is told to stop."""
    given = flags.FLAGS
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise RelandError(f"{', '.join(missing)}: not installed; pip install {' '.join(missing)}")
    log_to_console()
    from reland_jax.device import keep_programs
    from reland_jax.server import Address, Limits, Server, check_open, names_of, serve

    address, token = Address(given.host, given.port), os.environ.get(TOKEN, "")
    check_open(address, token, given.open)
    if folder := _usual_programs() if given.programs is None else given.programs:
        keep_programs(Path(folder))
    limits = Limits(
        k=given.max_k, history=given.max_history, body=given.max_body, queue=given.queue, batch=given.batch,
        seconds=given.seconds,
    )  # fmt: skip
    hosts = [*given.allowed_host, *address.hosts]
    server = Server(
        names_of(given.bundle), limits, token=token, hosts=hosts, watch=given.watch, borrowed=given.borrowed
    )
    serve(server, address, grace=given.grace, patience=given.patience)


def _usual_programs() -> str:
    """A folder among those that this user's programs may delete at any time; "" for a user without a home."""
    from reland_jax.device import PROGRAMS

    home = os.path.expanduser("~/.cache")
    place = os.environ.get("XDG_CACHE_HOME") or (home if os.path.isabs(home) else "")
    return place and os.path.join(place, "reland_jax", PROGRAMS)


def define_flags() -> None:
    """Registers the flags."""
    flags.DEFINE_multi_string(
        "bundle", None, "Folder of a bundle, or NAME=FOLDER; repeatable.", required=True
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen to; 0.0.0.0 is all networks.")
    flags.DEFINE_integer("port", 8000, "Port to listen to; 0 lets the system choose.", 0, 65535)
    flags.DEFINE_bool("open", False, "Listen to a network without a token.")
    flags.DEFINE_multi_string("allowed_host", [], "Name by which clients may call the server; repeatable.")
    flags.DEFINE_integer("max_k", 100, "Longest list.", lower_bound=1)
    flags.DEFINE_integer("max_history", 200, "Longest history of a new user.", lower_bound=1)
    flags.DEFINE_integer("max_body", 1 << 16, "Largest body of a request, in bytes.", lower_bound=1)
    flags.DEFINE_integer("queue", 1024, "Requests that may wait; further ones are told to come back.", 1)
    flags.DEFINE_integer("batch", 64, "Requests that are answered together.", lower_bound=1)
    flags.DEFINE_float("seconds", 5.0, "Seconds after which a request that waits is given up.", 0.001)
    flags.DEFINE_float("watch", 2.0, "Seconds between two looks for new bundles; 0: only on SIGHUP.", 0.0)
    flags.DEFINE_float(
        "grace", 0.0, "Seconds from SIGTERM, when /readyz says no, to the end of listening.", 0.0
    )
    flags.DEFINE_float("patience", 30.0, "Seconds that requests in progress are given to finish.", 1.0)
    flags.DEFINE_enum(
        "borrowed", "step2", ["step2", "all", "none"],
        "What is shown of rationales written from another user's history: what they recommend (step2), also "
        "that user's tastes (all), or nothing.",
    )  # fmt: skip
    define_path(
        "programs", None,
        "Folder in which compiled programs are kept for the next start; empty: none. By default one in the "
        "user's folder of caches.",
    )  # fmt: skip


if __name__ == "__main__":
    command_line.run(main, define_flags)
