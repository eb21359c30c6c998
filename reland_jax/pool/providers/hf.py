"""The provider `hf`: rationales by a model on this machine, batch by batch into the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.engine import known
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import Budget
from reland_jax.pool.asking.records import (
    REMOVED,
    UNREADABLE,
    RequestRecord,
    journal_path,
    request_record,
)
from reland_jax.pool.asking.replies import (
    Asked,
    Judge,
    Turn,
    reception_of,
    turn_of,
)
from reland_jax.pool.providers.hf_model import LocalModel, Writer, Written, by_length, prompt_seed
from reland_jax.pool.providers.llm import LLMProvider
from reland_jax.pool_store.builders import guard_of


class _Task(NamedTuple):
    """One prompt as the model sees it."""

    record: RequestRecord
    turn: Turn
    tokens: list[int]


class HfProvider(LLMProvider):
    """Writes rationales with a local model; nothing leaves the machine."""

    def __init__(
        self,
        config: PoolConfig,
        llm: LLMConfig,
        folder: str | Path,
        load: Callable[[PoolConfig, LLMConfig], Writer] = LocalModel,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            config: model and sampling.
            llm: device, prompts per batch (`concurrency`), and the journal.
            folder: where the journal lies if `llm.journal` is empty.
            load: makes the model, when there is something to ask.
        """
        super().__init__(config, llm, folder)
        self._load = load
        self._loaded: Writer | None = None

    def _ask(self, prompts: Iterable[str], config: PoolConfig, judge: Judge) -> Asked:
        with Journal(journal_path(self._llm, self._folder), may_ask=guard_of(self._folder)) as journal:
            journal.hold()
            job = _Job(config, self._llm, journal, judge, self._writer)
            return job.run({record.key: record for record in (request_record(p, config) for p in prompts)})

    def _writer(self) -> Writer:
        """The model, loaded when it is first needed and then kept."""
        self._loaded = self._loaded or self._load(self._config, self._llm)
        return self._loaded


class _Job:
    """One call of the provider."""

    def __init__(
        self,
        config: PoolConfig,
        llm: LLMConfig,
        journal: Journal,
        judge: Judge,
        writer: Callable[[], Writer],
    ) -> None:
        self._config, self._llm, self._journal = config, llm, journal
        self._judge, self._writer = judge, writer
        self._budget = Budget(llm, config.model, journal.usage())
        self._given_up: dict[str, str] = {}

    def run(self, records: Mapping[str, RequestRecord]) -> Asked:
        """Writes until every prompt is answered, in quarantine, or given up."""
        while True:
            answers, problems, _ = known(list(records), self._journal)
            problems = {**self._given_up, **problems}
            left = [record for key, record in records.items() if key not in answers and key not in problems]
            if not left:
                problems = {key: why for key, why in problems.items() if key not in answers}
                return Asked(answers, problems, frozenset(problems))
            self._round(left)

    def _round(self, records: Sequence[RequestRecord]) -> None:
        """Writes an answer to each prompt."""
        writer = self._writer()
        tasks = self._tasks(records, writer)
        done, written, started = 0, 0, time.monotonic()
        with tqdm(total=len(tasks), desc="write", unit="prompt", disable=None) as progress:
            for rows in _batches(tasks, self._llm.concurrency):
                allowed = self._allowed([tasks[row].record for row in rows])
                batch = [tasks[row] for row in rows if tasks[row].record in allowed]
                written += self._write(batch, writer, len(tasks) - done) if batch else 0
                done += len(rows)
                rate = written / (time.monotonic() - started)
                progress.set_postfix_str(f"{rate:.1f} tokens/s", refresh=False)
                progress.update(len(rows))

    def _allowed(self, records: Sequence[RequestRecord]) -> list[RequestRecord]:
        """Those that may still be asked; the others are given up."""
        allowed = [record for record in records if self._journal.allows(record.prompt)]
        self._given_up |= {record.key: REMOVED for record in records if record not in allowed}
        return allowed

    def _tasks(self, records: Sequence[RequestRecord], writer: Writer) -> list[_Task]:
        """The prompts as the model sees them, without those that are too long for it."""
        malformed = self._journal.malformed(record.key for record in records)
        tasks = []
        for record in records:
            turn = turn_of(record.prompt, malformed.get(record.key), self._config)
            tokens = list(writer.encode(turn.messages))
            if turn.again and writer.context:
                room = max(self._config.max_tokens, min(turn.max_tokens, writer.context - len(tokens)))
                turn = turn._replace(max_tokens=room)
            task = _Task(record, turn, tokens)
            if 0 < writer.context < len(task.tokens) + self._config.max_tokens:
                self._given_up[record.key] = (
                    f"the prompt has {len(task.tokens)} tokens, and with config.pool.max_tokens="
                    f"{self._config.max_tokens} does not fit into the {writer.context} of {writer.name}; set "
                    "config.pool.prompt_tokens or lower config.pool.history"
                )
            else:
                tasks.append(task)
        return tasks

    def _write(self, batch: Sequence[_Task], writer: Writer, left: int) -> int:
        """Writes and records one batch; tokens written."""
        reserved = [(len(task.tokens), task.turn.max_tokens) for task in batch]
        if not all([self._budget.reserve(*bound) for bound in reserved]):
            raise self._budget.reached(left)
        seeds = [prompt_seed(task.turn.messages) for task in batch]
        texts = writer.write([task.tokens for task in batch], seeds, batch[0].turn.max_tokens)
        receptions = [
            reception_of(task.record, _body(writer.name, task, text), self._judge, task.turn)
            for task, text in zip(batch, texts, strict=True)
        ]
        self._journal.record(receptions)
        for reception, bound in zip(receptions, reserved, strict=True):
            self._budget.settle(bound, reception.paid)
            if reception.kind == UNREADABLE:
                # The same prompt would be answered with the same nothing again.
                self._given_up[reception.request.key] = reception.why
        return sum(text.tokens for text in texts)


def _batches(tasks: Sequence[_Task], size: int) -> Iterator[list[int]]:
    """Tasks to write at a time, as places: of about one length, and with one bound of the answer."""
    for bound in sorted({task.turn.max_tokens for task in tasks}):
        places = [place for place, task in enumerate(tasks) if task.turn.max_tokens == bound]
        for rows in by_length([len(tasks[place].tokens) for place in places], size):
            yield [places[row] for row in rows]


def _body(model: str, task: _Task, text: Written) -> str:
    """What was written in the form of a chat completion, as the journal keeps answers."""
    usage = {"prompt_tokens": len(task.tokens), "completion_tokens": text.tokens}
    message = {"role": "assistant", "content": text.text}
    choice = {"message": message, "finish_reason": "stop" if text.ended else "length"}
    body = {"model": model, "created": int(time.time()), "choices": [choice], "usage": usage}
    return json.dumps(body, ensure_ascii=False)
