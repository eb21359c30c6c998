"""Files in the OpenAI batch format: the lines of requests and of answers, and the service's bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from reland_jax.config import PoolConfig
from reland_jax.files import write_bytes
from reland_jax.pool.answer_format import FORMAT, is_about_format, response_format
from reland_jax.pool.asking.chat import BOUND, PASSING
from reland_jax.pool.asking.replies import Turn
from reland_jax.pool.reading.answers import short
from reland_jax.pool.reading.objects import objects_in, read_whole
from reland_jax.types import RelandError

ENDPOINT: Final = "/v1/chat/completions"
MAX_REQUESTS = 50_000
"""Largest number of requests in one file of the OpenAI service."""
MAX_BYTES = 200_000_000
"""Largest size of one file of the OpenAI service, in bytes."""

_LABELS = ("custom_id", "key", "recordId")
"""Field of a request's name: of OpenAI and Anthropic, Gemini, and Bedrock."""
_AGAIN = "-again"
_START = '{"custom_id": "reland-'


class Failure(NamedTuple):
    """Why one request has no answer.

    Attributes:
        why: the reason, with file and line.
        passing: whether another try may succeed.
        setting: the parameter that the service refuses, "" if it names none.
    """

    why: str
    passing: bool
    setting: str = ""


def custom_id(key: str, again: bool = False) -> str:
    """Name of a request in a batch file, from its key in the journal; it does not identify the user.

    At most 64 characters, the bound of common batch services.

    Args:
        key: `request_key` of the prompt, hexadecimal.
        again: whether it is the second try, which quotes the unusable first answer.
    """
    return f"reland-{key[:48]}{_AGAIN if again else ''}"


def is_again(name: str) -> bool:
    """Whether a request of this name is a second try."""
    return name.endswith(_AGAIN)


def request_line(name: str, turn: Turn, config: PoolConfig, bound: str = BOUND) -> str:
    """One line of a request file, with its line end; `bound` is `BOUND` or `NEWER_BOUND`."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [dict(message) for message in turn.messages],
        bound: turn.max_tokens,
        "temperature": config.temperature,
    }
    if asked := response_format(config):
        body[FORMAT] = asked
    line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, ensure_ascii=False) + "\n"


def split_lines(
    lines: Sequence[str], max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES
) -> list[list[str]]:
    """The lines in order, divided into files that are filled up to the limits.

    A line that is longer than `max_bytes` gets a file of its own, for the service to judge.
    """
    parts: list[list[str]] = []
    size = 0
    for line in lines:
        length = len(line.encode("utf-8"))
        if not parts or len(parts[-1]) >= max_requests or size + length > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += length
    return parts


def write_file(path: Path, content: str) -> None:
    """Writes a file atomically, unless it already has this content."""
    if path.exists() and path.read_bytes() == content.encode("utf-8"):
        return
    write_bytes(path, content.encode("utf-8"), private=True)


def is_request_file(path: Path) -> bool:
    """Whether a file holds requests of this program, by the name of the first one."""
    with path.open("rb") as file:
        return file.read(len(_START)) == _START.encode()


def read_bytes(path: Path) -> bytes:
    """The content of a response file.

    Raises:
        RelandError: it cannot be read, or is larger than answers can be.
    """
    try:
        return read_whole(path)
    except OSError as error:
        raise RelandError(f"{path}: the response file cannot be read ({error.strerror})") from error


def response_lines(content: bytes, name: str) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """Every line as (file:line, object or error message); see `objects_in`."""
    for where, value in objects_in(content, name):
        yield where, f"{value}; the line is not used" if isinstance(value, str) else value


def label_in(line: Mapping[str, Any]) -> str | None:
    """Name of the request that a response line answers, None without one; the field varies by service."""
    label = next((line[name] for name in _LABELS if name in line), None)
    return label if isinstance(label, str) else None


def body_in(line: Mapping[str, Any]) -> Any | Failure:
    """The unparsed body of the chat completion in one response line, or why there is none.

    The envelopes of OpenAI, Gemini (the response is the body), Anthropic (a result) and Bedrock (the output
    of the model) are known.
    """
    if line.get("error"):
        return Failure(f"the service reports an error: {short(line['error'])}", True)
    result = line.get("result")
    if isinstance(result, dict):
        done = result.get("type") == "succeeded"
        return result.get("message") if done else Failure(f"the service reports: {short(result)}", True)
    response = _decoded(line.get("response", line.get("modelOutput")))
    if isinstance(response, str):
        return {"content": response}
    if not isinstance(response, dict) or not response:
        told = f"; the service reports: {short(line['status'])}" if line.get("status") else ""
        return Failure(f"the line has no response{told}", True)
    body, status = _decoded(response.get("body", response)), response.get("status_code", 200)
    if str(status) != "200":
        refused = re.fullmatch(r"4\d\d", str(status)) and int(status) not in PASSING
        return Failure(f"status {status}: {short(body)}", not refused, _setting_refused(body))
    return body


def _decoded(body: Any) -> Any:
    """The body, which some programs write as a JSON string."""
    try:
        return json.loads(body) if isinstance(body, str) else body
    except (ValueError, RecursionError):
        return body


def _setting_refused(body: Any) -> str:
    """The parameter that an error message names, "" if none."""
    error = body.get("error") if isinstance(body, dict) else None
    setting = error.get("param") if isinstance(error, dict) else None
    if isinstance(setting, str) and setting:
        return setting
    return FORMAT if is_about_format(short(error or body)) else ""
