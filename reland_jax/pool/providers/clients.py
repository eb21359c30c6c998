"""HTTP clients for services that are not trusted: bounded answers, no redirect elsewhere, one answer each.

Imports the HTTP library of the official client (package openai), so it is imported where it is used.
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
"""Bound of an answer to a prompt, however few tokens were asked for: services add what they like."""

_BYTES_PER_TOKEN = 256
_SETTINGS: Mapping[str, Any] = {
    # What a service sends after an answer on a kept connection would be taken for the next answer.
    "limits": httpx2.Limits(max_connections=1000, max_keepalive_connections=0),
    "headers": {"Accept-Encoding": "gzip, deflate"},  # what `_Unpacker` can unpack within a bound
    "max_redirects": 3,
}
_TEXT_ENCODING = re.compile(
    r"utf[-_]?8|(?:us[-_])?ascii|latin[-_]?1|iso[-_]8859[-_]\d{1,2}|(?:windows[-_]|cp)125\d", re.ASCII
)
"""What a body may be written in; Python knows encodings that turn a text into anything, or fail."""
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Name -> `wbits` of zlib."""


class Refused(openai.OpenAIError):
    """A response that is refused; an error of the official client, which is not retried."""


class Unusable(Refused):
    """The answer is longer than what was asked for can be, or packed in a way that was not asked for."""


class Redirected(Refused):
    """The service redirects the request, with its personal data, to another host."""


class Bound:
    """How many bytes an answer may have, before and after it is unpacked; may be changed between calls.

    Attributes:
        size: bytes.
    """

    def __init__(self, size: int = LEAST_BYTES) -> None:
        """The bound of calls whose answers are short."""
        self.size = size


def answer_bytes(max_tokens: int) -> int:
    """Bytes that the body of an answer with so many tokens may have."""
    return max(LEAST_BYTES, _BYTES_PER_TOKEN * max_tokens)


def async_http_client(bound: Bound) -> httpx2.AsyncClient:
    """For `openai.AsyncOpenAI`; proxies and certificates come from the environment as ever."""

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
    """Looks at the head of an answer, and returns what its body goes through."""
    _check_target(response)
    response.encoding = _text_encoding(response)
    return _Unpacker(response, bound.size)


def _text_encoding(response: httpx2.Response) -> str:
    """The encoding that the service names, if it is one of a text; else that of JSON."""
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
        # Taken away, so that the HTTP library does not unpack: it knows no bound.
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in (*_ENCODINGS, "identity", ""):
            raise Unusable(f"an answer packed as {encoding[:40]!r}, which was not asked for")
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
                    raise Unusable(f"the packing of the answer is damaged ({error})") from None
                # "deflate" without the header that belongs to it, as some services send it.
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
            raise Unusable("the packed answer is cut off")


class _Guarded(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A stream of either kind, through the unpacker."""

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
