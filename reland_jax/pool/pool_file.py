"""Rationales from a file with one JSON object per line, written by an earlier run or another program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.pool.contract import Problem, SeedRationales
from reland_jax.pool.histories import history_codes
from reland_jax.pool.reading.answers import flaw_of, in_latin
from reland_jax.pool.reading.objects import objects_in, read_whole
from reland_jax.pool.reading.parser import (
    ParsedRationale,
    ends_by_itself,
    parse_given,
    parse_response,
    parse_text,
    plain_text,
)
from reland_jax.types import HOW_NAMES, REPRESENTATIVE, IdMap, Rationale, RelandError, SeedSet, Splits

_CODE = re.compile(r"[0-9a-f]{16}")

UNKNOWN_CLUSTER = -1
"""Cluster of a seed user from a file if it is unknown."""


class Shown(NamedTuple):
    """The interactions that the writer of a rationale may have seen.

    Attributes:
        items: number of first training interactions.
        code: of them, see `histories.history_codes`.
    """

    items: int
    code: int


class FileRationale(NamedTuple):
    """One line of a pool file.

    Attributes:
        user_id: external id.
        how: index into `HOW_NAMES`, from "sampled_by"; `REPRESENTATIVE` by default.
        cluster: K-means cluster from "cluster", None if it is not given.
        rationale: None if the text is not readable: the seed is quarantined.
        problems: why it is not readable, or remarks on how it was read; () for a clean line.
        line: line number in the file, from 1.
        shown: from "shown" and "shown_code", which an export has; None if it is not given.
    """

    user_id: str
    how: int
    cluster: int | None
    rationale: Rationale | None
    problems: tuple[str, ...]
    line: int
    shown: Shown | None = None


def read_pool_file(path: str | Path, any_script: bool = False) -> list[FileRationale]:
    """Reads a .jsonl pool in file order; an array, or objects over several lines, are accepted as well.

    Every object has "user_id" and one of: "response" (a raw answer, which is parsed), "step2" with an
    optional "step1" (taken as they are), or "text" (free text: it becomes step 2, its first sentence
    step 1). The first of these that is not empty is used. It is parsed like any answer of an LLM: thoughts,
    other turns of a chat, markup and empty phrases are removed. Optional: "sampled_by", "cluster", "model",
    "prompt_hash", "prompt_tokens", "response_tokens", "created", "finish_reason", "refusal". A line with
    "shown" and "shown_code" comes from an export: if its steps are not those of its "response", they were
    corrected by hand and count.

    Args:
        path: the file.
        any_script: `config.pool.any_script`; whether texts in other scripts than Latin are used.

    Raises:
        RelandError: no such file, an empty one, or, with file and line, a line that is not such an
            object or names a user for the second time.
    """
    path = Path(path)
    first_line: dict[str, int] = {}
    entries = []
    for where, values in _objects(path):
        entry = _entry(values, path, where, any_script)
        if entry.user_id in first_line:
            raise RelandError(
                f"{where}: user_id {entry.user_id!r} is on line {first_line[entry.user_id]} already; "
                "a user has one rationale: remove one of the two lines"
            )
        first_line[entry.user_id] = entry.line
        entries.append(entry)
    if not entries:
        raise RelandError(f"{path}: the pool file has no lines; it needs one JSON object per seed user")
    return entries


class PoolFile:
    """A pool file as a source of a pool.

    Attributes:
        path: the file.
        entries: its lines, in order.
    """

    def __init__(self, path: str | Path, any_script: bool = False, left_out: int = 2) -> None:
        """Reads the whole file; see `read_pool_file`.

        Args:
            path: the file.
            any_script: `config.pool.any_script`.
            left_out: last items of every user that the writer of the file was not shown.
        """
        self.path, self._left_out = Path(path), left_out
        self.entries = read_pool_file(path, any_script)

    def seed_rationales(self, ids: IdMap, cluster: np.ndarray | None, splits: Splits) -> SeedRationales:
        """The seed users of the file, without those whose held-out items were shown to its writer.

        Raises:
            RelandError: users that are not in the data, or most lines show what is held out.
        """
        user = self._dense(ids)
        own = [UNKNOWN_CLUSTER if entry.cluster is None else entry.cluster for entry in self.entries]
        clusters = np.asarray(own, np.int32) if cluster is None else np.asarray(cluster, np.int32)[user]
        seeds = SeedSet(user, clusters, np.asarray([entry.how for entry in self.entries], np.int8))
        leaks = self._leaks(user, ids, splits)
        leaked = np.asarray([bool(why) for why in leaks])
        self._refuse_if_most(leaked, leaks)
        rows = np.flatnonzero(~leaked)
        kept = [self.entries[row] for row in rows.tolist()]
        problems = [self._leak(row, leaks[row]) for row in np.flatnonzero(leaked).tolist()]
        problems += [problem for entry in kept for problem in self._remarks(entry)]
        rationales = [entry.rationale for entry in kept]
        return SeedRationales(seeds.rows(rows), rationales, problems, int(leaked.sum()))

    def _dense(self, ids: IdMap) -> np.ndarray:
        """Dense ids ``<int32>[S]`` of the users of the file."""
        dense = {str(user_id): index for index, user_id in enumerate(ids.users)}
        unknown = [entry for entry in self.entries if entry.user_id not in dense]
        if unknown:
            raise RelandError(
                f"{self.path}:{unknown[0].line}: {len(unknown)} of {len(self.entries)} users are not in the "
                f"data, the first is {unknown[0].user_id!r}; the file belongs to other data, or filtering "
                "removed them"
            )
        return np.asarray([dense[entry.user_id] for entry in self.entries], np.int32)

    def _leaks(self, user: np.ndarray, ids: IdMap, splits: Splits) -> list[str]:
        """Why a line shows what is held out now; "" if it does not.

        What an exported line was written from is known. Of another it is assumed that its writer was shown
        all but the last items.
        """
        held_out = (splits.valid.lengths() + splits.test.lengths())[user].tolist()
        shown = [entry.shown for entry in self.entries]
        lengths = np.zeros(splits.num_users, np.int64)
        lengths[user] = [0 if each is None else each.items for each in shown]
        codes = history_codes(splits.train, ids.items, lengths)[user].tolist()
        now = splits.train.lengths()[user].tolist()
        why = []
        for each, code, length, hidden in zip(shown, codes, now, held_out, strict=True):
            if each is None and hidden > self._left_out:
                why.append(
                    f"{hidden} items are held out, config.pool.held_out={self._left_out} were left out"
                )
            elif each is not None and (each.items > length or each.code != code):
                why.append(
                    f"it was written from {each.items} interactions, and the {length} training interactions "
                    "do not start with these: some are held out now, or the data changed"
                )
            else:
                why.append("")
        return why

    def _refuse_if_most(self, leaked: np.ndarray, leaks: Sequence[str]) -> None:
        """A pool of which little would be left is of another split, and says nothing of texts."""
        if 2 * leaked.sum() <= len(leaked):
            return
        first = int(np.argmax(leaked))
        raise RelandError(
            f"{self.path}: {leaked.sum()} of {len(leaked)} texts cannot be used, since their writer was "
            f"shown held-out items (line {self.entries[first].line}: {leaks[first]}). Take a pool that was "
            "written for this split (config.data.protocol), or, if its writer was not shown the last items "
            "of every user, say how many in config.pool.held_out"
        )

    def _leak(self, row: int, why: str) -> Problem:
        entry = self.entries[row]
        where = f"{self.path}:{entry.line}"
        return Problem(entry.user_id, f"{where}: held-out items were shown to the writer: {why}")

    def _remarks(self, entry: FileRationale) -> list[Problem]:
        where = f"{self.path}:{entry.line}: {'' if entry.rationale is None else 'used, but '}"
        return [Problem(entry.user_id, where + problem) for problem in entry.problems]


def _objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object with the line on which it starts."""
    try:
        content = read_whole(path)
    except OSError as error:
        raise RelandError(
            f"config.pool.path={str(path)!r} cannot be read ({error.strerror}); "
            "it must name a pool file (.jsonl)"
        ) from error
    for where, value in objects_in(content, str(path)):
        if isinstance(value, str):
            raise RelandError(f"{where}: {value}")
        yield where, value


