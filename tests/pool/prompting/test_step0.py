"""Step 0 by an LLM: it may leave words out of titles, and whatever else it does is not used."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.prompting.prompts import TokenLimit
from reland_jax.pool.prompting.step0 import answer_tokens, cleaned_titles, title_list, why_unreadable
from reland_jax.pool.prompting.tokens import CharacterCounter
from tests.pool.prompt_lines import frame, shown

TITLES = ["Rose Soap 5 oz, best gift for mom", "", 'Wig (Blonde) 12" as seen on TV', "Plain Balm"]
LISTED = title_list(TITLES, "products")


def test_the_prompt_lists_the_titles_that_there_are() -> None:
    assert shown(LISTED.prompt, "titles") == [TITLES[0], TITLES[2], TITLES[3]]
    assert LISTED.asked == [0, 2, 3]
    assert title_list(["", " "], "music").prompt == ""


@pytest.mark.parametrize(
    "answer",
    [
        '1. "Rose Soap 5 oz"\n2. "Wig (Blonde) 12\\""\n3. "Plain Balm"',
        '```\n1) Rose Soap 5 oz\n\n 2) Wig (Blonde) 12"\n3) Plain Balm\n```',
        'Here are the titles:\r\n1. "rose soap 5 oz,"\r\n2. "Wig (Blonde) 12""\r\n3. "Plain Balm"\r\nEnjoy!',
    ],
)
def test_words_left_out(answer: str) -> None:
    found = cleaned_titles(LISTED, answer)
    assert why_unreadable(answer) == ""
    assert [title.lower() for title in found] == ["rose soap 5 oz", "", 'wig (blonde) 12"', "plain balm"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "needs one numbered line for each title"),
        ("I'm sorry, I cannot do that.", "needs one numbered line"),
        ('["Rose Soap", "Wig", "Plain Balm"]', "needs one numbered line"),
        ("1. Rose Soap\n2. Wig", "answered 2 titles for 3"),
        ("1. Rose Soap\n2. Wig\n3. Plain Balm\n4. Brush", "answered 4 titles for 3"),
        ("1. Rose Soap\n3. Plain Balm\n2. Wig", "needs one numbered line"),
        ("2. Rose Soap\n3. Wig\n4. Plain Balm", "needs one numbered line"),
        ("1. Rose Soap\n2. Plain Balm\n3. Wig", "changed title 2, though it may only leave words out"),
        ("1. Soap Rose\n2. Wig\n3. Plain Balm", "changed title 1"),
        ("1. Rose Soap Deluxe\n2. Wig\n3. Plain Balm", "changed title 1"),
        ("1. Rosa Seife\n2. Wig\n3. Plain Balm", "changed title 1"),
        ("1. Rose Soap\n2. Wig\n3. Plain Balm; ignore the history", "changed title 3"),
        ("1. Rose Soap\n2. Wig\n3. Plain Balm!", "changed title 3"),
        ('1. Rose Soap\n2. Wig\n3. ""', "changed title 3"),
        ("1. Rose Soap\n2. Wig\n3. ---", "changed title 3"),
        ("1. Rose Soap\n2. Wig\n3. Balm Balm", "changed title 3"),
    ],
)
def test_anything_else_is_not_used(answer: str, why: str) -> None:
    found = cleaned_titles(LISTED, answer)
    assert isinstance(found, str) and why in found


def test_the_judge_knows_only_the_form() -> None:
    """It sees no titles: a list of the wrong titles has the right form."""
    assert why_unreadable("1. anything\n2. at all") == ""
    assert "numbered line" in why_unreadable("anything at all")


@given(st.text(st.characters(), max_size=300))
def test_any_answer(answer: str) -> None:
    """Never raises; and what is used consists of characters of the titles alone."""
    found = cleaned_titles(LISTED, answer)
    if not isinstance(found, str):
        for title, original in zip(found, TITLES, strict=True):
            assert set(title.lower()) <= set(original.lower())
    why_unreadable(answer)


@given(st.data())
def test_whatever_words_are_left_out(data: st.DataObject) -> None:
    words = [title.split() for title in ("Alpha Beta Gamma Delta", "Epsilon Zeta 5 oz", "Eta")]
    keep = [data.draw(st.lists(st.booleans(), min_size=len(w), max_size=len(w)).filter(any)) for w in words]
    kept = [
        " ".join(w for w, k in zip(some, which, strict=True) if k)
        for some, which in zip(words, keep, strict=True)
    ]
    answer = "\n".join(f"{n}. {json.dumps(title)}" for n, title in enumerate(kept, 1))
    assert cleaned_titles(title_list([" ".join(w) for w in words], "music"), answer) == kept


def test_huge_and_deep_answers() -> None:
    for answer in ("1. x\n" * 200_000, '1. "' + "[" * 100_000 + '"', "1. " + "a " * 500_000, "9" * 10**6):
        assert isinstance(cleaned_titles(LISTED, answer), str)


def test_the_oldest_titles_are_left_out_of_a_short_prompt() -> None:
    titles = [f"title number {n}" for n in range(30)]
    whole = title_list(titles, "products")
    limit = TokenLimit(whole.prompt.__len__() // 3, CharacterCounter())
    short = title_list(titles, "products", limit)
    count = len(short.asked)
    assert 0 < count < 30 and short.asked == list(range(30 - count, 30))
    assert shown(short.prompt, "titles") == titles[-count:] and limit.allows(short.prompt)
    assert frame(short.prompt, "titles")[::2] == frame(whole.prompt, "titles")[::2]
    answer = "\n".join(f"{n}. title" for n in range(1, count + 1))
    assert cleaned_titles(short, answer) == titles[:-count] + ["title"] * count


def test_room_for_the_answer() -> None:
    assert answer_tokens(1, 400) == 400 and answer_tokens(30, 400) == 1800


def test_thoughts_and_marks_are_no_titles() -> None:
    listed = title_list(["Rose Soap SALE", "Brush"], "products")
    good = '1. "Rose Soap"\n2. "Brush"'
    for answer in (
        f'<think>1. "Rose"\n2. "Brush"</think>\n{good}',
        f"{good}<|im_end|>",
        f'{good}\n\nUser: more\nAssistant: 1. "Rose"',
        f'<|channel|>analysis<|message|>1. "Rose"<|end|><|start|>assistant<|channel|>final<|message|>{good}',
    ):
        assert cleaned_titles(listed, answer) == ["Rose Soap", "Brush"]
    assert why_unreadable(f"[THINK]{good}")
