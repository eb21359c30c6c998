"""Prompts that are answered in batches, and their answers, transferred by a user or by the API."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import FORMAT, NO_SCHEMA, format_messages, without_schema
from reland_jax.pool.asking.chat import BOUND, NEWER_BOUND
from reland_jax.pool.asking.engine import settled_in_journal
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import Budget
from reland_jax.pool.asking.records import (
    CUT,
    MALFORMED,
    UNREADABLE,
    Malformed,
    Reception,
    RequestRecord,
    request_record,
)
from reland_jax.pool.asking.replies import (
    MORE_ROOM,
    Asked,
    Judge,
    Turn,
    first_turn,
    no_reception,
    paid_tokens,
    reception_of,
    turn_again,
    turn_of,
)
from reland_jax.pool.prompting.tokens import TokenCounter, chat_bound, token_counter
from reland_jax.pool.providers.batch_files import (
    Failure,
    body_in,
    custom_id,
    is_again,
    label_in,
    request_line,
    response_lines,
)
from reland_jax.pool.providers.batch_state import BatchState


class _Expected(NamedTuple):
    """One line of a request file.

    Attributes:
        record: the prompt.
        turn: the chat and its token limit.
    """

    record: RequestRecord
    turn: Turn


class BatchWork:
    """Composes the remaining requests of prompts, and records the answers.

    Attributes:
        named: number of lines read so far that belong to one of these prompts.
    """

    def __init__(
        self,
        prompts: Iterable[str],
        config: PoolConfig,
        llm: LLMConfig,
        journal: Journal,
        judge: Judge,
        state: BatchState,
    ) -> None:
        """Sends and reads nothing yet; duplicate prompts are merged.

        Args:
            prompts: the prompts.
            config: model and sampling.
            llm: the budget.
            journal: for the answers.
            judge: returns what is wrong with an answer, "" for a usable one.
            state: remembers which parameters the models refuse.
        """
        self._config, self._llm, self._journal, self._judge = config, llm, journal, judge
        self._state = state
        records = (request_record(prompt, config) for prompt in prompts)
        self._records = {record.key: record for record in records}
        self._failures: dict[str, Failure] = {}
        self._batch_failure, self._plain = "", 0
        self.named = 0

    def unanswered(self) -> list[RequestRecord]:
        """Prompts without a usable answer that may be sent, including second tries."""
        closed = {**self._journal.answers(self._records), **self._journal.quarantined(self._records)}
        return [record for key, record in self._records.items() if key not in closed]

    def lines(self, records: Sequence[RequestRecord]) -> list[str]:
        """Request lines of these prompts."""
        malformed = self._journal.malformed(record.key for record in records)
        bound = NEWER_BOUND if self._config.model in self._state.newer_bound else BOUND
        turns = [self._turn(record, malformed) for record in records]
        plain = self._config.model in self._state.without_schema
        config = dataclasses.replace(self._config, answers="text") if plain else self._config
        return [
            request_line(custom_id(record.key, turn.again), turn, config, bound)
            for record, turn in zip(records, turns, strict=True)
        ]

    def remaining(self) -> list[str]:
        """Request lines of unanswered prompts within the budget, each with its line end.

        Raises:
            BudgetReached: there are unanswered prompts, and the budget has room for none of them.
        """
        left = [record for record in self.unanswered() if not self._refused(record.key)]
        return self.lines(self._affordable(left))

    def receive(self, requests: bytes, answers: Sequence[bytes | None]) -> int:
        """Records the answers to a request file that was sent; returns the number of new answers.

        Answers that are received again after a kill change nothing.
        Prompts and settings are taken from the request file, which may be of an earlier run. If a file of
        answers is lost (None) or has unreadable lines, requests without an answer count as paid, since they
        may have been answered.
        """
        lines = (line for _, line in response_lines(requests, "requests") if isinstance(line, Mapping))
        expected = {str(line["custom_id"]): _sent(line, self._config) for line in lines}
        told, lost, new = set[str](), None in answers, 0
        for content in (content for content in answers if content is not None):
            new += self._record_lines(content, "answers", expected, billed=True)[0]
            for _, line in response_lines(content, "answers"):
                lost |= isinstance(line, str)
                told.add((label_in(line) or "") if isinstance(line, Mapping) else "")
        if lost:
            missing = [entry for name, entry in expected.items() if name not in told]
            why = "the answer in a batch was lost"
            self._journal.record([no_reception(e.record, why, e.turn, self._most(e)) for e in missing])
        return new

    def read(self, content: bytes, name: str) -> list[str]:
        """Records the answers in a response file from a user; returns remarks on unused lines.

        Args:
            content: content of the file.
            name: name of the file, for the remarks.
        """
        malformed = self._journal.malformed(self._records)
        expected = {}
        for key, record in self._records.items():
            expected[custom_id(key)] = _Expected(record, first_turn(record.prompt, self._config))
            again = turn_again(record.prompt, malformed.get(key, Malformed("", "")), self._config)
            expected[custom_id(key, again=True)] = _Expected(record, again)
        return self._record_lines(content, name, expected, billed=False)[1]

    def failed(self, why: str) -> None:
        """Notes why prompts may have no answer at all: a batch ended early."""
        self._batch_failure = why

    def asked(self) -> Asked:
        """The answers, and for the other prompts the reason."""
        answers, problems, closed, _ = settled_in_journal(list(self._records), self._journal)
        malformed = self._journal.malformed(self._records)
        for key in (key for key in self._records if key not in answers and key not in problems):
            failure = self._failures[key].why if key in self._failures else self._batch_failure
            problems[key] = failure or "no answer for this prompt"
            if key in malformed:
                problems[key] = f"{malformed[key].why}; at the second try: {problems[key]}"
        remarks = (without_schema(self._plain, self._config.model),) if self._plain else ()
        return Asked(answers, problems, closed | set(filter(self._refused, problems)), remarks)

    @cached_property
    def _counter(self) -> TokenCounter:
        return token_counter(self._config)

    def _turn(self, record: RequestRecord, malformed: Mapping[str, Malformed]) -> Turn:
        return turn_of(record.prompt, malformed.get(record.key), self._config)

    def _most(self, entry: _Expected) -> tuple[int, int]:
        """Upper bound on the tokens of a request."""
        return self._bound_of(entry.turn), entry.turn.max_tokens

    def _bound_of(self, turn: Turn) -> int:
        return chat_bound(self._counter, [*turn.messages, *format_messages(self._config)])

    def _refused(self, key: str) -> bool:
        return key in self._failures and not self._failures[key].passing

    def _affordable(self, records: Sequence[RequestRecord]) -> list[RequestRecord]:
        """As many of the first prompts as fit into the budget with the longest allowed answers."""
        if not (records and (self._llm.budget or self._llm.budget_tokens)):
            return list(records)
        budget = Budget(self._llm, self._config.model, self._journal.usage())
        malformed = self._journal.malformed(record.key for record in records)
        for place, record in enumerate(records):
            turn = self._turn(record, malformed)
            if not budget.reserve(self._bound_of(turn), turn.max_tokens):
                if not place:
                    raise budget.reached(len(records))
                return list(records[:place])
        return list(records)

    def _record_lines(
        self, content: bytes, name: str, expected: Mapping[str, _Expected], billed: bool
    ) -> tuple[int, list[str]]:
        """Records what is new in a response file; returns the number of answers, and remarks.

        With `billed`, bodies without an answer are recorded too, because they may have cost something. Those
        of a user's file are not, since every run reads it again.
        """
        receptions: dict[str, Reception] = {}
        remarks = []
        for where, line in response_lines(content, name):
            if not isinstance(line, Mapping):
                remarks.append(f"{where}: {line}")
                continue
            label = label_in(line)
            if label is None or label not in expected:
                remarks.append(f"{where}: custom_id {label!r} is not a request of this run")
            elif label in receptions and receptions[label].kind != UNREADABLE:
                remarks.append(f"{where}: second answer for {label!r}; the first is used")
            else:
                self.named += 1
                if reception := self._reception(line, where, expected[label]):
                    receptions[label] = reception
        new = self._new(receptions.values())
        answers = [reception for reception in new if reception.kind != UNREADABLE]
        self._journal.record(new if billed else answers)
        return len(answers), remarks

    def _reception(self, line: Mapping[str, Any], where: str, entry: _Expected) -> Reception | None:
        """The entry for the journal, None without a text; failures are noted."""
        key, body = entry.record.key, body_in(line)
        if isinstance(body, Failure):
            self._failures[key] = self._failure(body._replace(why=f"{where}: {body.why}"), entry.record.model)
            return None
        reserved = (0, 0) if all(paid_tokens(body)) else self._most(entry)
        raw = json.dumps(body, ensure_ascii=False)
        reception = reception_of(entry.record, raw, self._judge, entry.turn, reserved)
        self._failures.pop(key, None)
        if reception.kind == UNREADABLE:
            self._failures[key] = Failure(f"{where}: {reception.why}", True)
        return reception

    def _failure(self, failure: Failure, model: str) -> Failure:
        """The failure; it is passing if the next try changes the refused parameter."""
        if failure.setting == BOUND:
            self._state.bound_by_newer_name(model)
            then = f"asked with {NEWER_BOUND} the next time"
        elif failure.setting == FORMAT and self._config.answers == "json_schema":
            return failure._replace(why=f"{failure.why}; {NO_SCHEMA}")
        elif failure.setting == FORMAT:
            self._state.ask_without_schema(model)
            self._plain += 1
            then = "asked without a JSON schema the next time"
        else:
            return failure
        return failure._replace(why=f"{failure.why}; {then}", passing=True)

    def _new(self, receptions: Iterable[Reception]) -> list[Reception]:
        """Answers that the journal does not have yet; the same file may have been read before."""
        every = list(receptions)
        keys = [reception.request.key for reception in every]
        closed = {*self._journal.answers(keys), *self._journal.quarantined(keys)}
        closed_once = self._journal.malformed(keys)
        return [
            reception
            for reception in every
            if reception.request.key not in closed
            and not (
                reception.kind in (MALFORMED, CUT)
                and not reception.again
                and reception.request.key in closed_once
            )
        ]


def _sent(line: Mapping[str, Any], config: PoolConfig) -> _Expected:
    """The request of a request line, with its settings."""
    body, again = line["body"], is_again(line["custom_id"])
    bound = body[NEWER_BOUND if NEWER_BOUND in body else BOUND]
    # A second try with one message: the first answer was cut off, so its limit exceeds the setting.
    more = again and len(body["messages"]) == 1
    settings = {name: body[name] for name in ("model", "temperature")}
    asked_with = dataclasses.replace(config, max_tokens=bound // MORE_ROOM if more else bound, **settings)
    record = request_record(body["messages"][0]["content"], asked_with)
    return _Expected(record, Turn(body["messages"], bound, again))