def _entry(values: Mapping[str, Any], path: Path, where: str, any_script: bool) -> FileRationale:
    user_id = values.get("user_id")
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        why = f"field 'user_id' must be a non-empty string, not {user_id!r}"
        if "user_id" not in values and values:
            why = f"no field 'user_id'; the fields are {_names(values)}: rename the one that has the user id"
        raise RelandError(f"{where}: {why}")
    how = values.get("sampled_by") or HOW_NAMES[REPRESENTATIVE]
    if how not in HOW_NAMES:
        raise RelandError(f"{where}: sampled_by={how!r} is not known; {nearest_name(str(how), HOW_NAMES)}")
    cluster = values.get("cluster")
    if cluster is not None and not _is_count(cluster):
        raise RelandError(f"{where}: cluster={cluster!r} must be a number from 0")
    shown = _shown(values, where)
    parsed, raw = _parsed(_corrected(values) if shown else values, where)
    if not any_script and parsed != in_latin(parsed):
        why = f"{in_latin(parsed).problems[-1]}; set config.pool.any_script=True to use it"
        parsed = ParsedRationale("", "", (why,))
    rationale = None
    if parsed.step2:
        rationale = Rationale(parsed.step1, parsed.step2, raw, **_origin(values, path, where))
    line = int(where.rpartition(":")[2])
    return FileRationale(str(user_id), HOW_NAMES.index(how), cluster, rationale, parsed.problems, line, shown)


