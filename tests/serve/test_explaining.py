"""Evidence for recommended items."""

from __future__ import annotations

import numpy as np

from reland_jax.serve.explaining import nearest_in, shared_words
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
