"""Rationales through files in the OpenAI batch format, for the OpenAI Batch API or `vllm run-batch`.

The first run writes the requests and stops with `AwaitingResponses`; a person has them answered; the
next run reads the answers. Nothing needs to be running in between.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.config import PoolConfig
from reland_jax.pool.contract import Problem, ProviderResult, RationaleRequest
from reland_jax.pool.parser import parse_response, plain_text
from reland_jax.pool.prompts import prompt_hash
from reland_jax.types import Rationale, RelandError

REQUEST_FILE = "batch_requests.jsonl"
RESPONSE_FILE = "batch_responses.jsonl"
ENDPOINT = "/v1/chat/completions"


class AwaitingResponses(RelandError):
    """The requests are written and wait for an LLM; not a failure, but nothing can go on before.

    Attributes:
        request_path: the request file.
        response_path: where the answers are looked for.
        num_requests: lines of the request file.
    """

    def __init__(self, request_path: Path, response_path: Path, num_requests: int, model: str) -> None:
        """Composes the message: what to run next, and how to go on."""
        self.request_path, self.response_path, self.num_requests = request_path, response_path, num_requests
        requests, responses = shlex.quote(str(request_path)), shlex.quote(str(response_path))
        super().__init__(
            f"{num_requests} prompts wait for answers: {request_path}\n"
            "Have them answered, by vLLM:\n"
            f"  vllm run-batch -i {requests} -o {responses} --model {shlex.quote(model)}\n"
            "or by the OpenAI Batch API (the key is read from $OPENAI_API_KEY):\n"
            '  curl https://api.openai.com/v1/files -H "Authorization: Bearer $OPENAI_API_KEY"'
            f" -F purpose=batch -F file=@{requests}\n"
            '  curl https://api.openai.com/v1/batches -H "Authorization: Bearer $OPENAI_API_KEY"'
            " -H 'Content-Type: application/json' -d "
            f'\'{{"input_file_id": "FILE_ID", "endpoint": "{ENDPOINT}", "completion_window": "24h"}}\'\n'
            '  curl https://api.openai.com/v1/files/OUTPUT_FILE_ID/content -H "Authorization: Bearer '
            f'$OPENAI_API_KEY" > {responses}\n'
            f"Then give the same command again: it reads {response_path} "
            "(or the file that config.pool.path names)."
        )


class _Answer(NamedTuple):
    """One answered request: text, who wrote it, tokens, time."""

    content: str
    model: str
    prompt_tokens: int
    response_tokens: int
    created: str


class BatchProvider:
    """Writes a request file, or reads the answers to it if they are there.

    Attributes:
        request_path: `REQUEST_FILE` in the given folder.
        response_path: `config.path`, or `RESPONSE_FILE` in the folder if that is empty.
    """

    def __init__(self, config: PoolConfig, folder: Path) -> None:
        """Nothing is read or written yet."""
        self._config = config
        self.request_path = folder / REQUEST_FILE
        self.response_path = Path(config.path) if config.path else folder / RESPONSE_FILE

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Parses the answers, in the order of the requests, whatever their order in the file.

        Raises:
            AwaitingResponses: there is no response file; the request file is written.
            RelandError: the response file answers none of these requests.
        """
        hashes = [prompt_hash(request.prompt) for request in requests]
        lines = {custom_id(digest): r.prompt for digest, r in zip(hashes, requests, strict=True)}
        _write(self.request_path, "".join(self._line(*line) for line in lines.items()))
        if not self.response_path.exists():
            raise AwaitingResponses(self.request_path, self.response_path, len(lines), self._config.model)
        answers, failures, problems = self._read(set(lines))
        if not answers and not failures:
            raise RelandError(
                f"{self.response_path}: answers none of the {len(lines)} prompts of {self.request_path}; it "
                "belongs to other data, settings or prompts: move it away, or name another config.pool.path"
            )
        rationales: list[Rationale | None] = []
        for digest, request in zip(hashes, requests, strict=True):
            rationale, why = _rationale(answers.get(custom_id(digest)), digest)
            if custom_id(digest) not in answers:
                why = [failures.get(custom_id(digest), f"{self.response_path}: no answer for this prompt")]
            rationales.append(rationale)
            problems += [Problem(request.user_id, reason) for reason in why]
        return ProviderResult(rationales, problems)

    def _line(self, name: str, prompt: str) -> str:
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
        }
        line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line, ensure_ascii=False) + "\n"

    def _read(self, expected: set[str]) -> tuple[dict[str, _Answer], dict[str, str], list[Problem]]:
        """Good answers and reasons of failure by custom id, and what belongs to no request."""
        answers: dict[str, _Answer] = {}
        failures: dict[str, str] = {}
        problems = []
        for where, value in _lines(self.response_path):
            name = value.get("custom_id") if isinstance(value, dict) else None
            if not isinstance(value, dict):
                problems.append(Problem("", f"{where}: {value}"))
            elif name not in expected:
                problems.append(Problem("", f"{where}: unknown custom_id {name!r}; not asked in this run"))
            elif name in answers:
                problems.append(Problem("", f"{where}: second answer for {name!r}; the first is used"))
            else:
                answer = _answer(value, self._config.model)
                if isinstance(answer, _Answer):
                    answers[name] = answer
                else:
                    failures[name] = f"{where}: {answer}"
        return answers, failures, problems


