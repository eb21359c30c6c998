"""Text columns keep every character and cost what they hold."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax import strings
from reland_jax.strings import STRING, as_strings, distinct, encodable, packed, unpacked, visible


@given(st.lists(st.text(st.characters(exclude_categories=()))))
def test_what_is_packed_comes_back(texts: list[str]) -> None:
    # A lone surrogate is not a text that NumPy can hold; readers refuse it before.
    texts = list(map(encodable, texts))
    column = as_strings(texts)
    content, starts = packed(column)
    assert content.nbytes == sum(len(text.encode()) for text in texts)
    assert unpacked(content, starts).tolist() == texts
    assert column.dtype == STRING


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert encodable("a\ud83d b") == "a? b"
    for text in ("plain", "Käse", "\U0001f600"):
        assert encodable(text) == text


def test_nuls_at_the_end_make_another_text() -> None:
    column = as_strings(["bob", "bob\0", "bob\0\0"])
    assert len(np.unique(column)) == 3
    assert unpacked(*packed(column)).tolist() == ["bob", "bob\0", "bob\0\0"]


def test_a_column_is_converted_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_AT_ONCE", 3)
    texts = ["", "é", "x" * 50, "a\0", "", "b", "雪" * 9]
    for given_as in (texts, np.array(texts, dtype=object), iter(texts), as_strings(texts)):
        column = as_strings(given_as)
        assert column.tolist() == texts
        assert unpacked(*packed(column)).tolist() == texts


def test_the_distinct_texts_and_their_numbers() -> None:
    names, code = distinct(as_strings(["b", "a\0", "a", "b"]))
    assert names.tolist() == ["a", "a\0", "b"]
    assert code.tolist() == [2, 1, 0, 2]


def test_what_is_missing_is_no_text() -> None:
    with pytest.raises(TypeError, match="None is a NoneType"):
        as_strings(np.array(["a", None], dtype=object))


TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_shown_hides_and_turns_nothing(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text) and visible(shown) == shown
    for before, after in zip(text, shown, strict=True):
        category = unicodedata.category(before)
        if category in ("Cs", "Zl", "Zp") or (category == "Cc" and before not in "\t\n\r"):
            assert after == "\ufffd"
        if unicodedata.bidirectional(before) in TURNS:
            assert after == "\ufffd"
        if category[0] in "LMNPS" and before < "\ufff0":
            assert after == before


def test_joiners_are_shown_and_terminals_not_steered() -> None:
    assert visible("می\u200cخواهم 👩\u200d🔬\n") == "می\u200cخواهم 👩\u200d🔬\n"
    assert visible("\x1b[2J\u202eevil\0") == "\ufffd[2J\ufffdevil\ufffd"


def test_two_sorted_runs_are_sorted() -> None:
    """On these, NumPy's quicksort of texts ends the process."""
    texts = [f"U{n:06d}" for first in (0, 5) for n in range(first, 1990 + first)]
    names, code = distinct(as_strings(texts))
    assert names.tolist() == sorted(set(texts)) and names[code].tolist() == texts


def test_numbers_are_no_texts() -> None:
    with pytest.raises(TypeError, match="1.5 is a float, where a text is needed"):
        as_strings(np.array([1.5]))


@pytest.mark.parametrize(
    "starts", [[], [1, 3], [0, 2], [0, 3, 2, 3]], ids=["none", "late", "short", "backwards"]
)
def test_damaged_beginnings_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        unpacked(np.frombuffer(b"abc", np.uint8), np.array(starts, np.int64))
