"""HTML pages from templates, written so that no half page is left behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
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


def write_text(path: Path, text: str) -> None:
    """Writes a file aside and then renames it; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
