"""Logs and encoded logs come back from their folders as they were."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events import Batches, Multi, encode, evaluate, fit, gather, shop
from reland_jax.events.quality import Predictions
from reland_jax.events.storing import load_encoded, load_events, save_encoded, save_events
from tests.events.toys import read_toy


def test_a_log_comes_back(tmp_path: Path) -> None:
    events = read_toy(tmp_path / "raw")
    (tmp_path / "kept").mkdir()
    save_events(events, tmp_path / "kept")
    back = load_events(tmp_path / "kept")
    assert back.schema == events.schema and back.notes == events.notes
    for name in ("user", "item", "time"):
        np.testing.assert_array_equal(getattr(back, name), getattr(events, name))
    assert back.ids.users.tolist() == events.ids.users.tolist()
    for name, values in events.features.items():
        other = back.features[name]
        if isinstance(values, Tokens):
            assert isinstance(other, Tokens)
            assert other.name[other.code].tolist() == values.name[values.code].tolist()
        elif isinstance(values, Multi):
            assert isinstance(other, Multi) and other.rows.indptr.tolist() == values.rows.indptr.tolist()
            assert other.name[other.rows.items].tolist() == values.name[values.rows.items].tolist()
        else:
            np.testing.assert_array_equal(np.asarray(other), values)
    again = fit(back, np.arange(4), min_count=1)
    assert again.scales == fit(events, np.arange(4), min_count=1).scales


def test_an_encoded_log_comes_back_and_gives_the_same_batches(tmp_path: Path) -> None:
    made = shop.generate(shop.ShopSettings(users=60, items=30, rows=500))
    encoding = fit(made.events, np.arange(400))
    encoded = encode(encoding, made.events)
    save_encoded(encoding, encoded, tmp_path)
    encoding_back, back = load_encoded(tmp_path)
    assert encoding_back.scales == encoding.scales and encoding_back.lengths == encoding.lengths
    assert encoding_back.schema == encoding.schema
    for name, known in encoding.known.items():
        assert encoding_back.known[name].tolist() == known.tolist()
    rows, weight = Batches(np.arange(400), 32).at(7)
    for ours, theirs in zip(
        jax.tree.leaves(gather(back, rows, weight)),
        jax.tree.leaves(gather(encoded, rows, weight)),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    other = encode(encoding_back, made.events)
    np.testing.assert_array_equal(other.sides[0].categorical, encoded.sides[0].categorical)


def test_a_stored_log_is_judged_the_same(tmp_path: Path) -> None:
    made = shop.generate(shop.ShopSettings(users=60, items=30, rows=500))
    save_events(made.events, tmp_path)
    rows = np.arange(300, 500)
    predictions = Predictions(made.truth.click[rows])
    assert evaluate(load_events(tmp_path), rows, predictions) == evaluate(made.events, rows, predictions)
