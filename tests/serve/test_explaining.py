"""Evidence for recommended items."""

from __future__ import annotations

import numpy as np

from reland_jax.report.content import ItemLabel
from reland_jax.serve.explaining import (
    Contribution,
    Explanation,
    ItemEvidence,
    MatchedSeed,
    nearest_in,
    shared_words,
)  # fmt: skip
from reland_jax.types import Rationale

MINT = Rationale("Likes fresh MINT and tea.", "Categories: Teas. Items: mint soap, lemon tea.", "")


def test_words_that_text_and_rationale_share() -> None:
    found = shared_words("Mint tea, for the tea lover. Peppermint", [MINT])
    assert found == ("mint", "tea"), "in the order of the text, each once, whole words alone"
    assert shared_words("For you and the other items", [MINT]) == ()
    assert shared_words("Lemon", [Rationale("", "", ""), MINT]) == ("lemon",)
    assert shared_words("Mint", []) == ()


def test_history_items_that_speak_most() -> None:
    """Never the item itself, and only what is more like it than not."""
    history = np.array([2, 4, 5, 6, 7], np.int32)
    alike = np.zeros((5, 9), np.float32)
    alike[:, 8] = [0.1, 0.9, 0.5, -0.2, 0.3]
    assert nearest_in(history, alike, 8).tolist() == [4, 5, 7]
    alike[:, 4] = 0.7
    assert nearest_in(history, alike, 4).tolist() == [2, 5, 6]
    alike[:, 3] = -1
    assert nearest_in(history, alike, 3).tolist() == []


def test_an_explanation_is_shown_as_lines_to_read() -> None:
    soap, tea = ItemLabel("i1", "Mint soap"), ItemLabel("i2", "")
    seeds = (MatchedSeed("u7", 0.914, False, "Likes mint.", "Items: teas.", "heuristic"),)
    neural = ItemEvidence(soap, 1.25, ("mint",), (tea,))
    linear = ItemEvidence(tea, 0.5, (), (), (Contribution(soap, 0.75),), -0.25)
    assert repr(Explanation("u1", (tea,), seeds, (neural, linear))).splitlines() == [
        "user u1",
        "had, oldest first:",
        "  i2",
        "rationale of u7 (borrowed from a similar user; weight 0.91), by heuristic:",
        "  Likes mint.",
        "  Items: teas.",
        "1. i1 Mint soap, score 1.250",
        "     words in the rationales: mint",
        "     most like it of the history: i2",
        "2. i2, score 0.500",
        "     adds to the score: i1 Mint soap +0.750, rationales -0.250",
    ]
    assert repr(Explanation("", (), (), ())) == "user (given by a history)\nhad, oldest first:"
