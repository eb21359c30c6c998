"""The web pages, each in one file that loads nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@cache
def page(name: str) -> Response:
    """A page of this folder.

    Its policy lets the browser run the script that is in it and no other, and ask this server alone.

    Args:
        name: of the file.
    """
    text = (files("reland_jax.server") / name).read_text("utf-8")
    hashes = [hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(text)]
    scripts = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})
