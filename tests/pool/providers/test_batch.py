"""Batch files: requests out, answers in, and whatever services and people do to the files in between."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import request_key
from reland_jax.pool.asking.replies import MORE_ROOM
from reland_jax.pool.contract import ProviderResult, RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.providers import batch
from reland_jax.pool.providers.batch import REQUEST_FILE, RESPONSE_FILE, AwaitingResponses, BatchProvider
from reland_jax.pool.providers.batch_files import custom_id, split_lines
from reland_jax.types import RelandError

CONFIG = PoolConfig(
    provider="batch", model="some-llm", max_tokens=99, temperature=0.25, tokenizer="characters",
    answers="text",
)  # fmt: skip
REQUESTS = [RationaleRequest(f"user-{name}", f"prompt {name} é") for name in "abc"]


def name_of(letter: str) -> str:
    return custom_id(request_key(f"prompt {letter} é", CONFIG))


def answered(letter: str, content: Any = None, **body: Any) -> dict[str, Any]:
    """A line of a response file as the services write it."""
    text = f"Step 1: Likes {letter}.\nStep 2: More {letter}." if content is None else content
    full = {
        "id": "chatcmpl-1",
        "created": 1_700_000_000,
        "model": "some-llm-0613",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    } | body
    response = {"status_code": 200, "request_id": "r", "body": full}
    return {"id": "batch_req_1", "custom_id": name_of(letter), "response": response, "error": None}


def read(folder: Path, *lines: dict[str, Any] | str, end: str = "\n") -> ProviderResult:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / RESPONSE_FILE).write_text("\n".join(texts) + end, "utf-8")
    return BatchProvider(CONFIG, LLMConfig(), folder).rationales(REQUESTS)


def test_the_request_file(tmp_path: Path) -> None:
    with pytest.raises(AwaitingResponses) as waiting:
        BatchProvider(CONFIG, LLMConfig(), tmp_path / "new").rationales(REQUESTS)
    path = waiting.value.request_path
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    digest = hashlib.sha256(json.dumps(["prompt a é", "some-llm", 99, 0.25]).encode()).hexdigest()
    assert lines[0] == {
        "custom_id": f"reland-{digest[:48]}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "some-llm",
            "messages": [{"role": "user", "content": "prompt a é"}],
            "max_tokens": 99,
            "temperature": 0.25,
        },
    }
    assert [line["custom_id"] for line in lines] == [name_of(letter) for letter in "abc"]
    assert "user-" not in path.read_text("utf-8")
    assert all(len(line["custom_id"]) <= 64 for line in lines)
    assert sorted(p.name for p in path.parent.iterdir()) == [REQUEST_FILE, "journal.sqlite"]


def test_the_message_says_what_to_do_next(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    with pytest.raises(AwaitingResponses) as waiting:
        BatchProvider(CONFIG, LLMConfig(), folder).rationales(REQUESTS)
    message, requests, responses = str(waiting.value), folder / REQUEST_FILE, folder / RESPONSE_FILE
    assert isinstance(waiting.value, RelandError) and waiting.value.num_requests == 3
    assert f"3 prompts wait for answers: {requests}" in message
    assert f"vllm run-batch -i '{requests}' -o '{responses}' --model some-llm" in message
    assert "https://api.openai.com/v1/batches" in message and "$OPENAI_API_KEY" in message
    assert f"Then run the same command again: it reads {responses}" in message


def refused(letter: str, setting: str) -> dict[str, Any]:
    """A line as the service writes it for a request with a setting that the model does not take."""
    error = {"message": "not supported with this model", "param": setting, "code": "unsupported_parameter"}
    response = {"status_code": 400, "body": {"error": error}}
    return {"custom_id": name_of(letter), "response": response, "error": None}


def bounds(folder: Path) -> list[dict[str, Any]]:
    """What the request file says of the length of answers."""
    lines = [json.loads(line) for line in (folder / REQUEST_FILE).read_text("utf-8").splitlines()]
    return [{name: value for name, value in line["body"].items() if "max_" in name} for line in lines]


def test_a_model_that_refuses_max_tokens_is_asked_by_the_newer_name(tmp_path: Path) -> None:
    """By the first line that says so; it is remembered when the response file says nothing of it any more."""
    result = read(tmp_path, refused("a", "max_tokens"), answered("c"))
    assert [bool(each) for each in result.rationales] == [False, False, True]
    assert "asked with max_completion_tokens the next time" in result.problems[0].why
    assert bounds(tmp_path) == [{"max_completion_tokens": 99}] * 2
    result = read(tmp_path, answered("a"))
    assert [bool(each) for each in result.rationales] == [True, False, True]
    assert bounds(tmp_path) == [{"max_completion_tokens": 99}]


def test_a_model_that_refuses_a_schema_is_asked_without(tmp_path: Path) -> None:
    """It is remembered, counted and told; where nothing but a schema was wanted, it is an error."""
    in_fields = dataclasses.replace(CONFIG, answers="auto")
    provider = BatchProvider(in_fields, LLMConfig(), tmp_path)
    lines = [refused("a", "response_format"), refused("b", "response_format"), answered("c")]
    (tmp_path / RESPONSE_FILE).write_text("\n".join(map(json.dumps, lines)))
    told = [why for _, why in provider.rationales(REQUESTS).problems]
    assert "asked without a JSON schema the next time" in told[0]
    assert "2 prompts were sent without a JSON schema: the service refuses one for 'some-llm'" in told
    for _ in range(2):
        bodies = [json.loads(line)["body"] for line in (tmp_path / REQUEST_FILE).read_text().splitlines()]
        assert len(bodies) == 2 and not any("response_format" in body for body in bodies)
        (tmp_path / RESPONSE_FILE).write_text(json.dumps(answered("c")))
        provider = BatchProvider(in_fields, LLMConfig(), tmp_path)
        provider.rationales(REQUESTS)
    only = dataclasses.replace(in_fields, answers="json_schema", model="other-llm")
    with pytest.raises(AwaitingResponses):
        BatchProvider(only, LLMConfig(), tmp_path / "only").rationales(REQUESTS)
    (line, *_) = (tmp_path / "only" / REQUEST_FILE).read_text().splitlines()
    asked = json.loads(line)
    assert asked["body"]["response_format"]["json_schema"]["strict"] is True
    refusal = refused("a", "response_format") | {"custom_id": asked["custom_id"]}
    (tmp_path / "only" / RESPONSE_FILE).write_text(json.dumps(refusal))
    (first, *_) = BatchProvider(only, LLMConfig(), tmp_path / "only").rationales(REQUESTS).problems
    assert "set config.pool.answers to text" in first.why


def test_another_refused_setting_changes_nothing(tmp_path: Path) -> None:
    read(tmp_path, refused("a", "temperature"), answered("c"))
    assert bounds(tmp_path) == [{"max_tokens": 99}] * 2


def test_users_with_the_same_prompt_share_one_request(tmp_path: Path) -> None:
    twins = [RationaleRequest("u1", "prompt a é"), RationaleRequest("u2", "prompt a é")]
    with pytest.raises(AwaitingResponses) as waiting:
        BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(twins)
    assert waiting.value.num_requests == 1
    (tmp_path / RESPONSE_FILE).write_text(json.dumps(answered("a")))
    result = BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(twins)
    assert result.rationales[0] == result.rationales[1] is not None


def test_answers_in_any_order(tmp_path: Path) -> None:
    result = read(tmp_path, answered("c"), answered("a"), answered("b"))
    assert [r.step2 for r in result.rationales] == ["More a.", "More b.", "More c."]
    assert result.problems == []
    response = "Step 1: Likes a.\nStep 2: More a."
    assert result.rationales[0] == (
        "Likes a.", "More a.", response,
        prompt_hash("prompt a é"), "some-llm-0613", 11, 7, "2023-11-14T22:13:20+00:00",
    )  # fmt: skip


def test_a_response_file_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "answers.jsonl"
    elsewhere.write_text("\n".join(json.dumps(answered(letter)) for letter in "abc"))
    llm = LLMConfig(responses=str(elsewhere))
    result = BatchProvider(CONFIG, llm, tmp_path / "run").rationales(REQUESTS)
    assert all(result.rationales)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            answered("a") | {"error": {"code": "x", "message": "gone"}},
            'the service reports an error: {"code": "x"',
        ),
        (answered("a") | {"response": None}, "the line has no response"),
        (
            answered("a") | {"response": {"status_code": 429, "body": {"error": "slow"}}},
            'status 429: {"error": "slow"}',
        ),
        (answered("a", choices=[]), "the answer has no choices"),
        (answered("a", choices=None), "the answer has no choices"),
        (answered("a") | {"response": {"status_code": 200, "body": "text"}}, "the answer has no choices"),
        (answered("a", choices=[{"message": None}]), "the answer has no content"),
        (answered("a", " \n"), "the answer has no content"),
    ],
)
def test_failed_requests_are_listed(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    result = read(tmp_path, answered("b"), line, answered("c"))
    assert [r is None for r in result.rationales] == [True, False, False]
    (problem,) = result.problems
    assert problem.user_id == "user-a"
    assert problem.why.startswith(f"{tmp_path / RESPONSE_FILE}:2: {why}")


def test_unreadable_answers_are_listed_and_never_used(tmp_path: Path) -> None:
    result = read(
        tmp_path, answered("a", "I'm sorry, I cannot help."), answered("b", "Step 2: x."), answered("c")
    )
    assert [r is None for r in result.rationales] == [True, False, False]
    assert result.problems[0].user_id == "user-a" and "refusal" in result.problems[0].why
    assert result.problems[1] == ("user-b", "used, but step 1 is missing")


def test_content_in_parts_and_unknown_usage(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "Step 1: x.\n"},
        {"type": "image"},
        {"type": "text", "text": "Step 2: y."},
    ]
    result = read(
        tmp_path, answered("a", parts, usage=None, created=None, model=None), answered("b"), answered("c")
    )
    rationale = result.rationales[0]
    assert (rationale.step2, rationale.model, rationale.prompt_tokens, rationale.created) == (
        "y.",
        "some-llm",
        0,
        "",
    )


def test_duplicates_unknown_and_missing_answers(tmp_path: Path) -> None:
    second = answered("a", "Step 1: other.\nStep 2: other.")
    result = read(tmp_path, answered("a"), second, answered("z"), {"custom_id": None}, answered("b"))
    assert [r and r.step2 for r in result.rationales] == ["More a.", "More b.", None]
    path = tmp_path / RESPONSE_FILE
    assert result.problems == [
        ("", f"{path}:2: second answer for {name_of('a')!r}; the first is used"),
        ("", f"{path}:3: custom_id {name_of('z')!r} is not a request of this run"),
        ("", f"{path}:4: custom_id None is not a request of this run"),
        ("user-c", f"{path}: no answer for this prompt"),
    ]


def test_a_second_try_counts_after_a_failure(tmp_path: Path) -> None:
    failed = answered("a") | {"error": "busy"}
    result = read(tmp_path, failed, answered("a"), answered("b"), answered("c"))
    assert all(result.rationales) and result.problems == []


def test_a_cut_last_line_and_garbage_are_listed(tmp_path: Path) -> None:
    cut = json.dumps(answered("c"))[:80]
    result = read(tmp_path, answered("a"), "not json", "[1]", "", answered("b"), cut, end="")
    assert [r is None for r in result.rationales] == [False, False, True]
    path = tmp_path / RESPONSE_FILE
    assert result.problems[0].why.startswith(f"{path}:2: not a JSON object in UTF-8")
    assert result.problems[1].why == f"{path}:3: a list, where a JSON object is needed; the line is not used"
    assert result.problems[2].why == f"{path}:6: the last line is cut off; the line is not used"
    assert result.problems[3] == ("user-c", f"{path}: no answer for this prompt")


def test_answers_to_other_prompts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RelandError, match="answers no prompt of the 3 in .*batch_requests.jsonl; it belongs to other"
    ):
        read(tmp_path, answered("x"), answered("y"))
    assert (tmp_path / REQUEST_FILE).exists()


def test_what_has_no_usable_answer_is_asked_again_by_hand(tmp_path: Path) -> None:
    """The request file shrinks to what is left; a malformed answer goes along with what is wrong with it."""
    result = read(tmp_path, answered("a"), answered("b", "I'm sorry, I cannot help."))
    assert [r is None for r in result.rationales] == [False, True, True]
    left = [json.loads(line) for line in (tmp_path / REQUEST_FILE).read_text("utf-8").splitlines()]
    again = f"{name_of('b')}-again"
    assert [line["custom_id"] for line in left] == [again, name_of("c")]
    prompt, bad, wrong = left[0]["body"]["messages"]
    assert (prompt["content"], bad["role"]) == ("prompt b é", "assistant") and "refusal" in wrong["content"]
    assert read(tmp_path, answered("a"), answered("b", "I'm sorry, I cannot help.")) == result
    second = read(tmp_path, answered("b") | {"custom_id": again}, answered("c"))
    assert [r.step2 for r in second.rationales] == ["More a.", "More b.", "More c."]
    assert second.problems == [] and not (tmp_path / REQUEST_FILE).exists()
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.usage()["some-llm"] == (4, 44, 28)


def test_what_the_journal_answers_needs_no_response_file(tmp_path: Path) -> None:
    result = read(tmp_path, answered("a"), answered("b"), answered("c"))
    (tmp_path / RESPONSE_FILE).unlink()
    assert BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(REQUESTS) == result
    with pytest.raises(AwaitingResponses) as waiting:
        BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales([*REQUESTS, RationaleRequest("u", "new")])
    assert waiting.value.num_requests == 1
    assert "new" in waiting.value.request_path.read_text()


def test_too_many_requests_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "split_lines", lambda lines: split_lines(lines, max_requests=2))
    with pytest.raises(AwaitingResponses, match="Do the same for .*batch_requests-2.jsonl, with all answers"):
        BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(REQUESTS)
    parts = [tmp_path / REQUEST_FILE, tmp_path / "batch_requests-2.jsonl"]
    assert [len(path.read_text("utf-8").splitlines()) for path in parts] == [2, 1]
    result = read(tmp_path, answered("c"), answered("a"))
    assert [r is None for r in result.rationales] == [False, True, False]
    assert [path.exists() for path in parts] == [True, False]


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)),
    st.integers(1, 5),
    st.integers(36, 60),
)
def test_files_are_within_the_bounds(lines: list[str], max_requests: int, max_bytes: int) -> None:
    parts = split_lines(lines, max_requests, max_bytes)
    assert [line for part in parts for line in part] == lines
    sizes = [sum(len(line.encode()) for line in part) for part in parts]
    assert all(0 < len(part) <= max_requests for part in parts) and all(s <= max_bytes for s in sizes)
    for part, size, following in zip(parts, sizes, parts[1:], strict=False):  # no file could be fuller
        assert len(part) == max_requests or size + len(following[0].encode()) > max_bytes


KILLED = """
import os, sys
from pathlib import Path
from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.providers import batch
from reland_jax.pool.contract import RationaleRequest
if sys.argv[2] == "before":
    os.replace = lambda *_: os.kill(os.getpid(), 9)
