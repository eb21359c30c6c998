"""Pool files: every form of a line, and every fault with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.pool.contract import SeedRationales
from reland_jax.pool.pool_file import PoolFile, read_pool_file
from reland_jax.pool.providers import batch_files
from reland_jax.pool.reading import objects
from reland_jax.types import IMPORTANT, REPRESENTATIVE, IdMap, RelandError, Splits
from tests.toys import ragged

GOOD = {"user_id": "u1", "response": "Step 1: Likes oils.\nStep 2: Masks; Oils."}


def write(folder: Path, *lines: dict[str, Any] | str | bytes, name: str = "mine.jsonl") -> Path:
    path = folder / name
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(raw))
    return path


def brought(path: Path) -> SeedRationales:
    """What the file brings to data with the users u1 and u2, of whom nothing is held out."""
    ids = IdMap(np.asarray(["u1", "u2"], object), np.asarray(["", "i1"], object))
    shown, hidden = ragged([[1], [1]]), ragged([[], []])
    return PoolFile(path).seed_rationales(ids, None, Splits(shown, hidden, hidden, 1, "ratio"))


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
        ({"user_id": "u2", "text": "I'm sorry, but I cannot help."}, "the answer is a refusal"),
        ({"user_id": "u2", "step2": "..."}, "step 2 is missing"),
        ({"user_id": "u2", "response": " "}, "the text is empty"),
    ],
)
def test_unreadable_seeds_are_quarantined_and_listed(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    path = write(tmp_path, GOOD, line)
    result = brought(path)
    first, second = result.rationales
    assert first and first.step2 == "Masks; Oils." and second is None
    assert result.problems[0].user_id == "u2"
    assert result.problems[0].why.startswith(f"{path}:2: {why}")


def test_used_with_a_remark(tmp_path: Path) -> None:
    path = write(tmp_path, {"user_id": "u1", "step2": "Masks."})
    result = brought(path)
    assert [each.step2 for each in result.rationales if each] == ["Masks."]
    assert result.problems == [("u1", f"{path}:1: used, but step 1 is missing")]


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ('{"user_id": "u2", "respon', ":2: the last line is cut off"),
        ('{"user_id": "u2", "respon\n', ":2: not a JSON object in UTF-8"),
        (b'{"user_id": "\xff"}', ":2: not a JSON object in UTF-8"),
        ("[" * 100_000 + "\n", ":2: not a JSON object in UTF-8"),
        ("[1, 2]", ":2: a list, where a JSON object is needed"),
        (GOOD, ":2: user_id 'u1' is on line 1 already"),
        ({"response": "x"}, ""),
        ({"userId": 1, "text": "x"}, ":2: no field 'user_id'; the fields are 'userId', 'text': rename"),
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


def dresses(objects: list[dict[str, Any]]) -> dict[str, bytes]:
    """The same objects as files of different programs."""
    lines = "\n".join(map(json.dumps, objects)) + "\n"
    return {
        "UTF-16 with a mark, as PowerShell writes it": lines.encode("utf-16"),
        "UTF-16 without": lines.encode("utf-16-le"),
        "UTF-16, the other order": b"\xfe\xff" + lines.encode("utf-16-be"),
        "UTF-8 with a mark and old line ends": b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode(),
        "an array": json.dumps(objects).encode(),
        "an array over many lines": json.dumps(objects, indent=2).encode(),
        "objects over many lines": "\n".join(json.dumps(one, indent=1) for one in objects).encode(),
        "joined without line ends": "".join(map(json.dumps, objects)).encode(),
        "record separators": "\n".join("\x1e" + json.dumps(one) for one in objects).encode(),
    }


PEOPLE = [{"user_id": name, "text": f"{name} likes mild soap."} for name in ("Ana", "Bo", "Çelik")]


@pytest.mark.parametrize("dress", dresses(PEOPLE))
def test_pool_files_in_any_dress(tmp_path: Path, dress: str) -> None:
    entries = read_pool_file(write(tmp_path, dresses(PEOPLE)[dress]))
    assert [entry.user_id for entry in entries] == ["Ana", "Bo", "Çelik"]
    assert [entry.rationale.step2 for entry in entries] == [one["text"] for one in PEOPLE]


def test_lines_are_those_of_the_file_in_any_dress(tmp_path: Path) -> None:
    pretty = json.dumps([*PEOPLE, {"user_id": "Bo", "text": "x"}], indent=2)
    number = pretty[: pretty.rindex("{")].count("\n") + 1
    with pytest.raises(RelandError, match=rf"mine.jsonl:{number}: user_id 'Bo' is on line 6 already"):
        read_pool_file(write(tmp_path, pretty))


def test_packed_files_and_other_encodings_are_reported(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(RelandError, match="the file is packed with gzip; unpack it"):
        read_pool_file(write(tmp_path, gzip.compress(json.dumps(PEOPLE[0]).encode())))
    with pytest.raises(RelandError, match="neither in UTF-8 nor in UTF-16; convert it"):
        read_pool_file(write(tmp_path, b"\xff\xfe{\x00}"))
    with pytest.raises(RelandError, match=r":2: not a JSON .* \(it has bytes of another encoding\)"):
        latin = '{"user_id": "u2", "text": "crème"}'.encode("latin-1")
        read_pool_file(write(tmp_path, GOOD, latin))


LIKES = "Likes soap."
DRAFT = "Step 1: a draft.\nStep 2: Draft tyres; Draft wheels."


@pytest.mark.parametrize(
    ("fields", "step1", "step2"),
    [
        ({"text": "<think>hm</think>Likes soap. Try Rose Soap."}, LIKES, "Likes soap. Try Rose Soap."),
        ({"text": f"[THINK]{DRAFT}[/THINK]\nStep 1: {LIKES}\nStep 2: Rose Soap"}, LIKES, "Rose Soap"),
        ({"text": "Likes soap.<|im_end|>\n<|im_start|>user\nmore"}, LIKES, LIKES),
        ({"step1": "Likes soap.</s>", "step2": "<think>ty</think>Rose Soap<|eot_id|>"}, LIKES, "Rose Soap"),
        ({"step1": "Step 1: Likes soap.", "step2": "Step 2: Rose Soap"}, LIKES, "Rose Soap"),
        ({"step2": '```json\n{"categories": ["Soap", "Oil"]}\n```'}, "", "Categories: Soap; Oil."),
        (
            {"text": '{"summarization": "Likes soap", "reasoning": "tyres"}'},
            "Summarization: Likes soap.", "Summarization: Likes soap.",
        ),
    ],
)  # fmt: skip
def test_one_reader_for_every_field(tmp_path: Path, fields: dict[str, str], step1: str, step2: str) -> None:
    (entry,) = read_pool_file(write(tmp_path, {"user_id": "u"} | fields))
    assert entry.rationale is not None and entry.rationale[:2] == (step1, step2)


@pytest.mark.parametrize("field", ["response", "text", "step2"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"<think>{DRAFT}", "the answer stops inside its thoughts"),
        ("Step 2: Recommended categories: [category 1]; [category 2]", "step 2 has only words of a template"),
        ("Step 2: " + "Soap; " * 50, "step 2 repeats itself"),
        ("Step 2: 该用户喜欢护肤品。推荐玫瑰洁面乳。", "step 2 is not in English"),
        ("Step 2: Recommended categories: Soap. Recommended items:", "step 2 stops at a label"),
    ],
)
def test_no_field_lets_anything_through(tmp_path: Path, field: str, text: str, why: str) -> None:
    (entry,) = read_pool_file(write(tmp_path, {"user_id": "u", field: text}))
    assert entry.rationale is None and any(why in problem for problem in entry.problems), entry.problems


def test_a_line_may_say_how_its_answer_ended(tmp_path: Path) -> None:
    lines = [GOOD | {"user_id": name, "finish_reason": name} for name in ("stop", "length", "content_filter")]
    whole, cut, filtered = read_pool_file(write(tmp_path, *lines))
    assert whole.rationale and not cut.rationale and not filtered.rationale
    assert "cut the answer off" in cut.problems[0] and "filtered" in filtered.problems[0]


def test_another_script_is_used_where_the_encoder_knows_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"user_id": "u", "text": "该用户喜欢护肤品。推荐玫瑰洁面乳。"})
    (refused,), (used,) = read_pool_file(path), read_pool_file(path, any_script=True)
    assert refused.rationale is None and "config.pool.any_script=True to use it" in refused.problems[0]
    assert used.rationale is not None and used.rationale.step2 == "该用户喜欢护肤品。推荐玫瑰洁面乳。"


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without end is not read; one rationale without end is told with its line."""
    huge = tmp_path / "huge.jsonl"
    with huge.open("wb") as file:
        file.truncate(objects.MOST_BYTES + 1)
    with pytest.raises(RelandError, match="huge.jsonl: 1000000001 bytes, more than"):
        read_pool_file(huge)
    with pytest.raises(RelandError, match="more than the limit of 1000000000"):
        batch_files.read_bytes(huge)
    monkeypatch.setattr(objects, "LONGEST", 100)
    long = tmp_path / "long.jsonl"
    long.write_text('{"user_id": "a", "text": "fine"}\n{"user_id": "b", "text": "' + "x" * 200 + '"}\n')
    with pytest.raises(RelandError, match="long.jsonl:2: .* characters, more than 100"):
        read_pool_file(long)
