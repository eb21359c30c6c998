"""Answers to direct prompting (the paper's ablation w/o r.p.): one part, no steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.reading.parser import parse_direct


@pytest.mark.parametrize(
    "answer",
    [
        "Recommended items: Rose Soap; Plain Balm; Brush",
        "**Recommended items:** Rose Soap; Plain Balm; Brush",
        "Sure! Here they are.\n\nRecommended items:\n1. Rose Soap\n2. Plain Balm\n3. Brush\n\nLet me know!",
        "<think>maybe a wig</think>\n## Recommended items\n- Rose Soap\n- Plain Balm\n- Brush",
        "Recommended items:\n1. Rose Soap; Plain Balm\n2. Brush",
    ],
)
def test_what_is_recommended(answer: str) -> None:
    step1, step2, problems = parse_direct(answer)
    assert (step1, problems) == ("", ())
    assert step2.rstrip(".") == "Recommended items: Rose Soap; Plain Balm; Brush"


def test_an_answer_in_steps_is_read_by_its_step_2() -> None:
    found = parse_direct("Step 1: likes roses.\nStep 2: Rose Soap; Brush")
    assert found == ("", "Rose Soap; Brush", ("it answers in steps, which were not requested",))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "the answer is empty"),
        ("Rose Soap; Plain Balm", '"Recommended items:" is missing'),
        ("I'm sorry, I cannot help with that.", "the answer is a refusal"),
        ("Recommended items: N/A", "nothing is recommended"),
        ("Recommended items:", "nothing is recommended"),
        ("Recommended items: I cannot recommend anything.", "nothing is recommended"),
        ("<think>Recommended items: a; b", "the answer stops inside its thoughts"),
        ('["Rose Soap"]', '"Recommended items:" is missing'),
    ],
)
def test_unreadable(answer: str, why: str) -> None:
    found = parse_direct(answer)
    assert found[:2] == ("", "") and any(why in problem for problem in found.problems)


PARTS = st.sampled_from(
    ["Recommended items:", "\n", "Rose; Soap", "**", "Step 2:", "N/A", "I cannot", "{", "1.", "<think>", "# "]
)


@given(st.one_of(st.text(st.characters(), max_size=200), st.lists(PARTS, max_size=12).map("".join)))
def test_any_answer(answer: str) -> None:
    found = parse_direct(answer)
    assert found.step1 == ""
    found.step2.encode("utf-8")
    assert "\n" not in found.step2
    assert any(c.isalnum() for c in found.step2) if found.step2 else found.problems
