"""What stored values say: lists, marks of missing values, HTML, and texts that only look like them."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.plain import MARKS, find_column, plain_column, text_columns, text_of
from reland_jax.strings import STRING, as_strings

LETTERS = st.text(st.characters(categories=("L",)), min_size=1, max_size=8)
PHRASES = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="&<"), max_size=6)
WORDS = LETTERS.filter(lambda text: text not in MARKS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["Beauty", "Skin Care", "Men's Hair"], "Beauty, Skin Care, Men's Hair"),
        (("a", None, float("nan"), ""), "a"),
        (np.array(["a", "b"]), "a, b"),
        (["Bath, Body", "Hair"], "Bath, Body; Hair"),
        ([["Beauty", "Hair"], ["Gifts"]], "Beauty > Hair; Gifts"),
        ([{"id": 16, "name": "Animation"}, {"id": 18, "name": "Drama"}], "Animation, Drama"),
        ({"Brand": "X", "Colour": None, "Size": 3.0}, "Brand: X, Size: 3"),
        (None, ""), (float("nan"), ""), (np.float64("nan"), ""), (1995.0, "1995"), (b"Rose", "Rose"),
        ("['Beauty', 'Skin Care', \"Men's Hair\"]", "Beauty, Skin Care, Men's Hair"),
        ('["A", "B &amp; C"]', "A, B & C"),
        ("('a', 'b')", "a, b"), ("{'a'}", "a"), ("frozenset({'a'})", "a"),
        ("['a' 'b'\n 'c d']", "a, b, c d"),
        ("array(['a', 'b'], dtype=object)", "a, b"),
        ("['a', '', 'b']", "a, b"), ("['a' '' \"it's\"]", "a, it's"),
        ("[b'a' b'b']", "a, b"), ("[b'a', u'b']", "a, b"),
        ("['a', nan, None]", "a"), ("[null, \"a\"]", "a"),
        ("[{'name': 'Drama'}]", "Drama"), ("{'Brand': 'X'}", "Brand: X"),
        ("b'Rose'", "Rose"),
        ("nan", ""), ("<NA>", ""), ("None", ""), (r"\N", ""),
        ("R&amp;B &lt;Live&gt;", "R&B <Live>"), ("A&amp;amp;B", "A&B"), ("&#39;s &eacute;", "'s é"),
        ("&lt;b&gt;Rose&lt;/b&gt;", " Rose "), ("Rose<br/>Water", "Rose Water"),
    ],
)  # fmt: skip
def test_what_a_value_says(value: Any, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    "name",
    [
        "[REC]", "(500) Days of Summer", "(500)", "()", "[8]", "{}", "I <3 Lip Balm", "<Live>", "A > B",
        "AT&T; B", "&notit;", "Nan", "None of Us", "'Quoted'", "b'", "['unclosed", "[not, quoted]",
        "Sale (5 oz)", "  two  ", "x = ['a']", "(1+2j)", "R&B", "array(", "set()",
    ],
)  # fmt: skip
def test_names_that_only_look_like_it_stay(name: str) -> None:
    assert text_of(name) == name
    assert plain_column([name, "Rose", "Fig", "Oat"]).texts[0] == name


def test_a_column_of_numbers_written_out_is_one_of_lists() -> None:
    found = plain_column(["[1, 2]", "", "[]", "[3]"])
    assert found.texts.tolist() == ["1, 2", "", "", "3"]
    assert (found.written_out, found.marks) == (3, 0)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["[Skin, Hair Care]", "[]", "[Nails]"], ["Skin, Hair Care", "", "Nails"]),
        (['{Skin,"Hair, \\"wet\\" or dry",NULL}', "{}"], ['Skin; Hair, "wet" or dry', ""]),
        (["['Skin' 'Hair' ... 'Nails']"], ["Skin, Hair, Nails"]),
        (["{'WiFi': u'free', 'Ambience': \"{'noisy': False}\"}"], ["WiFi: free, Ambience: noisy: False"]),
        (["[Untitled]", "Blue", "Hello", "{x}", "Help"], ["[Untitled]", "Blue", "Hello", "{x}", "Help"]),
    ],
)
def test_columns_of_lists_as_databases_write_them(values: list[str], texts: list[str]) -> None:
    assert plain_column(values).texts.tolist() == texts


def test_marks_are_counted() -> None:
    found = plain_column(["nan", "Rose", "", "nan", "None"])
    assert found.texts.tolist() == ["", "Rose", "", "", ""]
    assert (found.written_out, found.marks) == (0, 3)
    assert found.texts.dtype == STRING


@given(st.lists(WORDS, min_size=1, max_size=4, unique=True))
def test_however_a_list_was_written_out_it_says_the_same(words: list[str]) -> None:
    said = text_of(words)
    assert said == ", ".join(words)
    written = [str(words), json.dumps(words), str(tuple(words)), str(np.array(words)), repr(np.array(words))]
    for text in written:
        assert text_of(text) == said, text


@given(st.lists(PHRASES, min_size=1, max_size=4))
def test_lists_with_any_signs_in_them(phrases: list[str]) -> None:
    """Quotes, backslashes, brackets and empty parts."""
    said = text_of(phrases)
    if any(any(map(str.isalnum, phrase)) for phrase in phrases):
        written = [str(phrases), json.dumps(phrases), repr(np.array(phrases))]
        assert [text_of(text) for text in written] == [said] * 3


@given(st.text(st.characters(), max_size=40))
def test_any_text_is_read_and_reading_twice_changes_nothing_more(text: str) -> None:
    plain = text_of(text)
    plain.encode("utf-8")
    assert text_of(plain) == plain or "&" in text or text.strip()[:1] in "[({"


@pytest.mark.parametrize(
    "text",
    [
        "&" + "amp;" * 100_000, "<b " * 100_000, "&#38;" + "#38;" * 20_000, "[" * 5000,
        "[" * 100_000 + "]" * 100_000,
        "[" + "'\\" * 9000 + "]", "[" * 500 + "'a'" + "]" * 500, '[{"a":' * 300 + "1" + "}]" * 300,
        "['" * 9000 + "]", "(" + "-" * 15_000 + "1)", "{" + "+1j" * 6000 + "}", "['a' " + "'a' " * 4000 + "]",
    ],
    ids=range(12),
)  # fmt: skip
def test_hostile_texts_cost_little(text: str) -> None:
    start = time.process_time()
    text_of(text)
    assert time.process_time() - start < 2


def test_columns_are_found_by_their_names_whatever_the_case() -> None:
    assert find_column(["Title", "brand"], "title") == "Title"
    assert find_column(["Title", "title"], "title") == "title"
    assert find_column(["Title", "TITLE"], "title") is None
    assert find_column(["Title"], "name") is None
    features = {"Title": as_strings(["", "nan", "Rose"]), "brand": as_strings(["", "['X']", "Y"])}
    found = text_columns(features, ("title", "TITLE", "categories", "brand"))
    assert {name: texts.tolist() for name, texts in found.items()} == {
        "title": ["", "", "Rose"], "brand": ["", "X", "Y"],
    }  # fmt: skip
