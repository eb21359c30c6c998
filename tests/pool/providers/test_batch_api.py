"""Batches through the API: a local one that expires, fails, loses answers, and processes that are killed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.files import aside_name
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import BudgetReached
from reland_jax.pool.asking.records import request_key
from reland_jax.pool.asking.replies import MORE_ROOM
from reland_jax.pool.contract import ProviderResult, RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.tokens import UNKNOWN_OVERHEAD
from reland_jax.pool.providers import batch_state
from reland_jax.pool.providers.batch import (
    REQUEST_FILE,
    RESPONSE_FILE,
    AwaitingResponses,
    BatchProvider,
    UploadedBatchProvider,
)
from reland_jax.pool.providers.batch_files import custom_id
from reland_jax.pool.providers.batch_state import STATE_FILE
from reland_jax.pool.providers.openai_chat import OpenAIProvider
from reland_jax.types import Rationale, RelandError
from tests.pool.batch_server import (
    KEY,
    FakeBatchApi,
    Line,
    Plan,
    answer,
    batch_api,
    expired,
    good_answer,
    refusal,
    run_until_killed,
)

CONFIG = PoolConfig(
    provider="batch", model="some-llm", max_tokens=50, tokenizer="characters", answers="text"
)  # fmt: skip
LLM = LLMConfig(upload=True, poll_seconds=0.001, attempts=3, breaker_failures=3, timeout_seconds=10)
LETTERS = "abcd"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBatchApi]:
    with batch_api() as (server, url):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "*")
        yield server


def requests(letters: Sequence[str] = LETTERS) -> list[RationaleRequest]:
    return [RationaleRequest(f"user-{letter}", f"prompt {letter}") for letter in letters]


def run(folder: Path, llm: LLMConfig = LLM, letters: Sequence[str] = LETTERS) -> ProviderResult:
    return UploadedBatchProvider(CONFIG, llm, folder).rationales(requests(letters))


def name_of(letter: str, again: bool = False) -> str:
    return custom_id(request_key(f"prompt {letter}", CONFIG), again)


def names(letters: str) -> list[str]:
    return [name_of(letter) for letter in letters]


def steps(result: ProviderResult) -> list[str | None]:
    return [rationale and rationale.step2 for rationale in result.rationales]


def answering(letters: str, rest: str = "expired") -> Plan:
    """A batch that ends as `rest` says and has answered these prompts only."""

    def write(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        wanted = {*names(letters)}
        output = [good_answer(line) for line in lines if line["custom_id"] in wanted]
        return output, [expired(line) for line in lines if line["custom_id"] not in wanted]

    return Plan(rest, write)


def paid(folder: Path) -> dict[str, tuple[int, int, int]]:
    with Journal(folder / "journal.sqlite") as journal:
        return {model: tuple(usage) for model, usage in journal.usage().items()}


def test_a_whole_pool(api: FakeBatchApi, tmp_path: Path) -> None:
    result = run(tmp_path, letters="abcdab")
    assert result == (undisturbed().rationales + undisturbed().rationales[:2], [])
    assert api.asked() == [names("abcd")]
    assert paid(tmp_path) == {"some-llm": (4, 44, 28)}
    assert "user-" not in "".join(content.decode() for content in api.files.values())
    assert not list(tmp_path.glob("batch_sent/*"))
    before = len(api.calls)
    assert run(tmp_path, letters="abcdab") == result
    assert len(api.calls) == before


def test_by_hand_uploaded_and_answer_by_answer_are_the_same_pool(api: FakeBatchApi, tmp_path: Path) -> None:
    uploaded = run(tmp_path / "api")
    by_hand = BatchProvider(CONFIG, LLMConfig(), tmp_path / "hand")
    with pytest.raises(AwaitingResponses):
        by_hand.rationales(requests())
    lines = [json.loads(line) for line in (tmp_path / "hand" / REQUEST_FILE).read_text().splitlines()]
    answers = "".join(json.dumps(good_answer(line)) + "\n" for line in lines)
    (tmp_path / "hand" / RESPONSE_FILE).write_text(answers)
    assert by_hand.rationales(requests()) == uploaded
    assert not (tmp_path / "hand" / REQUEST_FILE).exists()
    for folder in ("api", "hand"):  # every provider finds the journalled answers and asks nothing
        assert OpenAIProvider(CONFIG, LLM, tmp_path / folder).rationales(requests()) == uploaded
    assert len(api.batches) == 1


def test_new_prompts_only(api: FakeBatchApi, tmp_path: Path) -> None:
    run(tmp_path, letters="ab")
    run(tmp_path, letters="abcd")
    assert api.asked() == [names("ab"), names("cd")]


def test_divided_by_the_bounds_of_the_service(
    api: FakeBatchApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_state, "MAX_REQUESTS", 3)
    assert None not in steps(run(tmp_path))
    assert api.asked() == [names("abc"), names("d")]


@pytest.mark.parametrize("status", ["expired", "cancelled", "failed", "completed"])
def test_the_rest_of_a_partly_answered_batch_is_asked_again(
    api: FakeBatchApi, tmp_path: Path, status: str
) -> None:
    if status == "failed":
        api.plans = [Plan("failed", errors=[{"code": "token_limit_exceeded", "message": "queue is full"}])]
        rest = "abcd"
    else:
        api.plans, rest = [answering("ac", status), answering("b")], "bd"
    result = run(tmp_path)
    assert None not in steps(result) and result.problems == []
    expected = [names("abcd"), names(rest)] + ([] if status == "failed" else [names("d")])
    assert api.asked() == expected
    assert paid(tmp_path) == {"some-llm": (4, 44, 28)}


def test_batches_that_bring_nothing_are_bounded(api: FakeBatchApi, tmp_path: Path) -> None:
    api.plans = [Plan("failed", errors=[{"line": 2, "message": "no such model"}]) for _ in range(9)]
    result = run(tmp_path)
    assert len(api.batches) == LLM.attempts
    assert steps(result) == [None] * 4
    assert result.problems[3] == ("user-d", "batch batch-2: failed (line 2: no such model)")
    api.plans = []
    assert None not in steps(run(tmp_path))  # another run tries again


def test_refused_prompts_are_not_asked_again_and_others_are(api: FakeBatchApi, tmp_path: Path) -> None:
    def write(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        status = {name_of("a"): 400, name_of("b"): 500, name_of("c"): 429}
        bad = [refusal(line, status[line["custom_id"]]) for line in lines if line["custom_id"] in status]
        return [good_answer(line) for line in lines if line["custom_id"] not in status], bad

    api.plans = [Plan(write=write)]
    result = run(tmp_path)
    assert [step is None for step in steps(result)] == [True, False, False, False]
    assert [(p.user_id, p.why) for p in result.problems] == [
        ("user-a", 'answers:1: status 400: {"error": {"message": "no"}}')
    ]
    assert api.asked() == [names("abcd"), names("bc")]


def test_a_model_that_refuses_max_tokens_is_asked_by_the_newer_name(
    api: FakeBatchApi, tmp_path: Path
) -> None:
    """In the next batch, and in those of later runs at once; the journal knows no difference."""

    def write(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        old = [line for line in lines if "max_tokens" in line["body"]]
        errors = [refusal(line, 400) for line in old]
        for line in errors:
            line["response"]["body"]["error"]["param"] = "max_tokens"
        return [good_answer(line) for line in lines if line not in old], errors

    api.plans = [Plan(write=write) for _ in range(3)]
    assert run(tmp_path) == undisturbed()
    assert len(api.batches) == 2
    more = run(tmp_path, letters=[*LETTERS, "new"])
    assert more.rationales[-1] is not None and len(api.batches) == 3
    last = api.lines(api.batches["batch-2"]["input_file_id"])
    assert [line["body"]["max_completion_tokens"] for line in last] == [CONFIG.max_tokens]
    assert sum(usage[0] for usage in paid(tmp_path).values()) == len(LETTERS) + 1


def test_malformed_answers_are_asked_again_once_and_then_left(api: FakeBatchApi, tmp_path: Path) -> None:
    def write(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        sorry = "I'm sorry, I cannot help with that."
        bad = {name_of("a"), name_of("b"), name_of("b", again=True)}
        chosen = (answer(line, sorry) if line["custom_id"] in bad else good_answer(line) for line in lines)
        return list(chosen), []

    api.plans = [Plan(write=write), Plan(write=write)]
    result = run(tmp_path)
    assert [step is None for step in steps(result)] == [False, True, False, False]
    (problem,) = result.problems
    assert problem.user_id == "user-b" and "quarantine" in problem.why and "refusal" in problem.why
    assert api.asked() == [names("abcd"), [name_of("a", True), name_of("b", True)]]
    first, bad, again = api.lines(api.batches["batch-1"]["input_file_id"])[0]["body"]["messages"]
    assert first["content"] == "prompt a" and bad["content"].startswith("I'm sorry")
    assert "refusal" in again["content"]
    assert paid(tmp_path) == {"some-llm": (6, 66, 42)}
    assert run(tmp_path) == result and len(api.batches) == 2


def test_an_answer_without_content_is_paid_and_asked_again(api: FakeBatchApi, tmp_path: Path) -> None:
    api.plans = [Plan(write=lambda lines: ([answer(line, "") for line in lines], []))]
    assert None not in steps(run(tmp_path, letters="ab"))
    assert len(api.batches) == 2 and paid(tmp_path) == {"some-llm": (4, 44, 28)}


@pytest.mark.parametrize("fault", [429, 500, "drop", "late"])
@pytest.mark.parametrize(
    "call", ["POST /files", "POST /batches", "GET /batches", "GET /batches/.+", "GET /files/.+"]
)
def test_one_fault_anywhere(api: FakeBatchApi, tmp_path: Path, call: str, fault: int | str) -> None:
    api.faults = [(call, fault)]
    result = run(tmp_path)
    assert None not in steps(result) and result.problems == []
    assert api.faults == [] and len(api.batches) == 1


@pytest.mark.parametrize("call", ["POST /batches", "GET /batches", "GET /batches/.+"])
def test_a_web_page_instead_of_an_answer(api: FakeBatchApi, tmp_path: Path, call: str) -> None:
    api.faults = [(call, "page")]
    try:
        run(tmp_path)
    except RelandError as error:
        assert "the response is not that of a Batch API" in str(error)
    assert None not in steps(run(tmp_path)) and len(api.batches) == 1


def test_a_short_outage_while_waiting_is_sat_out(api: FakeBatchApi, tmp_path: Path) -> None:
    llm = dataclasses.replace(LLM, attempts=1)
    api.faults = [("GET /batches/.+", 503), ("GET /batches/.+", 503)]
    assert None not in steps(run(tmp_path, llm))
    assert len(api.batches) == 1


def test_a_long_outage_stops_the_run_and_the_next_one_goes_on(api: FakeBatchApi, tmp_path: Path) -> None:
    llm = dataclasses.replace(LLM, attempts=1)
    api.faults = [("GET /batches/.+", 503)] * 3
    with pytest.raises(RelandError, match="looking at a batch: the service answered 503 .*to continue"):
        run(tmp_path, llm)
    assert None not in steps(run(tmp_path, llm))
    assert len(api.batches) == 1


def test_an_output_file_that_is_gone_is_asked_again(api: FakeBatchApi, tmp_path: Path) -> None:
    api.faults = [("GET /files/.+", 404)]
    assert None not in steps(run(tmp_path))
    assert api.asked() == [names("abcd")] * 2


@pytest.mark.parametrize("status", [401, 403, 400])
def test_the_key_and_the_endpoint_are_never_shown(
    api: FakeBatchApi, tmp_path: Path, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    api.faults = [("POST /files", status)]
    with pytest.raises(RelandError, match=f"uploading .* the service answered {status}") as error:
        run(tmp_path)
    run(tmp_path)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = str(error.value) + "".join(capfd.readouterr()) + stored.decode("utf-8", "replace")
    assert KEY not in shown and "127.0.0.1" not in shown
    assert error.value.__cause__ is None and error.value.__suppress_context__


def test_no_key_and_no_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(RelandError, match="OPENAI_API_KEY"):
        run(tmp_path)


def test_the_budget_stops_and_more_of_it_goes_on(api: FakeBatchApi, tmp_path: Path) -> None:
    # A request may cost 8 bytes of prompt, 32 of chat format and 50 of answer; it does cost 18.
    bound, cost = len("prompt a") + 32 + 50, 18
    with pytest.raises(BudgetReached) as reached:
        run(tmp_path, dataclasses.replace(LLM, budget_tokens=2 * cost + bound))
    assert api.asked() == [names("a"), names("b"), names("c")]
    assert (reached.value.left, reached.value.spent_tokens) == (1, 3 * cost)
    assert None not in steps(run(tmp_path))
    assert api.asked()[3:] == [names("d")]


def test_batches_under_way_are_not_asked_by_hand_too(api: FakeBatchApi, tmp_path: Path) -> None:
    run_until_killed(CONFIG, LLM, tmp_path, requests(), "create", after=True)
    with pytest.raises(RelandError, match="not fetched; set config.llm.upload=True"):
        BatchProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests())
    assert len(api.batches) == 1


def test_answers_to_other_settings_are_kept_too(api: FakeBatchApi, tmp_path: Path) -> None:
    run_until_killed(CONFIG, LLM, tmp_path, requests(), "progress", after=True)
    other = dataclasses.replace(CONFIG, temperature=0.5)
    UploadedBatchProvider(other, LLM, tmp_path).rationales(requests("a"))
    assert len(api.batches) == 2
    assert None not in steps(run(tmp_path))
    assert len(api.batches) == 2


@pytest.mark.parametrize("lost", ["state", "answer", "both"])
def test_a_batch_that_was_not_noted_down_is_adopted(api: FakeBatchApi, tmp_path: Path, lost: str) -> None:
    for _ in range(3):  # batches of others, so that the list has several pages
        api.create({"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "x"})
    run_until_killed(CONFIG, LLM, tmp_path, requests(), "create", after=lost == "state")
    if lost != "answer":
        (tmp_path / STATE_FILE).unlink()
    assert len(api.batches) == (4 if lost == "state" else 3)
    if lost != "state":
        (file,) = [name for name in api.files if "file-" in name]
        metadata = {"reland_requests": batch_state.hashlib.sha256(api.files[file]).hexdigest()}
        api.create(
            {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": file}
            | ({"metadata": metadata} if lost == "both" else {})
        )
    for _ in range(3):
        api.create({"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "x"})
    assert None not in steps(run(tmp_path))
    assert len(api.batches) == 7


def test_a_service_that_lists_no_batches(api: FakeBatchApi, tmp_path: Path) -> None:
    api.listing = False
    assert None not in steps(run(tmp_path / "undisturbed"))
    run_until_killed(CONFIG, LLM, tmp_path, requests(), "create", after=False)
    with pytest.raises(RelandError, match="A batch of 4 requests may have been created for the file file-"):
        run(tmp_path)
    state = json.loads((tmp_path / STATE_FILE).read_text())
    state["open"][0]["batch_id"] = api.create(
        {
            "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "input_file_id": state["open"][0]["file_id"],
        }
    )["id"]  # fmt: skip
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    assert None not in steps(run(tmp_path))
    assert len(api.batches) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2, "open": [], "closed": []}', '{"format": 1}'])
def test_a_damaged_state_file_is_an_error(api: FakeBatchApi, tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content)
    with pytest.raises(RelandError, match=f"{STATE_FILE} is not a readable list of batches"):
        run(tmp_path)
    assert api.calls == []


def test_two_at_a_time_in_one_folder_and_on_one_journal(api: FakeBatchApi, tmp_path: Path) -> None:
    llm = dataclasses.replace(LLM, journal=str(tmp_path / "shared.sqlite"), poll_seconds=0.05)
    folders = [tmp_path / "one", tmp_path / "one", tmp_path / "two"]
    results: list[ProviderResult] = []
    threads = [threading.Thread(target=lambda f=f: results.append(run(f, llm))) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 3 and results[0] == results[1] == results[2] and None not in steps(results[0])
    assert sorted(itertools.chain(*api.asked())) == sorted(names("abcd"))


CALLS = ("plan", "upload", "find", "create", "progress", "content", "record", "close", "_save")
MOMENTS = [(call, after, time) for call in CALLS for after in (False, True) for time in (1, 2)]


@pytest.mark.parametrize(
    ("call", "after", "time"),
    # The second time is that of the batch with what the first one left unanswered.
    [pytest.param(*moment, marks=[pytest.mark.slow] if moment[2] == 2 else []) for moment in MOMENTS],
)
def test_killed_at_any_moment(api: FakeBatchApi, tmp_path: Path, call: str, after: bool, time: int) -> None:
    """Killed before or after any call: no prompt is in two batches that were paid, and nothing is lost."""
    api.plans = [answering("ab")]
    sent = tmp_path / "batch_sent"
    sent.mkdir()
    aside = aside_name(sent / f"{'a' * 16}.jsonl").name.removesuffix(str(os.getpid()))
    (sent / f"{aside}999999999").write_text("of a process that was killed while it wrote")
    (sent / f"{'b' * 16}.jsonl").write_text("of one that was killed before it noted it down")
    (sent / "notes.txt").write_text("somebody else's")
    assert run_until_killed(CONFIG, LLM, tmp_path, requests(), call, after=after, time=time)
    result = run(tmp_path)
    assert result == undisturbed() and result.problems == []
    assert api.asked() == [names("abcd"), names("cd")]
    assert paid(tmp_path) == {"some-llm": (4, 44, 28)}
    assert [path.name for path in sent.iterdir()] == ["notes.txt"]


def undisturbed() -> ProviderResult:
    """What comes of the four prompts when nothing goes wrong."""
    rationales: list[Rationale | None] = []
    for letter in LETTERS:
        text = f"Step 1: Likes prompt {letter}.\nStep 2: More prompt {letter}."
        origin = (prompt_hash(f"prompt {letter}"), "some-llm-0613", 11, 7, "2023-11-14T22:13:20+00:00")
        rationales.append(Rationale(f"Likes prompt {letter}.", f"More prompt {letter}.", text, *origin))
    return ProviderResult(rationales, [])


def test_the_processes_are_really_killed(api: FakeBatchApi, tmp_path: Path) -> None:
    assert not run_until_killed(CONFIG, LLM, tmp_path, requests(), "create", after=True, time=99)
    assert multiprocessing.active_children() == []


def test_more_room_for_an_answer_that_was_cut_off(api: FakeBatchApi, tmp_path: Path) -> None:
    def cut(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        output = [good_answer(line) for line in lines]
        for line in output:
            line["response"]["body"]["choices"][0]["finish_reason"] = "length"
        return output, []

    api.plans = [Plan(write=cut)]
    result = run(tmp_path, letters="ab")
    assert all(result.rationales) and api.asked() == [names("ab"), [name_of("a", True), name_of("b", True)]]
    again = api.lines(list(api.batches.values())[1]["input_file_id"])
    assert {line["body"]["max_tokens"] for line in again} == {MORE_ROOM * CONFIG.max_tokens}
    assert paid(tmp_path) == {"some-llm": (4, 44, 28)}


def test_answers_that_the_service_lost_count_as_paid(api: FakeBatchApi, tmp_path: Path) -> None:
    """The output file is gone, or a line of it cannot be read: they may have been written, and billed."""
    api.plans = [Plan(), Plan()]
    look = api.look

    def losing(name: str) -> dict[str, Any]:
        said = look(name)
        if name == "batch-0" and said.get("output_file_id"):
            api.files.pop(said["output_file_id"], None)
        return said

    api.look = losing  # type: ignore[method-assign]
    result = run(tmp_path, letters="ab")
    assert all(result.rationales) and api.asked() == [names("ab"), names("ab")]
    bound = len("prompt a") + UNKNOWN_OVERHEAD
    assert paid(tmp_path) == {"some-llm": (4, 2 * 11 + 2 * bound, 2 * 7 + 2 * CONFIG.max_tokens)}
