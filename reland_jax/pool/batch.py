"""Rationales through files in the OpenAI batch format, for the OpenAI Batch API or `vllm run-batch`.

The first run writes the requests and stops with `AwaitingResponses`; a person has them answered; the
next run reads the answers. Nothing needs to be running in between.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reland_jax.config import PoolConfig
from reland_jax.pool.answers import Answer, answer_of, rationale_of, short
from reland_jax.pool.contract import Problem, ProviderResult, RationaleRequest
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
            name = custom_id(digest)
            if name in answers:
                rationale, why = rationale_of(answers[name], digest)
            else:
                unanswered = f"{self.response_path}: no answer for this prompt"
                rationale, why = None, [failures.get(name, unanswered)]
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

    def _read(self, expected: set[str]) -> tuple[dict[str, Answer], dict[str, str], list[Problem]]:
        """Good answers and reasons of failure by custom id, and what belongs to no request."""
        answers: dict[str, Answer] = {}
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
                if isinstance(answer, Answer):
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


def _answer(line: Mapping[str, Any], model: str) -> Answer | str:
    """The answer in one response line, or why there is none."""
    if line.get("error"):
        return f"the service reports an error: {short(line['error'])}"
    response = line.get("response")
    if not isinstance(response, dict):
        return "the line has no response"
    body = response.get("body")
    if response.get("status_code", 200) != 200:
        return f"status {response.get('status_code')}: {short(body)}"
    return answer_of(body, model)
