"""Pool files: every form of a line, and every fault with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.files import FileProvider, read_pool_file
from reland_jax.types import IMPORTANT, REPRESENTATIVE, RelandError

GOOD = {"user_id": "u1", "response": "Step 1: Likes oils.\nStep 2: Masks; Oils."}


def write(folder: Path, *lines: dict[str, Any] | str | bytes, name: str = "mine.jsonl") -> Path:
    path = folder / name
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(raw))
    return path


def test_the_three_forms(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        GOOD
        | {
            "sampled_by": "important",
            "cluster": 3,
            "model": "some-llm",
            "prompt_tokens": 5,
            "created": "2026-01-02",
        },
        "",
        {"user_id": "u2", "step1": "Likes\n oils.", "step2": "Masks;  Oils."},
        {"user_id": 3, "text": "Likes oils. Enjoys masks too."},
    )
    first, second, third = read_pool_file(path)
    assert (first.user_id, first.how, first.cluster, first.line, first.problems) == (
        "u1",
        IMPORTANT,
        3,
        1,
        (),
    )
    assert first.rationale == (
        "Likes oils.",
        "Masks; Oils.",
        GOOD["response"],
        "",
        "some-llm",
        5,
        0,
        "2026-01-02",
    )
    assert (second.user_id, second.how, second.cluster, second.line) == ("u2", REPRESENTATIVE, None, 3)
    assert second.rationale[:3] == (
        "Likes oils.",
        "Masks; Oils.",
        "Step 1: Likes\n oils.\nStep 2: Masks;  Oils.",
    )
    assert second.rationale.model == "file:mine.jsonl"
    assert third.user_id == "3"
    assert third.rationale[:3] == (
        "Likes oils.",
        "Likes oils. Enjoys masks too.",
        "Likes oils. Enjoys masks too.",
    )


def test_the_raw_answer_goes_before_the_steps(tmp_path: Path) -> None:
    (entry,) = read_pool_file(write(tmp_path, GOOD | {"step1": "other", "step2": "other"}))
    assert entry.rationale.step2 == "Masks; Oils."


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"user_id": "u2", "response": "Step 1: Likes oils."}, "step 2 is missing"),
        ({"user_id": "u2", "response": "I'm sorry, I cannot help."}, "the answer is a refusal"),
        ({"user_id": "u2", "text": "I'm sorry, but I cannot help."}, "the text is a refusal"),
        ({"user_id": "u2", "step2": "..."}, "step 2 has no words"),
        ({"user_id": "u2", "response": " "}, "the text is empty"),
    ],
)
def test_unreadable_seeds_are_quarantined_and_listed(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    path = write(tmp_path, GOOD, line)
    result = FileProvider(path).rationales([RationaleRequest("u2", ""), RationaleRequest("u1", "")])
    assert result.rationales[0] is None and result.rationales[1].step2 == "Masks; Oils."
    assert result.problems[0].user_id == "u2"
    assert result.problems[0].why.startswith(f"{path}:2: {why}")


def test_used_with_a_remark_and_unknown_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"user_id": "u1", "step2": "Masks."})
    result = FileProvider(path).rationales([RationaleRequest("u1", ""), RationaleRequest("u9", "")])
    assert result.rationales[0].step2 == "Masks." and result.rationales[1] is None
    assert result.problems == [
        ("u1", f"{path}:1: used, but step 1 is missing"),
        ("u9", f"{path}: no line for this user"),
    ]


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ('{"user_id": "u2", "respon', ":2: not a JSON object in UTF-8"),
        (b'{"user_id": "\xff"}', ":2: not a JSON object in UTF-8"),
        ("[" * 100_000, ":2: not a JSON object in UTF-8"),
        ("[1, 2]", ":2: a list, where a JSON object is needed"),
        (GOOD, ":2: user_id 'u1' is already on line 1"),
        ({"response": "x"}, ":2: field 'user_id' must be a non-empty string, not None"),
        ({"user_id": "", "text": "x"}, ":2: field 'user_id' must be a non-empty string, not ''"),
        ({"user_id": True, "text": "x"}, ":2: field 'user_id' must be a non-empty string, not True"),
        ({"user_id": "u2", "step1": "x"}, ":2: needs one of the fields 'response', 'step2'"),
        ({"user_id": "u2", "text": 7}, ":2: field 'text' must be a string, not 7"),
        (
            GOOD | {"user_id": "u2", "sampled_by": "import"},
            ":2: sampled_by='import' is not known; did you mean 'important'",
        ),
        (GOOD | {"user_id": "u2", "cluster": -1}, ":2: cluster=-1 must be a number from 0"),
        (GOOD | {"user_id": "u2", "prompt_tokens": "many"}, ":2: prompt_tokens='many' must be a number"),
        (GOOD | {"user_id": "u2", "model": 7}, ":2: field 'model' must be a string, not 7"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, second_line: Any, message: str) -> None:
    path = write(tmp_path, GOOD, second_line)
    with pytest.raises(RelandError) as error:
        read_pool_file(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_no_file_and_no_lines(tmp_path: Path) -> None:
    with pytest.raises(
        RelandError, match=r"cannot be read \(No such file or directory\); it must name a pool file"
    ):
        read_pool_file(tmp_path / "absent.jsonl")
    with pytest.raises(RelandError, match="the pool file has no lines"):
        read_pool_file(write(tmp_path, "", " "))


def test_lone_surrogates_and_marks_of_windows_editors(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"user_id": "u1", "text": "Likes \\ud800 oils."}\r')
    (entry,) = read_pool_file(path)
    assert entry.rationale.step2 == "Likes \ufffd oils."


@pytest.mark.shared_data
def test_the_real_pools_are_read_without_a_problem(shared_data: Path) -> None:
    """The answers were split into steps by another program; this parser must come to the same texts."""
    path = shared_data.parent / "pools" / "amazon-beauty.jsonl"
    given = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    entries = read_pool_file(path)
    assert len(entries) == 2236 and not any(entry.problems for entry in entries)
    assert [(e.rationale.step1, e.rationale.step2) for e in entries] == [
        (g["step1"], g["step2"]) for g in given
    ]
    assert sum(entry.how == IMPORTANT for entry in entries) == 544
    free = read_pool_file(shared_data / "lastfm" / "lastfm.rationales.jsonl")
    assert len(free) == 1859 and not any(entry.problems for entry in free)
    assert all(entry.rationale.step2.startswith(entry.rationale.step1) for entry in free)