def custom_id(digest: str) -> str:
    """Name of a request in a batch file, from the hash of its prompt; says nothing about the user.

    At most 64 characters, the bound of common batch services.
    """
    return f"reland-{digest[:48]}"


def _write(path: Path, content: str) -> None:
    """Writes a file as a whole; one that already has this content stays untouched."""
    if path.exists() and path.read_bytes() == content.encode("utf-8"):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        aside.write_text(content, "utf-8", newline="\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """Every line as (file:line, object), or what is wrong with it instead of the object."""
    try:
        rows = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise RelandError(f"{path}: the response file cannot be read ({error.strerror})") from error
    for number, raw in enumerate(rows, start=1):
        if not raw.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            # A file that ends without a line end was cut off while it was written or copied.
            cut = "the last line is cut off" if number == len(rows) else f"not JSON in UTF-8 ({error})"
            yield where, f"{cut}; the line is not used"
        else:
            yield where, value if isinstance(value, dict) else "not a JSON object; the line is not used"


def _answer(line: Mapping[str, Any], model: str) -> _Answer | str:
    """The answer in one response line, or why there is none."""
    if line.get("error"):
        return f"the service reports an error: {_short(line['error'])}"
    response = line.get("response")
    if not isinstance(response, dict):
        return "the line has no response"
    body = response.get("body")
    if response.get("status_code", 200) != 200:
        return f"status {response.get('status_code')}: {_short(body)}"
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "the answer has no choices"
    content = _content(choices[0].get("message"))
    if not content.strip():
        return "the answer has no content"
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    tokens = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return _Answer(content, str(body.get("model") or model), *tokens, _iso(body.get("created")))


def _content(message: Any) -> str:
    """Text of a chat message: a string, or a list of parts that have texts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _rationale(answer: _Answer | None, digest: str) -> tuple[Rationale | None, list[str]]:
    """The parsed rationale, and what there is to say about it."""
    if answer is None:
        return None, []
    parsed = parse_response(answer.content)
    if not parsed.step2:
        return None, list(parsed.problems)
    origin = (answer.model, answer.prompt_tokens, answer.response_tokens, answer.created)
    rationale = Rationale(parsed.step1, parsed.step2, plain_text(answer.content), digest, *origin)
    return rationale, [f"used, but {problem}" for problem in parsed.problems]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _iso(seconds: Any) -> str:
    """UTC time of a Unix time stamp, "" if it is none."""
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds < 2**36:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]
