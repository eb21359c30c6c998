"""What counts as an answer, whatever a service sends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.reading.answers import (
    Answer,
    answer_of,
    flaw_of,
    is_model,
    rationale_of,
    readable_steps,
    tokens_of,
)
from reland_jax.pool.reading.worth import is_latin

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "usage",
                    "prompt_tokens",
                    "created",
                    "text",
                    "model",
                    "output",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def body(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}}]} | more


def test_a_whole_answer() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    answer = answer_of(body("Step 2: b", usage=usage, model="m-1", created=1_700_000_000), "m")
    assert answer == Answer("Step 2: b", "m-1", 11, 7, "2023-11-14T22:13:20+00:00")
    assert answer_of(body([{"text": "a"}, {"image": 1}, {"text": "b"}]), "m") == Answer("ab", "m", 0, 0, "")


@pytest.mark.parametrize("broken", [None, [], "x", {}, {"choices": []}, {"choices": [None]}, {"choices": {}}])
def test_no_choices(broken: Any) -> None:
    assert answer_of(broken, "m") == "the answer has no choices"


@pytest.mark.parametrize("content", [None, "", "  \n", 7, [], [{"text": 3}], {}])
def test_no_content(content: Any) -> None:
    assert answer_of(body(content), "m") == "the answer has no content"


@given(ANY_JSON)
def test_any_json_is_an_answer_or_a_reason(value: Any) -> None:
    answer = answer_of(value, "m")
    assert isinstance(answer, str) or (answer.content.strip() and answer.prompt_tokens >= 0)
    assert all(count >= 0 for count in tokens_of(value))


@given(st.text())
def test_a_rationale_always_has_a_readable_step_2(content: str) -> None:
    for prompt in ("steps", "direct"):
        rationale, remarks = rationale_of(Answer(content, "m", 1, 2, ""), "d", prompt)
        assert rationale.step2 and is_latin(rationale.step2) if rationale else remarks


def test_what_is_written_in_another_script_is_not_used() -> None:
    chinese = "Step 1: 用户喜欢香水。\nStep 2: 推荐类别：香水；护肤。推荐商品：玫瑰水。"
    rationale, why = rationale_of(Answer(chinese, "m", 0, 0, ""), "d")
    assert rationale is None and why[-1] == "step 2 is not in English: most of it is not in Latin script"
    for name in ("Step 2: Духи и крем для рук", "Step 2: κρέμα και σαπούνι", "Step 2: عطر وكريم"):
        assert not readable_steps(name).step2 and readable_steps(name, any_script=True).step2
    labelled = "Step 2: Recommended categories: 护肤. Recommended items: 玫瑰水; Rose"
    assert not readable_steps(labelled).step2  # the labels do not count
    assert rationale_of(Answer(chinese, "m", 0, 0, ""), "d", any_script=True)[0] is not None


@pytest.mark.parametrize(
    "step2",
    [
        "Recommended items: Eau de Cologne; Crème brûlée",
        "Empfohlen: Müsli; Äpfel",
        "SK-II 化粧水 lotion for face",
        "1984; 2001",
    ],
)
def test_latin_text_with_accents_some_foreign_names_or_numbers_is_used(step2: str) -> None:
    assert readable_steps(f"Step 1: Likes it.\nStep 2: {step2}").step2 == step2


def test_a_missing_step_1_is_a_remark_and_a_missing_step_2_is_not_usable() -> None:
    rationale, remarks = rationale_of(Answer("Step 2: soap; cream", "m", 3, 4, "now"), "digest")
    assert rationale is not None and (rationale.step1, rationale.step2) == ("", "soap; cream")
    assert (rationale.model, rationale.prompt_tokens, rationale.response_tokens) == ("m", 3, 4)
    assert (rationale.prompt_hash, rationale.created) == ("digest", "now")
    assert remarks == ["used, but step 1 is missing"]
    rationale, why = rationale_of(Answer("Step 1: Likes soap.", "m", 3, 4, "now"), "digest")
    assert rationale is None and "step 2 is missing" in why[-1]


def choice(reason: Any, content: Any = "Step 2: b", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content} | message, "finish_reason": reason}]}


@pytest.mark.parametrize("reason", [None, "", "stop", "STOP", "end_turn", "eos_token", "FinishReason.STOP"])
def test_whole_answers(reason: Any) -> None:
    assert flaw_of(choice(reason)) is None


@pytest.mark.parametrize(
    ("reason", "why", "cut"),
    [
        ("length", "the token limit cut the answer off (finish_reason 'length')", True),
        ("MAX_TOKENS", "the token limit cut the answer off (finish_reason 'max_tokens')", True),
        ("model_length", "the token limit cut", True),
        ("content_filter", "the service filtered the answer (finish_reason 'content_filter')", False),
        ("SAFETY", "the service filtered", False),
        ("refusal", "the service filtered", False),
        ("insufficient_system_resource", "the service did not finish the answer", False),
        ("error", "the service did not finish the answer (finish_reason 'error')", False),
    ],
)
def test_what_the_service_says_against_an_answer(reason: str, why: str, cut: bool) -> None:
    flaw = flaw_of(choice(reason))
    assert flaw is not None and flaw.why.startswith(why) and flaw.cut is cut


def test_refusals_and_thoughts_that_are_handed_over_apart() -> None:
    assert flaw_of(choice("stop", None, refusal="I may not.")) == ("the model refused: 'I may not.'", False)
    parts = [{"type": "refusal", "refusal": "No."}]
    assert flaw_of(choice("stop", parts)) == ("the model refused: 'No.'", False)
    thoughts = choice("stop", "", reasoning_content="Step 1: hm. Step 2: draft.")
    assert answer_of(thoughts, "m") == "the answer has no content, only thoughts"
    cut = flaw_of(choice("length", None, reasoning="Step 2: draft"))
    assert cut is not None and cut.cut and "cut the answer off within its thoughts" in cut.why
    parts = [{"type": "thinking", "text": "Step 2: draft"}, {"type": "text", "text": "Step 2: oil"}]
    assert answer_of(choice("stop", parts), "m") == Answer("Step 2: oil", "m", 0, 0, "")


def test_the_forms_of_other_services() -> None:
    gemini = {
        "candidates": [
            {
                "content": {"parts": [{"text": "draft", "thought": True}, {"text": "Step 2: oil"}]},
                "finishReason": "MAX_TOKENS",
            }
        ],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2},
        "modelVersion": "g",
    }
    assert answer_of(gemini, "m") == Answer("Step 2: oil", "g", 5, 5, "")
    assert flaw_of(gemini) is not None
    anthropic = {
        "content": [{"type": "thinking", "thinking": "draft"}, {"type": "text", "text": "Step 2: oil"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 3},
    }
    assert answer_of(anthropic, "m") == Answer("Step 2: oil", "m", 5, 3, "") and flaw_of(anthropic) is None
    ollama = {"message": {"content": "Step 2: oil"}, "done_reason": "length"}
    assert answer_of(ollama, "m") == Answer("Step 2: oil", "m", 0, 0, "") and flaw_of(ollama) is not None


TOLD = "Step 2: oil"
MORE_FORMS: dict[str, dict[str, Any]] = {
    "responses": {
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Step 2: draft"}]},
            {"type": "message", "content": [{"type": "output_text", "text": TOLD}]},
        ],
        "status": "completed",
        "usage": {"input_tokens": 5, "output_tokens": 3},
    },
    "Bedrock": {
        "output": {
            "message": {
                "content": [{"reasoningContent": {"reasoningText": {"text": "draft"}}}, {"text": TOLD}]
            }
        },
        "stopReason": "end_turn",
        "usage": {"inputTokens": 5, "outputTokens": 3},
    },
    "Cohere": {
        "message": {"content": [{"type": "thinking", "thinking": "draft"}, {"type": "text", "text": TOLD}]},
        "finish_reason": "COMPLETE",
        "usage": {"tokens": {"input_tokens": 5, "output_tokens": 3}},
    },
    "Ollama, text": {"response": TOLD, "thinking": "Step 2: draft", "done_reason": "stop"},
    "TGI": {"generated_text": TOLD},
    "Titan": {"results": [{"outputText": TOLD, "completionReason": "FINISH"}]},
    "completions": {"choices": [{"text": TOLD, "finish_reason": "stop"}]},
    "the last chunk of a stream": {"choices": [{"delta": {"content": TOLD}, "finish_reason": "stop"}]},
    "parts that are strings": {"choices": [{"message": {"content": [TOLD]}}]},
    "thoughts in parts": {
        "choices": [{"message": {"content": [{"type": "thinking", "thinking": [{"text": "draft"}]}, TOLD]}}]
    },
}


@pytest.mark.parametrize("form", MORE_FORMS)
def test_more_forms(form: str) -> None:
    body = MORE_FORMS[form]
    tokens = (5, 3) if "usage" in body else (0, 0)
    assert answer_of(body, "m") == Answer(TOLD, "m", *tokens, "") and flaw_of(body) is None


def test_more_forms_of_what_is_no_answer() -> None:
    cut = {"output": [{"type": "reasoning"}], "incomplete_details": {"reason": "max_output_tokens"}}
    assert flaw_of(cut) is not None and flaw_of(cut).cut  # type: ignore[union-attr]
    assert answer_of(cut, "m") == "the answer has no content, only thoughts"
    assert flaw_of({"output": [], "status": "failed"}) is not None
    assert answer_of({"output": []}, "m") == "the answer has no content"
    for body in ({"error": {"message": "overloaded"}}, {"choices": None, "error": {"message": "overloaded"}}):
        assert answer_of(body, "m") == 'the service reports an error: {"message": "overloaded"}'


@given(ANY_JSON)
def test_a_flaw_has_words(value: Any) -> None:
    flaw = flaw_of(value)
    assert flaw is None or flaw.why


@pytest.mark.parametrize(
    ("answered", "asked", "same"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-3.5-turbo-0125", "openai/gpt-3.5-turbo", True),
        ("llama3:latest", "llama3", True),
        ("mistral-large-2411", "mistral-large-latest", True),
        ("models/gemini-1.5-pro-002", "gemini-1.5-pro", True),
        ("Qwen3-8B", "Qwen/Qwen3-8B", True),
        ("gpt-4o-mini", "gpt-4o", False),
        ("gpt-4-turbo", "gpt-4", False),
        ("gpt-4", "gpt-4o", False),
        ("other", "m(", False),
    ],
)
def test_the_model_that_was_asked(answered: str, asked: str, same: bool) -> None:
    assert is_model(answered, asked) is same
