"""HTTP clients for untrusted services: bounded answers, no redirects to other hosts, no kept connections.

It needs the HTTP library of the official client (package openai), so import it only where it is used.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx2
import openai

LEAST_BYTES = 1_000_000
"""Smallest limit of an answer's size in bytes: services add fields of their own."""

_BYTES_PER_TOKEN = 256
_SETTINGS: Mapping[str, Any] = {
    # Extra data after an answer on a kept connection would be read as the next answer.
    "limits": httpx2.Limits(max_connections=1000, max_keepalive_connections=0),
    "headers": {"Accept-Encoding": "gzip, deflate"},  # encodings that `_Unpacker` can unpack within a limit
    "max_redirects": 3,
}
_TEXT_ENCODING = re.compile(
    r"utf[-_]?8|(?:us[-_])?ascii|latin[-_]?1|iso[-_]8859[-_]\d{1,2}|(?:windows[-_]|cp)125\d", re.ASCII
)
"""Text encodings that are accepted; others of Python are unsafe on foreign data."""
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""`wbits` of zlib by content encoding."""


class Refused(openai.OpenAIError):
    """A refused response; as an error of the official client it is not retried."""


class Unusable(Refused):
    """The answer is longer than the token limit allows, or has an encoding that was not requested."""


class Redirected(Refused):
    """The service redirects the request, with its personal data, to another host."""


class Bound:
    """Largest size of an answer, packed and unpacked; may be changed between calls.

    Attributes:
        size: bytes.
    """

    def __init__(self, size: int = LEAST_BYTES) -> None:
        """Starts with the limit of short answers."""
        self.size = size


def answer_bytes(max_tokens: int) -> int:
    """Largest size in bytes of an answer with that many tokens."""
    return max(LEAST_BYTES, _BYTES_PER_TOKEN * max_tokens)


def async_http_client(bound: Bound) -> httpx2.AsyncClient:
    """For `openai.AsyncOpenAI`; proxies and certificates come from the environment."""

    async def guard(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Guarded(response.stream, _checked(response, bound))

    return openai.DefaultAsyncHttpxClient(event_hooks={"response": [guard]}, **_SETTINGS)


def http_client(bound: Bound) -> httpx2.Client:
    """For `openai.OpenAI`."""

    def guard(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Guarded(response.stream, _checked(response, bound))

    return openai.DefaultHttpxClient(event_hooks={"response": [guard]}, **_SETTINGS)


def _checked(response: httpx2.Response, bound: Bound) -> _Unpacker:
    """Checks the headers of an answer, and wraps its body."""
    _check_target(response)
    response.encoding = _text_encoding(response)
    return _Unpacker(response, bound.size)


def _text_encoding(response: httpx2.Response) -> str:
    """The text encoding that the service names; else that of JSON."""
    named = (response.charset_encoding or "").lower()
    return named if _TEXT_ENCODING.fullmatch(named) and _is_known(named) else "utf-8"


def _is_known(encoding: str) -> bool:
    try:
        return bool(codecs.lookup(encoding))
    except LookupError:
        return False


def _check_target(response: httpx2.Response) -> None:
    if not response.has_redirect_location:
        return
    asked = response.request.url
    target = asked.join(response.headers["location"])
    if _origin(target) != _origin(asked):
        raise Redirected(f"{target.scheme}://{target.host}:{_origin(target)[2]}")


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


class _Unpacker:
    """Unpacks an answer, and stops at the limit."""

    def __init__(self, response: httpx2.Response, bound: int) -> None:
        # Removed so that the HTTP library does not unpack the body, since it has no limit.
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in (*_ENCODINGS, "identity", ""):
            raise Unusable(f"the answer has content encoding {encoding[:40]!r}, which was not requested")
        self._bits, self._bound, self._read, self._written = _ENCODINGS.get(encoding, 0), bound, 0, 0
        self._decoder = zlib.decompressobj(self._bits) if self._bits else None

    def feed(self, data: bytes) -> bytes:
        self._read += len(data)
        if self._read > self._bound:
            raise Unusable(f"the answer is longer than {self._bound} bytes")
        return self._unpacked(data) if self._decoder else data

    def _unpacked(self, data: bytes) -> bytes:
        parts = []
        while data:
            assert self._decoder is not None
            try:
                part = self._decoder.decompress(data, self._bound - self._written + 1)
            except zlib.error as error:
                if self._bits != 15 or self._written:
                    raise Unusable(f"the compressed answer is damaged ({error})") from None
                # Some services send "deflate" without its header.
                self._bits = -15
                self._decoder = zlib.decompressobj(self._bits)
                continue
            self._written += len(part)
            if self._written > self._bound:
                raise Unusable(f"the answer is longer than {self._bound} bytes when it is unpacked")
            parts.append(part)
            data = self._decoder.unused_data
            if data and self._bits == 31:  # another member of a gzip file
                self._decoder = zlib.decompressobj(self._bits)
            else:
                break
        return b"".join(parts)

    def finish(self) -> None:
        if self._decoder and self._read and not self._decoder.eof:
            raise Unusable("the compressed answer is cut off")


class _Guarded(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A synchronous or asynchronous stream, unpacked."""

    def __init__(self, stream: Any, unpacker: _Unpacker) -> None:
        self._stream, self._unpacker = stream, unpacker

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            yield self._unpacker.feed(data)
        self._unpacker.finish()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            yield self._unpacker.feed(data)
        self._unpacker.finish()

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()
