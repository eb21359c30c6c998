"""What stands before every request: the host, the token, the size of the body; and errors without traces."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reland_jax.server.batching import failed
from reland_jax.server.limits import Limits
from reland_jax.server.metering import Meters
from reland_jax.server.refusals import Refusal

OPEN = frozenset({"/", "/docs", "/healthz", "/readyz", "/openapi.json"})
"""Paths that hold nobody's data, and need no token."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names by which this machine calls itself; a page whose own name points here is not let in."""

_log = logging.getLogger(__name__)


class Guard:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        meters: Meters,
        paths: Collection[str],
        token: str = "",
        hosts: Collection[str] = (),
    ) -> None:
        """Guards an application.

        Args:
            app: the application.
            limits: of the server.
            meters: count what is answered.
            paths: that the application has; others are counted together.
            token: that clients must send as "Authorization: Bearer TOKEN"; "" lets everybody in.
            hosts: names by which the server may be called; none allows all.
        """
        self._app, self._limits, self._meters, self._paths = app, limits, meters, frozenset(paths)
        self._token, self._hosts = token.encode(), frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        begun, status, has_begun = time.monotonic(), 500, False

        async def sending(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _whole(body, receive), sending)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, sending)
        except Exception:
            _log.exception("a request to %s failed", scope["path"] if scope["path"] in self._paths else "?")
            if not has_begun:
                await _refuse(failed(), scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._meters.request(path, status, time.monotonic() - begun)

    def _check(self, scope: Scope) -> None:
        """The host and the token."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts and name not in self._hosts:
            raise Refusal(421, "this server does not go by that name", "Host", "call it localhost")
        if not self._token or scope["path"] in OPEN:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # In constant time: how long it takes says nothing of how much was right.
        if (
            not hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
            or kind != "Bearer"
        ):
            raise Refusal(
                401, "the token is missing or wrong", "Authorization", "send Authorization: Bearer TOKEN"
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, unless it is too large or does not arrive."""
        most = self._limits.body
        too_large = Refusal(413, f"the body has more than {most} bytes", "body", f"send at most {most} bytes")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > most:
            raise too_large
        parts, size = list[bytes](), 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the client went away", "body", "send the whole body")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            seconds = f"{self._limits.body_seconds:g} s"
            raise Refusal(
                408, f"the body did not arrive within {seconds}", "body", "send it faster"
            ) from None


_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def _whole(body: bytes, receive: Receive) -> Receive:
    """A receive channel that has the body at once."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return messages.pop() if messages else await receive()

    return receiving


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    answer = Response(refusal.body(), refusal.status, refusal.headers(), media_type="application/json")
    await answer(scope, receive, send)
