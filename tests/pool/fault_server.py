"""A local service that speaks the OpenAI chat protocol and misbehaves on purpose, the same way every time.

    python tests/pool/fault_server.py --faults=0.2 --latency=0.1

It prints its port and serves until it is ended. Which request is treated badly, and how, depends only on
the seed, the prompt, and how often that prompt was asked; the text of a good answer depends only on the
prompt. `GET /log` lists every request: hash of the prompt, number of messages, time, kind of treatment.

Needs nothing but the standard library, so that it stays out of the way of what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import time
from collections import Counter
from email.utils import formatdate
from typing import Any, NamedTuple

GOOD = "good"
TRANSPORT = (
    "limited", "limited_wait", "limited_date", "error", "hang", "drop", "not_json", "no_choices", "spike",
    "long_spike",
)  # fmt: skip
"""Faults of the way there and back; another try may be treated well."""
CONTENT = ("wrong_language", "no_step2", "no_step1")
"""Faults of what the LLM writes: the same whenever the prompt is asked alone, none when asked again."""

REFUSED_MARK = "[[refuse]]"
"""A prompt with this is refused with status 400."""
MALFORMED_MARK = "[[malformed]]"
"""A prompt with this never gets a usable answer."""


class Settings(NamedTuple):
    """How the server behaves; times in seconds."""

    seed: int = 0
    faults: float = 0.0
    kinds: tuple[str, ...] = (*TRANSPORT, *CONTENT)
    latency: float = 0.0
    rate: float = 0.0
    wait: float = 1.0
    spike: float = 2.0
    long_spike: float = 60.0
    require_key: str = ""


class Served(NamedTuple):
    """One request: hash of its prompt, number of its messages, when it came, and what was done."""

    prompt: str
    messages: int
    at: float
    kind: str


class FaultServer:
    """State of the server, shared by its connections."""

    def __init__(self, settings: Settings) -> None:
        """Nothing asked yet."""
        self.settings = settings
        self.log: list[Served] = []
        self.under_way = self.most_under_way = 0
        self._kinds: Counter[str] = Counter()
        self._times_asked: Counter[str] = Counter()
        self._free_at = 0.0

    def treatment(self, prompt: str, digest: str, messages: int) -> str:
        """The kind of treatment of this request."""
        if REFUSED_MARK in prompt:
            return "refused"
        if MALFORMED_MARK in prompt:
            return "no_step2"
        number = self._times_asked[digest]
        self._times_asked[digest] += 1
        chance = random.Random(f"{self.settings.seed} {digest} {number}")
        transport = [kind for kind in TRANSPORT if kind in self.settings.kinds]
        share = len(transport) / len(self.settings.kinds) if self.settings.kinds else 0.0
        if chance.random() < self.settings.faults * share:
            return chance.choice(transport)
        return self.content(digest, messages)

    def content(self, digest: str, messages: int) -> str:
        """What the LLM would write, whatever happens on the way: `GOOD` or one of `CONTENT`."""
        kinds = [kind for kind in CONTENT if kind in self.settings.kinds]
        share = len(kinds) / len(self.settings.kinds) if self.settings.kinds else 0.0
        chance = random.Random(f"{self.settings.seed} {digest}")
        faulty = messages == 1 and chance.random() < self.settings.faults * share
        return chance.choice(kinds) if faulty else GOOD

    def delay(self, kind: str) -> float:
        """Seconds until the response, by latency and by what the server can do in a second."""
        latency = self.settings.latency
        if kind == "spike":
            latency += self.settings.spike
        elif kind == "long_spike":
            latency += self.settings.long_spike
        elif kind in ("limited", "limited_wait", "limited_date", "error", "refused"):
            latency /= 10
        if not self.settings.rate:
            return latency
        now = time.monotonic()
        self._free_at = max(self._free_at + 1 / self.settings.rate, now + latency)
        return self._free_at - now

    def stats(self) -> dict[str, Any]:
        """Counts for `GET /stats`."""
        return {"asked": len(self.log), "most_under_way": self.most_under_way, "kinds": self._kinds}

    def begin(self, served: Served) -> None:
        """Notes a request that is under way from now."""
        self.log.append(served)
        self._kinds[served.kind] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)


class Connection(asyncio.Protocol):
    """One HTTP connection with requests one after the other."""

    def __init__(self, server: FaultServer) -> None:
        """Not connected yet."""
        self._server, self._buffer = server, b""
        self._transport: asyncio.Transport | None = None
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """What is not answered yet never will be."""
        self._transport = None
        self._end()

    def data_received(self, data: bytes) -> None:
        """Collects a request, and serves it when it is whole."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        length = int(found[1]) if found else 0
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._serve(head, rest[:length])

    def _serve(self, head: bytes, body: bytes) -> None:
        server = self._server
        if head.startswith(b"GET /stats"):
            self._respond(200, json.dumps(server.stats()))
            return
        if head.startswith(b"GET /log"):
            self._respond(200, json.dumps(server.log))
            return
        key = server.settings.require_key
        if key and f"bearer {key}".lower() not in head.decode("latin-1").lower():
            said = re.search(rb"(?i)authorization: *(.*)", head)
            self._respond(401, _error(f"Incorrect API key provided: {said[1].decode() if said else ''}"))
            return
        self._answer(json.loads(body))

    def _answer(self, request: dict[str, Any]) -> None:
        server, messages = self._server, request["messages"]
        prompt = messages[0]["content"]
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        kind = server.treatment(prompt, digest, len(messages))
        server.begin(Served(digest, len(messages), time.time(), kind))
        self._busy = True
        if kind == "hang":
            return
        # A late answer has the same text as a prompt one.
        text = server.content(digest, len(messages)) if kind in ("spike", "long_spike") else kind
        body = completion(request["model"], prompt, digest, text)
        asyncio.get_running_loop().call_later(server.delay(kind), self._finish, kind, body)

    def _finish(self, kind: str, body: str) -> None:
        if self._transport is None:
            return
        wait = self._server.settings.wait
        if kind == "drop":
            raw = body.encode()
            self._transport.write(_head(200, len(raw), "") + raw[: len(raw) // 2])
            self._transport.close()
        elif kind == "limited_wait":
            self._respond(429, _error("Rate limit reached"), f"Retry-After: {wait:g}\r\n")
        elif kind == "limited_date":
            # A date has whole seconds: rounded up, so that it asks for at least the wait.
            date = formatdate(int(time.time() + wait) + 1, usegmt=True)
            self._respond(429, _error("Rate limit reached"), f"Retry-After: {date}\r\n")
        elif kind in ("limited", "error", "refused"):
            status = {"limited": 429, "error": 500, "refused": 400}[kind]
            self._respond(status, _error("no"))
        else:
            self._respond(200, body)

    def _respond(self, status: int, body: str, headers: str = "") -> None:
        self._end()
        if self._transport is not None:
            raw = body.encode()
            self._transport.write(_head(status, len(raw), headers) + raw)

    def _end(self) -> None:
        self._server.under_way -= self._busy
        self._busy = False


def completion(model: str, prompt: str, digest: str, kind: str) -> str:
    """The body of the chat completion for a prompt and a kind of treatment."""
    if kind == "not_json":
        return '{"id": "chatcmpl-1", "choices": [{"message": {"content": "Step 1: cut o'
    content = content_of(digest, kind)
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {
        "id": f"chatcmpl-{digest[:8]}",
        "object": "chat.completion",
        "created": 1_700_000_000 + int(digest[:5], 16),
        "model": f"{model}-0613",
        "choices": [] if kind == "no_choices" else [choice],
        "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": len(content.split())},
    }
    return json.dumps(body, ensure_ascii=False)


def content_of(digest: str, kind: str = GOOD) -> str:
    """The text of an answer."""
    if kind == "wrong_language":
        step1 = f"Step 1: 用户喜欢经典香水和护肤品 {digest[:8]}。\n"
        return f"{step1}Step 2: 推荐类别：香水；护肤。推荐商品：玫瑰水；面霜。"
    step1 = f"Step 1: The shopper prefers scent number {digest[:8]} and natural care.\n"
    step2 = (
        f"Step 2: Recommended categories: perfume; soap; care of kind {digest[8:12]}. Recommended items: "
        f"Rose Water {digest[12:16]}; Oat Soap {digest[16:20]}; Shea Butter {digest[20:24]}."
    )
    return {"no_step2": step1, "no_step1": step2}.get(kind, step1 + step2)


def _head(status: int, length: int, headers: str) -> bytes:
    date = formatdate(usegmt=True)
    text = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nDate: {date}\r\n"
    return f"{text}Content-Length: {length}\r\n{headers}\r\n".encode()


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "test", "code": None}})


async def serve(settings: Settings) -> None:
    """Serves for ever on a free port, and prints it."""
    state = FaultServer(settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Reads the settings from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in Settings()._asdict().items():
        if name == "kinds":
            parser.add_argument(
                "--kinds", type=lambda text: tuple(filter(None, text.split(","))), default=value
            )
        else:
            parser.add_argument(f"--{name}", type=type(value), default=value)
    asyncio.run(serve(Settings(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
