"""Prompts that are answered in batches, and their answers, transferred by a person or by the API."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import FORMAT, NO_SCHEMA, format_messages, without_schema
from reland_jax.pool.asking.chat import BOUND, NEWER_BOUND
from reland_jax.pool.asking.engine import known
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
        turn: how it is asked.
    """

    record: RequestRecord
    turn: Turn


class BatchWork:
    """Prompts to be answered in batches: the remaining requests, and the recording of answers.

    Attributes:
        named: lines of the response files read so far that speak of one of these prompts.
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
        """Nothing is asked or read yet; equal prompts are one.

        Args:
            prompts: to be answered.
            config: model and sampling.
            llm: the budget.
            journal: of the answers.
            judge: says what is wrong with an answer, "" for a usable one.
            state: knows, and is told, what the model calls the bound of an answer.
        """
        self._config, self._llm, self._journal, self._judge = config, llm, journal, judge
        self._state = state
        records = (request_record(prompt, config) for prompt in prompts)
        self._records = {record.key: record for record in records}
        self._failures: dict[str, Failure] = {}
        self._batch_failure, self._plain = "", 0
        self.named = 0

    def unanswered(self) -> list[RequestRecord]:
        """Prompts without a usable answer that may be asked, again if the first answer was malformed."""
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
        """Request lines of what is still to ask, as far as the budget reaches, each with its line end.

        Raises:
            BudgetReached: there is something to ask, and the budget allows none of it.
        """
        left = [record for record in self.unanswered() if not self._refused(record.key)]
        return self.lines(self._affordable(left))

    def receive(self, requests: bytes, answers: Sequence[bytes | None]) -> int:
        """Records the answers to a request file that was sent; how many answers are new.

        The same answers may come again after a kill, and change nothing then.
        The prompts and settings are those of the request file, which may be of an earlier run. Where a file
        of answers is gone (None), or a line of one cannot be read, requests without an answer count as
        paid: they may have been answered.
        """
        lines = (line for _, line in response_lines(requests, "requests") if isinstance(line, Mapping))
        expected = {str(line["custom_id"]): _sent(line, self._config) for line in lines}
        told, lost, new = set[str](), None in answers, 0
        for content in (content for content in answers if content is not None):
            new += self._take(content, "answers", expected, billed=True)[0]
            for _, line in response_lines(content, "answers"):
                lost |= isinstance(line, str)
                told.add((label_in(line) or "") if isinstance(line, Mapping) else "")
        if lost:
            missing = [entry for name, entry in expected.items() if name not in told]
            why = "the answer in a batch was lost"
            self._journal.record([no_reception(e.record, why, e.turn, self._most(e)) for e in missing])
        return new

    def read(self, content: bytes, name: str) -> list[str]:
        """Records the answers in a response file that a person brought; remarks on lines that are not used.

        Args:
            content: of the file.
            name: of the file, for the remarks.
        """
        malformed = self._journal.malformed(self._records)
        expected = {}
        for key, record in self._records.items():
            expected[custom_id(key)] = _Expected(record, first_turn(record.prompt, self._config))
            again = turn_again(record.prompt, malformed.get(key, Malformed("", "")), self._config)
            expected[custom_id(key, again=True)] = _Expected(record, again)
        return self._take(content, name, expected, billed=False)[1]

    def failed(self, why: str) -> None:
        """Takes note of why prompts may have been left out altogether: a batch ended before its time."""
        self._batch_failure = why

    def asked(self) -> Asked:
        """Answers and, for the other prompts, why there is none."""
        answers, problems, closed, _ = known(list(self._records), self._journal)
        malformed = self._journal.malformed(self._records)
        for key in (key for key in self._records if key not in answers and key not in problems):
            failure = self._failures[key].why if key in self._failures else self._batch_failure
            problems[key] = failure or "no answer for this prompt"
            if key in malformed:
                problems[key] = f"{malformed[key].why}; and when asked again: {problems[key]}"
        remarks = (without_schema(self._plain, self._config.model),) if self._plain else ()
        return Asked(answers, problems, closed | set(filter(self._refused, problems)), remarks)

    @cached_property
    def _counter(self) -> TokenCounter:
        return token_counter(self._config)

    def _turn(self, record: RequestRecord, malformed: Mapping[str, Malformed]) -> Turn:
        return turn_of(record.prompt, malformed.get(record.key), self._config)

    def _most(self, entry: _Expected) -> tuple[int, int]:
        """Tokens that a request can have cost."""
        return self._bound_of(entry.turn), entry.turn.max_tokens

    def _bound_of(self, turn: Turn) -> int:
        return chat_bound(self._counter, [*turn.messages, *format_messages(self._config)])

    def _refused(self, key: str) -> bool:
        return key in self._failures and not self._failures[key].passing

    def _affordable(self, records: Sequence[RequestRecord]) -> list[RequestRecord]:
        """The first prompts that the budget has room for, each with the longest answer allowed."""
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

    def _take(
        self, content: bytes, name: str, expected: Mapping[str, _Expected], billed: bool
    ) -> tuple[int, list[str]]:
        """Records what is new in a response file; how many answers that are, and remarks.

        With `billed`, bodies without an answer are recorded too, because they may have cost something;
        not those of a person's file, which is read again by every run.
        """
        receptions: dict[str, Reception] = {}
        remarks = []
        for where, line in response_lines(content, name):
            if not isinstance(line, Mapping):
                remarks.append(f"{where}: {line}")
                continue
            label = label_in(line)
            if label is None or label not in expected:
                remarks.append(f"{where}: unknown custom_id {label!r}; not asked in this run")
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
        """The entry for the journal, None where nothing was written; failures are kept in mind."""
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
        """The failure; one that another name of the bound, or no schema, would have spared is passing."""
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
        """Answers that the journal does not have: the same file may have been read before."""
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
    """What a request line asked, with the settings it was asked with."""
    body, again = line["body"], is_again(line["custom_id"])
    bound = body[NEWER_BOUND if NEWER_BOUND in body else BOUND]
    # One chat message, asked again: the first answer was cut off, and there is more room than the setting.
    more = again and len(body["messages"]) == 1
    settings = {name: body[name] for name in ("model", "temperature")}
    asked_with = dataclasses.replace(config, max_tokens=bound // MORE_ROOM if more else bound, **settings)
    record = request_record(body["messages"][0]["content"], asked_with)
    return _Expected(record, Turn(body["messages"], bound, again))
