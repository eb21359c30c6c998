"""Vectors of rationales: in the directions of the item texts, and each for itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reland_jax.config import TextConfig
from reland_jax.stages import encoding
from reland_jax.text import whiten
from tests.stages.toys import REPEATS, settings
from tests.toys import inputs_of

WIDTH, DIRECTIONS = 6, 3


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The vectors of the items, none for padding; those of rationales are by their number and far away."""
    drawn = np.random.default_rng(0).normal(size=(7, WIDTH)).astype(np.float32)
    drawn[0] = 0

    def encode(texts: Sequence[str], config: TextConfig, cache: Path, what: str) -> np.ndarray:
        if what == encoding.ITEM_TEXTS:
            return drawn
        numbers = [int(text.removeprefix("Items: ").removesuffix(".")) for text in texts]
        return np.stack([vector_of(number) for number in numbers])

    monkeypatch.setattr(encoding, "encode_texts", encode)
    return drawn


def vector_of(number: int) -> np.ndarray:
    """The vector of the rationale of a user."""
    return 3 + np.random.default_rng(9 + number).normal(size=WIDTH).astype(np.float32)


def rationales(tmp_path: Path, users: tuple[int, ...], directions: int | None) -> np.ndarray:
    """The vectors of the rationales of some users."""
    inputs = inputs_of(REPEATS, users)
    text = dataclasses.replace(settings().text, whiten_rationales=directions)
    config = settings(text=text)
    written = [rationale.step2 for rationale in inputs.built.pool.rationales]
    return encoding.encode_rationales(inputs.interactions, written, config, tmp_path)


def test_rationales_are_whitened_on_the_items(items: np.ndarray, tmp_path: Path) -> None:
    """So the vector of one depends on no other."""
    found = rationales(tmp_path, (0, 2, 3), DIRECTIONS)
    raw = np.stack([vector_of(number) for number in (0, 2, 3)])
    np.testing.assert_array_equal(found, whiten(raw, items[1:], DIRECTIONS))
    np.testing.assert_array_equal(rationales(tmp_path, (2, 3), DIRECTIONS), found[1:])


@pytest.mark.usefixtures("items")
def test_without_directions_they_stay_as_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(rationales(tmp_path, (3,), None), vector_of(3)[None])
