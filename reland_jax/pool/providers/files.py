"""Rationales from a file: one JSON object per line, from any earlier run or any other writer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.config import nearest_name
from reland_jax.pool.contract import Problem, ProviderResult, RationaleRequest
from reland_jax.pool.reading.parser import (
    ParsedRationale,
    first_sentence,
    is_refusal,
    parse_response,
    plain_text,
)
from reland_jax.pool.reading.readable import readable
from reland_jax.types import HOW_NAMES, REPRESENTATIVE, Rationale, RelandError


class FileRationale(NamedTuple):
    """One line of a pool file.

    Attributes:
        user_id: external id.
        how: index into `HOW_NAMES`, from "sampled_by"; `REPRESENTATIVE` where the file does not say.
        cluster: K-means cluster from "cluster", None where the file does not say.
        rationale: None if the text is not readable: the seed is quarantined.
        problems: why it is not readable, or remarks on how it was read; () for a clean line.
        line: line number in the file, from 1.
    """

    user_id: str
    how: int
    cluster: int | None
    rationale: Rationale | None
    problems: tuple[str, ...]
    line: int


def read_pool_file(path: str | Path) -> list[FileRationale]:
    """Reads a .jsonl pool, in file order.

    Every line is an object with "user_id" and one of: "response" (a raw answer, which is parsed),
    "step2" with an optional "step1" (taken as they are), or "text" (free text: it becomes step 2, its
    first sentence step 1). The first of these that is not empty is read. Optional: "sampled_by",
    "cluster", "model", "prompt_hash", "prompt_tokens", "response_tokens", "created".

    Raises:
        RelandError: no such file, an empty one, or, with file and line, a line that is not such an
            object or names a user for the second time.
    """
    path = Path(path)
    first_line: dict[str, int] = {}
    entries = []
    for line, values in _objects(path):
        entry = _entry(values, path, line)
        if entry.user_id in first_line:
            raise RelandError(
                f"{path}:{line}: user_id {entry.user_id!r} is already on line {first_line[entry.user_id]}; "
                "a user has one rationale: remove one of the two lines"
            )
        first_line[entry.user_id] = line
        entries.append(entry)
    if not entries:
        raise RelandError(f"{path}: the pool file has no lines; it needs one JSON object per seed user")
    return entries


class FileProvider:
    """Gives out the rationales of a pool file.

    Attributes:
        path: the file.
        entries: its lines, in order.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the whole file; raises like `read_pool_file`."""
        self.path = Path(path)
        self.entries = read_pool_file(path)

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Rationales by user id; None for a user that the file does not name, or a quarantined line."""
        by_user = {entry.user_id: entry for entry in self.entries}
        rationales: list[Rationale | None] = []
        problems = []
        for request in requests:
            entry = by_user.get(request.user_id)
            rationales.append(entry.rationale if entry else None)
            if entry is None:
                problems.append(Problem(request.user_id, f"{self.path}: no line for this user"))
                continue
            used = "" if entry.rationale is None else "used, but "
            where = f"{self.path}:{entry.line}: {used}"
            problems += [Problem(entry.user_id, where + problem) for problem in entry.problems]
        return ProviderResult(rationales, problems)


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every line as (line number, object); blank lines are skipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RelandError(
            f"config.pool.path={str(path)!r} cannot be read ({error.strerror}); "
            "it must name a pool file (.jsonl)"
        ) from error
    for line, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            values = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RelandError(f"{path}:{line}: not a JSON object in UTF-8 ({error})") from error
        if not isinstance(values, dict):
            raise RelandError(f"{path}:{line}: a {type(values).__name__}, where a JSON object is needed")
        yield line, values


def _entry(values: Mapping[str, Any], path: Path, line: int) -> FileRationale:
    where = f"{path}:{line}"
    user_id = values.get("user_id")
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        raise RelandError(f"{where}: field 'user_id' must be a non-empty string, not {user_id!r}")
    how = values.get("sampled_by") or HOW_NAMES[REPRESENTATIVE]
    if how not in HOW_NAMES:
        raise RelandError(f"{where}: sampled_by={how!r} is not known; {nearest_name(str(how), HOW_NAMES)}")
    cluster = values.get("cluster")
    if cluster is not None and not _is_count(cluster):
        raise RelandError(f"{where}: cluster={cluster!r} must be a number from 0")
    parsed, raw = _parsed(values, where)
    rationale = None
    if parsed.step2:
        rationale = Rationale(parsed.step1, parsed.step2, raw, **_origin(values, path, where))
    return FileRationale(str(user_id), HOW_NAMES.index(how), cluster, rationale, parsed.problems, line)


def _parsed(values: Mapping[str, Any], where: str) -> tuple[ParsedRationale, str]:
    """The two steps and the raw text that they come from."""
    for field in ("response", "step1", "step2", "text"):
        if not isinstance(values.get(field, ""), (str, type(None))):
            raise RelandError(f"{where}: field {field!r} must be a string, not {values[field]!r}")
    response, step1, step2, text = (
        plain_text(values.get(field) or "") for field in ("response", "step1", "step2", "text")
    )
    if response.strip():
        return parse_response(response), response
    if step2.strip():
        steps = ParsedRationale(" ".join(step1.split()), " ".join(step2.split()), ())
        return _checked(steps), f"Step 1: {step1}\nStep 2: {step2}"
    if text.strip():
        return _checked(ParsedRationale(first_sentence(text), readable(text), ())), text
    if not any(field in values for field in ("response", "step2", "text")):
        raise RelandError(f"{where}: needs one of the fields 'response', 'step2' (with 'step1') or 'text'")
    return ParsedRationale("", "", ("the text is empty",)), ""


def _checked(steps: ParsedRationale) -> ParsedRationale:
    if is_refusal(steps.step2):
        return ParsedRationale("", "", (f"the text is a refusal: {steps.step2[:80]!r}",))
    if not any(character.isalnum() for character in steps.step2):
        return ParsedRationale("", "", ("step 2 has no words",))
    return steps if steps.step1 else steps._replace(problems=("step 1 is missing",))


def _origin(values: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Who wrote a rationale, from what and for how many tokens, as far as the line says."""
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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
