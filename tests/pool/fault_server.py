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
import contextlib
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple

GOOD = "good"
TRANSPORT = (
    "limited", "limited_wait", "limited_date", "error", "hang", "drop", "not_json", "no_choices", "spike",
    "long_spike",
)  # fmt: skip
"""Faults of the way there and back; another try may be treated well."""
HOSTILE = (
    "packed", "packed_bomb", "packed_badly", "packed_unasked", "endless", "huge", "redirect", "redirect_here",
    "wait_long", "more", "echo", "echo_packed", "half_usage",
)  # fmt: skip
"""What a service that is broken, or not to be trusted, sends; only where it is asked for by name."""
CONTENT = ("wrong_language", "no_step2", "no_step1")
"""Faults of what the LLM writes: the same whenever the prompt is asked alone, none when asked again."""

REFUSED_MARK = "[[refuse]]"
"""A prompt with this is refused with status 400."""
MALFORMED_MARK = "[[malformed]]"
"""A prompt with this never gets a usable answer."""
LONG_MARK = "[[long]]"
"""The answer to a prompt with this is cut off where it may have no more than `Settings.room` tokens."""
ENDLESS_MARK = "[[endless]]"
"""The answer to a prompt with this is always cut off."""


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
    room: int = 100
    elsewhere: str = ""
    dear: int = 0
    """1: what is billed is the most that it may be: the longest answer, and a token for every byte sent."""
    schema: str = "ignored"
    """A JSON schema is "ignored", "taken", or refused: "named" says why, "vague" does not."""


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
        self.billed = 0
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
        transport = [kind for kind in (*TRANSPORT, *HOSTILE) if kind in self.settings.kinds]
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
        return {
            "asked": len(self.log), "most_under_way": self.most_under_way, "kinds": self._kinds,
            "billed": self.billed,
        }  # fmt: skip

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
        self._busy, self._key = False, re.match("", "")

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
        self._key = re.search(r"(?i)authorization: *bearer *(\S*)", head.decode("latin-1"))
        if b"/moved/" in head.partition(b"\r\n")[0]:
            server.settings = server.settings._replace(faults=0.0)
        self._answer(json.loads(body))

    def _answer(self, request: dict[str, Any]) -> None:
        server, messages = self._server, request["messages"]
        prompt = messages[0]["content"]
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        schema = server.settings.schema if "response_format" in request else "ignored"
        if schema in ("named", "vague"):
            server.begin(Served(digest, len(messages), time.time(), "refused_schema"))
            self._busy = True
            self._respond(400, _error("no json_schema as response_format" if schema == "named" else "no"))
            return
        kind = server.treatment(prompt, digest, len(messages))
        server.begin(Served(digest, len(messages), time.time(), kind))
        self._busy = True
        if kind == "hang":
            return
        # A late answer has the same text as a prompt one.
        text = server.content(digest, len(messages)) if kind in ("spike", "long_spike") else kind
        room = request.get("max_tokens", request.get("max_completion_tokens"))
        cut = ENDLESS_MARK in prompt or (LONG_MARK in prompt and room <= server.settings.room)
        usage = (len(prompt.encode()) + 32, room) if server.settings.dear else None
        text = "fields" if schema == "taken" and text == GOOD else text
        body = completion(request["model"], prompt, digest, text, usage=usage, cut=cut)
        if kind not in _NOT_BILLED:
            # Billed as soon as it is begun, whether anybody is there to take it or not.
            server.billed += sum(usage or usage_of(prompt, content_of(digest, text)))
        asyncio.get_running_loop().call_later(server.delay(kind), self._finish, kind, body)

    def _finish(self, kind: str, body: str) -> None:
        if self._transport is None:
            return
        wait = self._server.settings.wait
        if kind in HOSTILE:
            self._attack(kind, body)
        elif kind == "drop":
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

    def _attack(self, kind: str, body: str) -> None:
        """Sends what no honest service sends."""
        raw, encoding = body.encode(), "Content-Encoding: gzip\r\n"
        if kind.startswith("packed") or kind == "echo_packed":
            if kind == "packed_unasked":
                encoding = "Content-Encoding: zstd\r\n"
            if kind == "echo_packed":
                raw = self._echoing(body).encode()
            packed = bomb(200_000_000) if kind == "packed_bomb" else gzip.compress(raw)
            self._send(200, packed[: len(packed) // 2] if kind == "packed_badly" else packed, encoding)
        elif kind == "endless":
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._flood()
        elif kind == "huge":
            self._send(200, raw.replace(b"Step 1:", b"Step 1: " + b"very " * 4_000_000))
        elif kind.startswith("redirect"):
            place = f"{self._server.settings.elsewhere if kind == 'redirect' else ''}/moved/chat/completions"
            self._send(307, b"", f"Location: {place}\r\n")
        elif kind == "wait_long":
            self._respond(429, _error("Rate limit reached"), "Retry-After: 3600\r\n")
        elif kind == "more":
            other = completion("m", "x", hashlib.sha256(b"of somebody else").hexdigest(), GOOD).encode()
            self._send(200, raw + _head(200, len(other), "") + other, length=len(raw))
        elif kind == "echo":
            self._send(200, self._echoing(body).encode())
        else:  # half_usage: one of the counts is missing
            value = json.loads(body)
            del value["usage"]["completion_tokens"]
            self._respond(200, json.dumps(value))

    def _echoing(self, body: str) -> str:
        """The answer with the key in it, letter by letter as JSON may write letters."""
        key = self._key[1] if self._key else ""
        return body.replace("natural care", "".join(f"\\u{ord(letter):04x}" for letter in key))

    def _flood(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if self._transport.get_write_buffer_size() < 1 << 20:
                self._transport.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            asyncio.get_running_loop().call_later(0.001, self._flood)

    def _send(self, status: int, raw: bytes, headers: str = "", length: int | None = None) -> None:
        self._end()
        if self._transport is not None:
            self._transport.write(_head(status, len(raw) if length is None else length, headers) + raw)

    def _respond(self, status: int, body: str, headers: str = "") -> None:
        self._send(status, body.encode(), headers)

    def _end(self) -> None:
        self._server.under_way -= self._busy
        self._busy = False


def completion(
    model: str,
    prompt: str,
    digest: str,
    kind: str,
    *,
    usage: tuple[int, int] | None = None,
    cut: bool = False,
) -> str:
    """The body of the chat completion for a prompt and a kind of treatment."""
    if kind == "not_json":
        return '{"id": "chatcmpl-1", "choices": [{"message": {"content": "Step 1: cut o'
    content = content_of(digest, kind)
    if cut:
        content = content[: len(content) * 2 // 3]
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    read, written = usage or usage_of(prompt, content)
    body = {
        "id": f"chatcmpl-{digest[:8]}",
        "object": "chat.completion",
        "created": 1_700_000_000 + int(digest[:5], 16),
        "model": f"{model}-0613",
        "choices": [] if kind == "no_choices" else [choice],
        "usage": {"prompt_tokens": read, "completion_tokens": written},
    }
    return json.dumps(body, ensure_ascii=False)


def usage_of(prompt: str, content: str) -> tuple[int, int]:
    """Tokens of a prompt and its answer by the server's own count."""
    return len(prompt.split()), len(content.split())


@lru_cache
def bomb(size: int) -> bytes:
    """So many bytes of nothing, packed to a thousandth."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b" " * 1_000_000) for _ in range(size // 1_000_000)]
    return b"".join([*parts, packer.flush()])


def content_of(digest: str, kind: str = GOOD) -> str:
    """The text of an answer."""
    if kind == "wrong_language":
        step1 = f"Step 1: 用户喜欢经典香水和护肤品 {digest[:8]}。\n"
        return f"{step1}Step 2: 推荐类别：香水；护肤。推荐商品：玫瑰水；面霜。"
    if kind == "fields":
        return fields_of(digest)
    step1 = f"Step 1: The shopper prefers scent number {digest[:8]} and natural care.\n"
    step2 = (
        f"Step 2: Recommended categories: perfume; soap; care of kind {digest[8:12]}. Recommended items: "
        f"Rose Water {digest[12:16]}; Oat Soap {digest[16:20]}; Shea Butter {digest[20:24]}."
    )
    return {"no_step2": step1, "no_step1": step2}.get(kind, step1 + step2)


def fields_of(digest: str) -> str:
    """The same in the fields of the schema."""
    items = [f"Rose Water {digest[12:16]}", f"Oat Soap {digest[16:20]}", f"Shea Butter {digest[20:24]}"]
    step2 = {"recommended_categories": ["perfume", "soap"], "recommended_items": items}
    return json.dumps({"step1": f"The shopper prefers scent number {digest[:8]}.", "step2": step2})


_NOT_BILLED = ("limited", "limited_wait", "limited_date", "error", "refused", "redirect", "wait_long")


@contextlib.contextmanager
def started(monkeypatch: Any, key: str = "no-secret") -> Iterator[Callable[..., Process]]:
    """Starts servers with settings of `Settings`, points the environment at the newest, and ends them all."""
    running: list[Process] = []

    def start(**settings: object) -> Process:
        running.append(Process(key, **settings))
        for name, value in running[-1].environment.items():
            monkeypatch.setenv(name, value)
        return running[-1]

    try:
        yield start
    finally:
        for process in running:
            process.end()


class Process:
    """The server in a process of its own.

    Attributes:
        address: where it listens.
        environment: variables that point a client to it.
    """

    def __init__(self, key: str = "no-secret", **settings: object) -> None:
        """Starts it.

        Args:
            key: that clients are to use.
            settings: of `Settings`.
        """
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, __file__, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.environment = {
            "OPENAI_BASE_URL": f"{self.address}/v1", "OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1"
        }  # fmt: skip

    def get(self, what: str) -> Any:
        """The JSON of `GET /what`."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.address}/{what}", timeout=60) as response:
            return json.load(response)

    def end(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


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
