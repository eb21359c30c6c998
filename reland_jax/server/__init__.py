"""A server of recommendations over HTTP, on Starlette and uvicorn (requirements-serve.txt).

A wing beside `serve`, whose door it uses: it knows nothing of how a list is made. What needs the optional
packages is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reland_jax.server.limits import Limits
from reland_jax.server.shelf import names_of

if TYPE_CHECKING:
    from reland_jax.server.app import Server
    from reland_jax.server.running import Address, check_open, serve

__all__ = ["Address", "Limits", "Server", "check_open", "names_of", "serve"]


def __getattr__(name: str) -> Any:
    """`Server` and what runs it."""
    from importlib import import_module

    if name == "Server":
        return import_module("reland_jax.server.app").Server
    if name in ("Address", "check_open", "serve"):
        return getattr(import_module("reland_jax.server.running"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
