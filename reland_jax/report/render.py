"""HTML pages from templates."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from reland_jax.strings import visible

_HEAD = "head.html.j2"
"""Style and macros of every page."""


def render(body: str, values: Mapping[str, object]) -> str:
    """A self-contained HTML page: no script, no network, every text escaped and as it is seen.

    Args:
        body: file name of the template of the body.
        values: what the template shows.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )  # fmt: skip
    files = resources.files("reland_jax.report")
    source = "".join(files.joinpath(name).read_text(encoding="utf-8") for name in (_HEAD, body))
    return environment.from_string(source).render(values)


def _shown(value: Any) -> Any:
    """A text without characters that would turn or hide what stands around it; markup of ours as it is."""
    return visible(value) if type(value) is str else value