def _shown(values: Mapping[str, Any], where: str) -> Shown | None:
    """What the writer of an exported line was shown; None if the line does not say it."""
    items: Any = values.get("shown")
    code = values.get("shown_code")
    if items is None and code is None:
        return None
    if not _is_count(items) or not isinstance(code, str) or not _CODE.fullmatch(code):
        raise RelandError(
            f"{where}: shown={items!r} and shown_code={code!r} must be a number and 16 hexadecimal digits, "
            "as an export writes them; remove both from a line of another origin"
        )
    return Shown(items, int(code, 16))


def _corrected(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """An exported line without its raw answer if its steps are not those of the answer any more."""
    response, steps = values.get("response"), [values.get(field) or "" for field in ("step1", "step2")]
    if not isinstance(response, str) or not all(isinstance(step, str) for step in steps) or not steps[1]:
        return values
    parsed = parse_response(plain_text(response))
    same = [parsed.step1, parsed.step2] == steps
    return values if same else {name: value for name, value in values.items() if name != "response"}


def _parsed(values: Mapping[str, Any], where: str) -> tuple[ParsedRationale, str]:
    """The two steps and the raw text that they come from."""
    for field in ("response", "step1", "step2", "text"):
        if not isinstance(values.get(field, ""), (str, type(None))):
            raise RelandError(f"{where}: field {field!r} must be a string, not {values[field]!r}")
    response, step1, step2, text = (
        plain_text(values.get(field) or "") for field in ("response", "step1", "step2", "text")
    )
    if response.strip():
        parsed, raw = parse_response(response), response
    elif step2.strip():
        parsed, raw = parse_given(step1, step2), f"Step 1: {step1}\nStep 2: {step2}"
    elif text.strip():
        parsed, raw = parse_text(text), text
    elif any(field in values for field in ("response", "step2", "text")):
        return ParsedRationale("", "", ("the text is empty",)), ""
    else:
        raise RelandError(
            f"{where}: needs one of the fields 'response', 'step2' (with 'step1') or 'text'; it has "
            f"{_names(values)}"
        )
    flaw = flaw_of({"choices": [{**values, "content": raw}]})
    if flaw and not (flaw.cut and ends_by_itself(raw)):
        parsed = ParsedRationale("", "", (flaw.why,))
    return parsed, raw


def _origin(values: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Model, prompt hash, time and tokens of a rationale, as far as the line has them."""
    tokens = {field: values.get(field) or 0 for field in ("prompt_tokens", "response_tokens")}
    for field, count in tokens.items():
        if not _is_count(count):
            raise RelandError(f"{where}: {field}={count!r} must be a number from 0")
    texts = {field: values.get(field) or "" for field in ("prompt_hash", "created")}
    texts["model"] = values.get("model") or f"file:{path.name}"
    for field, value in texts.items():
        if not isinstance(value, str):
            raise RelandError(f"{where}: field {field!r} must be a string, not {value!r}")
    return {**tokens, **texts}


def _names(values: Mapping[str, Any]) -> str:
    """The first fields of a line, for a message."""
    return ", ".join(map(repr, [*values][:9])) + (", ..." if len(values) > 9 else "")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
