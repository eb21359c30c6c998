"""Answers in the fields of our own schema take the straight path; any other shape is read as before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reland_jax.pool.reading.answers import readable_steps
from reland_jax.pool.reading.parser import parse_given
from reland_jax.pool.reading.structured import schema_steps

LISTS = {"recommended_categories": ["Masks", "Oils"], "recommended_items": ["Argan Mask ", "", "Jojoba Oil"]}
CARE = "Recommended categories: Masks; Oils. Recommended items: Argan Mask; Jojoba Oil."


def steps(**changed: Any) -> str:
    return json.dumps({"step1": "Likes oils.", "step2": LISTS} | changed)


def test_both_steps() -> None:
    assert readable_steps(steps()) == ("Likes oils.", CARE, ())


def test_recommendations_alone() -> None:
    answer = json.dumps({"recommended_items": ["Argan Mask", "Jojoba Oil"]})
    assert readable_steps(answer, "direct") == ("", "Recommended items: Argan Mask; Jojoba Oil.", ())
    assert schema_steps(answer, "steps") is None and schema_steps(steps(), "direct") is None


def test_names_that_look_like_marks_are_names() -> None:
    """In running text "Step 2:", "User:" and "Final" would divide the answer."""
    names = ["Step 2: The Reckoning", "User: Unknown", "Final", "### Response", "<user>", "[INST]"]
    lists = LISTS | {"recommended_items": names}
    assert readable_steps(steps(step2=lists)).step2.endswith("Recommended items: " + "; ".join(names) + ".")


def test_tags_of_our_prompt_are_no_turn() -> None:
    lists = {name: ["<History>", *texts] for name, texts in LISTS.items()}
    assert readable_steps(steps(step1="</history>Likes oils.", step2=lists)) == ("Likes oils.", CARE, ())


def test_thoughts_within_a_field_are_left_out() -> None:
    assert readable_steps(steps(step1="<think>Step 1, hm.</think>Likes oils.")).step1 == "Likes oils."
    assert readable_steps(steps(step1="Likes\u202e\n oils.")).step1 == "Likes oils."


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"step2": LISTS | {"recommended_items": []}}, ""),
        ({"step2": {name: [] for name in LISTS}}, "step 2 is missing"),
        ({"step2": {name: ["1. ", "2. ", "3. "] for name in LISTS}}, "words of a template"),
        ({"step2": {name: ["[item 1]", "[item 2]"] for name in LISTS}}, "words of a template"),
        ({"step2": {name: ["Oil"] * 9 for name in LISTS}}, "repeats itself"),
        ({"step2": {name: ["香水", "面霜"] for name in LISTS}}, "not in Latin script"),
        ({"step1": "", "step2": LISTS}, "step 1 is missing"),
        ({"step1": "I cannot help with that."}, "step 1 is a refusal"),
    ],
)
def test_fields_without_content(changed: dict[str, Any], why: str) -> None:
    parsed = readable_steps(steps(**changed))
    assert not why or any(part in problem for problem in parsed.problems for part in why.split("|"))
    assert bool(parsed.step2) == (why in ("", "step 1 is missing", "step 1 is a refusal"))


@pytest.mark.parametrize(
    "answer", ["", "[]", "{", "null", steps(step3="x"), steps(step2="Oils"), steps(step2={}), steps(step1=3)]
)
def test_other_shapes_are_not_ours(answer: str) -> None:
    assert schema_steps(answer, "steps") is None


def test_numbers_are_names_beside_others() -> None:
    """Films and albums are called by numbers, and lists of names are numbered."""
    lists = LISTS | {"recommended_items": ["21", "300", "1. Argan Mask"]}
    assert readable_steps(steps(step2=lists)).step2.endswith("Recommended items: 21; 300; 1. Argan Mask.")
    numbered = "1. Likes oils. 2. Recommended items: Argan Mask; Jojoba Oil"
    assert parse_given("Likes oils.", numbered).step2 == numbered
