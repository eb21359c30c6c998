"""HTML pages from templates."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

_HEAD = "head.html.j2"
"""Style and macros of every page."""


def render(body: str, values: Mapping[str, Any]) -> str:
    """A self-contained HTML page: no script, no network, every text escaped.

    Args:
        body: file name of the template of the body.
        values: what the template shows.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    files = resources.files("reland_jax.report")
    source = "".join(files.joinpath(name).read_text(encoding="utf-8") for name in (_HEAD, body))
    return environment.from_string(source).render(values)
