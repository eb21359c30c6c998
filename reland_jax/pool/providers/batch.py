"""Rationales in batches: by request and response files that a user transfers, or by the Batch API.

By hand, the first run writes the requests and stops with `AwaitingResponses`; the user has them answered; the
next run reads the answers. With
`config.llm.upload` the same happens through the OpenAI Batch API, and the run waits (`batch_api`).
Either way the answers are journalled, and prompts with an answer are not sent again.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.files import locked, resolve
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import journal_path
from reland_jax.pool.asking.replies import Asked, Judge, judge_for, provider_result
from reland_jax.pool.contract import MayAsk, Problem, ProviderResult, RationaleRequest
from reland_jax.pool.providers.batch_api import BatchService, ask_in_batches
from reland_jax.pool.providers.batch_files import (
    ENDPOINT,
    is_request_file,
    read_bytes,
    split_lines,
    write_file,
)
from reland_jax.pool.providers.batch_state import STATE_FILE, BatchState
from reland_jax.pool.providers.batch_work import BatchWork
from reland_jax.pool.providers.llm import LLMProvider
from reland_jax.types import RelandError

REQUEST_FILE = "batch_requests.jsonl"
RESPONSE_FILE = "batch_responses.jsonl"
LOCK_FILE = "batch_state.lock"


class AwaitingResponses(RelandError):
    """The run stops until the requests that it wrote are answered; this is not a failure.

    Attributes:
        request_path: the request file, the first one if there are several.
        response_path: the expected file of answers.
        num_requests: lines of the request files.
    """

    def __init__(
        self, request_paths: Sequence[Path], response_path: Path, num_requests: int, model: str
    ) -> None:
        """Composes the message: what to run next, and how to continue."""
        self.request_path, self.response_path = request_paths[0], response_path
        self.num_requests = num_requests
        requests, responses = shlex.quote(str(self.request_path)), shlex.quote(str(response_path))
        others = ", ".join(map(str, request_paths[1:]))
        many = f"Do the same for {others}, with all answers in one file.\n"
        super().__init__(
            f"{num_requests} prompts wait for answers: {self.request_path}\n"
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
            f"{many if others else ''}"
            f"Then run the same command again: it reads {response_path} "
            "(or the file of config.llm.responses). With config.llm.upload=True it does all of this itself."
        )


class BatchProvider:
    """Writes request files, or reads the answers to them if they are there.

    Attributes:
        request_path: `REQUEST_FILE` in the given folder; further ones are numbered.
        response_path: `llm.responses`, or `RESPONSE_FILE` in the folder if that is None.
    """

    answers = None

    def __init__(
        self, config: PoolConfig, llm: LLMConfig, folder: Path, may_ask: MayAsk | None = None
    ) -> None:
        """Reads and writes nothing yet."""
        self._config, self._llm, self._folder, self._may_ask = config, llm, folder, may_ask
        self.request_path = folder / REQUEST_FILE
        self.response_path = resolve(llm.responses) if llm.responses else folder / RESPONSE_FILE

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """The rationales in the answers, in the order of the requests.

        Afterwards the request files hold the prompts without a usable answer; a second try says what was
        wrong with the first answer. If every prompt has an answer, there are no request files.

        Raises:
            AwaitingResponses: there is no response file; the request file is written.
            RelandError: the response file answers none of these requests; or some of them are in a batch
                that was sent through the API.
        """
        state = self._nothing_sent()
        with Journal(journal_path(self._llm, self._folder), may_ask=self._may_ask) as journal:
            prompts = [request.prompt for request in requests if journal.allows(request.prompt)]
            work = BatchWork(prompts, self._config, self._llm, journal, judge_for(self._config), state)
            brought = self.response_path.exists()
            if brought:
                journal.hold()
            remarks = work.read(read_bytes(self.response_path), str(self.response_path)) if brought else []
            work.failed(f"{self.response_path}: no answer for this prompt")
            lines = work.lines(work.unanswered())
            paths = self._write_requests(lines)
            if lines and not brought:
                raise AwaitingResponses(paths, self.response_path, len(lines), self._config.model)
            if lines and not work.named:
                raise RelandError(
                    f"{self.response_path}: answers no prompt of the {len(lines)} in {self.request_path}; "
                    "it belongs to other data, settings or prompts: move it away, or set another "
                    f"config.llm.responses{'; the first remark: ' + remarks[0] if remarks else ''}"
                )
            result = provider_result(requests, work.asked(), self._config)
        problems = [Problem("", remark) for remark in remarks]
        return ProviderResult(result.rationales, problems + result.problems)

    def _write_requests(self, lines: Sequence[str]) -> list[Path]:
        """Writes the request files and removes those of an earlier run that are not needed any more."""
        parts = split_lines(lines)
        stem, suffix = self.request_path.stem, self.request_path.suffix
        names = [f"{stem}-{number + 1}{suffix}" if number else REQUEST_FILE for number in range(len(parts))]
        paths = [self._folder / name for name in names]
        for path, rows in zip(paths, parts, strict=True):
            if path.exists() and not is_request_file(path):
                raise RelandError(f"{path}: not a request file of this program; move it away")
            write_file(path, "".join(rows))
        for stale in set(self._folder.glob(f"{stem}*{suffix}")) - set(paths):
            if is_request_file(stale):
                stale.unlink()
        return paths

    def _nothing_sent(self) -> BatchState:
        """The state, if no batch is under way."""
        state = BatchState(self._folder)
        if state.open:
            raise RelandError(
                f"{self._folder / STATE_FILE}: batches were sent but not fetched; set "
                "config.llm.upload=True to fetch them, or they would be paid twice"
            )
        return state


class UploadedBatchProvider(LLMProvider):
    """Sends the requests through the Batch API, waits, and fetches the answers."""

    def __init__(
        self,
        config: PoolConfig,
        llm: LLMConfig,
        folder: str | Path,
        may_ask: MayAsk | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is read or sent yet.

        Args:
            config: model and sampling.
            llm: poll interval, tries, budget, journal.
            folder: for the record of open batches.
            may_ask: guards every prompt; None allows all.
            sleep: waits that many seconds.
        """
        super().__init__(config, llm, folder, may_ask)
        self._sleep = sleep

    def _ask(self, prompts: Sequence[str], config: PoolConfig, judge: Judge) -> Asked:
        llm, path = self._llm, journal_path(self._llm, self._folder)
        with _exclusive(self._folder), Journal(path, may_ask=self._may_ask) as journal:
            prompts = [prompt for prompt in prompts if journal.allows(prompt)]
            state = BatchState(self._folder)
            work = BatchWork(prompts, config, llm, journal, judge, state)
            if work.unanswered() or state.open:
                journal.hold(self._sleep)
                ask_in_batches(BatchService(llm, self._sleep), state, work, llm, self._sleep)
            return work.asked()


def _exclusive(folder: Path) -> AbstractContextManager[bool]:
    """Waits until no other process sends batches from this folder."""

    def tell() -> None:
        print(f"waiting for another process that sends batches from {folder}", file=sys.stderr)

    return locked(folder / LOCK_FILE, on_wait=tell)
