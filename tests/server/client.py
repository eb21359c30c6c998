"""A client that calls an ASGI application in the process, and speaks no HTTP on a wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: of HTTP.
        headers: by name in small letters.
        body: all of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Calls one application."""

    def __init__(self, app: Any) -> None:
        """Takes the application."""
        self._app = app

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """The lifespan of the application around what is done meanwhile."""
        received, done = asyncio.Queue[dict[str, str]](), asyncio.Queue[dict[str, str]]()
        task = asyncio.create_task(self._app({"type": "lifespan"}, received.get, done.put))
        await received.put({"type": "lifespan.startup"})
        assert (await done.get())["type"] == "lifespan.startup.complete"
        try:
            yield self
        finally:
            await received.put({"type": "lifespan.shutdown"})
            assert (await done.get())["type"] == "lifespan.shutdown.complete"
            await task

    async def ready(self) -> None:
        """Waits until the programs are compiled."""
        while (await self.get("/readyz")).status != 200:
            await asyncio.sleep(0.02)

    async def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return await self.call("GET", path, [b""], headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST of JSON, or of bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", path, [raw], headers)

    async def call(
        self, method: str, path: str, parts: Iterable[bytes], headers: dict[str, str] | None = None
    ) -> Answer:
        """Any method, with a body in parts; where these end in None, the client goes away."""
        place, messages = urlsplit(path), _messages(list(parts))
        given = {"host": "localhost"} | (headers or {})
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "path": place.path, "raw_path": place.path.encode(), "query_string": place.query.encode(),
            "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("localhost", 8000),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], found, body)


def _messages(parts: list[Any]) -> list[dict[str, Any]]:
    last = len(parts) - 1
    return [
        {"type": "http.disconnect"}
        if part is None
        else {"type": "http.request", "body": part, "more_body": place < last}
        for place, part in enumerate(parts)
    ]