requests = [RationaleRequest(f"user-{n}", f"prompt {n} é") for n in "abc"]
config = PoolConfig(
    provider="batch", model="some-llm", max_tokens=99, temperature=0.25, answers="text"
)
try:
    batch.BatchProvider(config, LLMConfig(), Path(sys.argv[1])).rationales(requests)
except batch.AwaitingResponses:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_waiting(tmp_path: Path, moment: str, repository: Path) -> None:
    """Killed around the writing of the requests, the next run finds none or all, and goes on to the end."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), moment], cwd=repository, env=os.environ
    )
    assert done.returncode == -9
    path = tmp_path / REQUEST_FILE
    assert path.exists() == (moment == "after")
    before = (path.read_bytes(), path.stat().st_mtime_ns) if path.exists() else None
    with pytest.raises(AwaitingResponses):
        BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(REQUESTS)
    assert before is None or before == (path.read_bytes(), path.stat().st_mtime_ns)
    requests = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    letters = [line["body"]["messages"][0]["content"].split()[1] for line in requests]
    result = read(tmp_path, *(answered(letter) for letter in letters))
    assert all(result.rationales) and result.problems == []


def test_response_files_in_other_dress(tmp_path: Path) -> None:
    lines = [answered("a"), answered("b"), answered("c")]
    dresses = [
        "\n".join(map(json.dumps, lines)).encode("utf-16"),
        json.dumps(lines).encode(),
        "\n".join(json.dumps(line, indent=1) for line in lines).encode(),
        "".join(map(json.dumps, lines)).encode(),
    ]
    for number, content in enumerate(dresses):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / RESPONSE_FILE).write_bytes(content)
        result = BatchProvider(CONFIG, LLMConfig(), folder).rationales(REQUESTS)
        assert [r and r.step2 for r in result.rationales] == ["More a.", "More b.", "More c."]
        assert result.problems == []


def test_envelopes_of_other_services(tmp_path: Path) -> None:
    body = answered("a")["response"]["body"]
    text = body["choices"][0]["message"]["content"]
    gemini = {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}
    anthropic = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    envelopes = [
        {"custom_id": name_of("a"), "response": {"status_code": "200", "body": json.dumps(body)}},
        {"key": name_of("a"), "response": gemini},
        {"custom_id": name_of("a"), "result": {"type": "succeeded", "message": anthropic}},
        {"recordId": name_of("a"), "modelInput": {}, "modelOutput": anthropic},
        {"key": name_of("a"), "status": "", "response": anthropic},
        {"custom_id": name_of("a"), "response": text},
    ]
    for number, line in enumerate(envelopes):
        folder = tmp_path / str(number)
        folder.mkdir()
        expired = {"custom_id": name_of("b"), "result": {"type": "expired"}}
        failed = {"key": name_of("c"), "status": "Bad Request: too long", "response": {}}
        result = read(folder, line, expired, failed, {"custom_id": ["b"]})
        assert [r and r.step2 for r in result.rationales] == ["More a.", None, None]
        for told in ('the service reports: {"type": "expired"}', 'reports: "Bad Request: too long"'):
            assert any(told in problem.why for problem in result.problems)


def test_what_is_wrong_with_a_file_that_answers_nothing_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=r"answers no prompt of .*; the first remark: .*:1: .* not a"):
        read(tmp_path, answered("x"))


def test_a_cut_or_filtered_answer_is_not_used(tmp_path: Path) -> None:
    lines = [answered(name) for name in "abc"]
    for line, reason in zip(lines, ("stop", "length", "content_filter"), strict=True):
        line["response"]["body"]["choices"][0]["finish_reason"] = reason
    result = read(tmp_path, *lines)
    assert [r and r.step2 for r in result.rationales] == ["More a.", None, None]
    assert "cut the answer off" in result.problems[0].why and "filtered" in result.problems[1].why
    left = [json.loads(line)["custom_id"] for line in (tmp_path / REQUEST_FILE).read_text().splitlines()]
    assert left == [f"{name_of('b')}-again", f"{name_of('c')}-again"]


def test_another_model_than_asked_is_told_once(tmp_path: Path) -> None:
    result = read(tmp_path, answered("a"), answered("b", model="other-8b"), answered("c", model="other-8b"))
    assert all(result.rationales)
    assert result.problems == [("", "2 of 3 answers are by 'other-8b'; config.pool.model is 'some-llm'")]


def test_an_answer_that_was_cut_off_is_asked_again_with_more_room(tmp_path: Path) -> None:
    """Once, by the same prompt; then it is in quarantine. A person's own files are left alone."""
    (tmp_path / "batch_requests-mine.jsonl").write_text("notes of my own\n")
    cut = answered("a")
    cut["response"]["body"]["choices"][0]["finish_reason"] = "length"
    first = read(tmp_path, answered("b"), cut, answered("c"))
    assert [each is not None for each in first.rationales] == [False, True, True]
    assert [problem.again for problem in first.problems] == [True]
    (line,) = (json.loads(row) for row in (tmp_path / "batch_requests.jsonl").read_text().splitlines())
    assert line["body"]["max_tokens"] == MORE_ROOM * CONFIG.max_tokens and len(line["body"]["messages"]) == 1
    assert line["custom_id"] == name_of("a") + "-again"
    second = read(tmp_path, answered("b"), {**cut, "custom_id": line["custom_id"]})
    assert second.rationales == first.rationales
    assert ["in quarantine" in problem.why for problem in second.problems] == [True]
    assert not second.problems[0].again and not list(tmp_path.glob("batch_requests.jsonl"))
    assert (tmp_path / "batch_requests-mine.jsonl").exists()


def test_a_file_that_is_no_file_of_requests_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "batch_requests.jsonl").write_text("notes of my own\n")
    with pytest.raises(RelandError, match="batch_requests.jsonl: not a request file of this program"):
        read(tmp_path, answered("a"))
