"""Vocabularies and scales of training rows alone, and arrays of fixed shape, against loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.events import Events, Feature, columns_of, encode, fit, gather, read, shop, unseen_shares
from reland_jax.events.encoding import KNOWN, PADDING, UNSEEN, Encoding
from reland_jax.types import RelandError
from tests.events.toys import SCHEMA, read_toy, write_lines, write_log

TRAIN = np.arange(4)  # the last two rows hold item "z", user "d" and scenario "3" for the first time


def _column(encoding: Encoding, events: Events, name: str, rows: np.ndarray) -> list[int]:
    batch = gather(encode(encoding, events), rows, np.ones(len(rows), np.float32))
    return batch.categorical[:, encoding.names("categorical").index(name)].tolist()


def test_codes_of_the_toy_log_by_hand(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    encoding = fit(events, TRAIN, min_count=1)
    assert encoding.names("categorical") == ["user_id", "age", "item_id", "scenario", "hour"]
    assert encoding.names("numeric") == ["fans", "price"] and encoding.names("multi") == ["tags"]
    assert encoding.known["user_id"].tolist() == ["a", "b", "c"] and encoding.rows_of("user_id") == 5
    assert encoding.known["hour"].tolist() == ["7", "8", "9"]
    rows = np.arange(6)
    assert _column(encoding, events, "user_id", rows) == [3, 2, 2, 4, 2, UNSEEN]
    assert _column(encoding, events, "item_id", rows) == [3, 2, 3, 2, UNSEEN, UNSEEN]
    assert _column(encoding, events, "scenario", rows) == [2, 2, 3, 2, 3, UNSEEN]
    assert _column(encoding, events, "hour", rows) == [3, 4, 3, 2, UNSEEN, 3]
    # No value is a value of its own: users b and c of the training rows have no age.
    assert encoding.known["age"].tolist() == ["", "30"]
    assert _column(encoding, events, "age", rows) == [2, 3, 3, 2, 3, UNSEEN]


def test_rare_values_share_the_row_of_the_unseen(tmp_path: Path) -> None:
    encoding = fit(read_toy(tmp_path), TRAIN, min_count=2)
    assert encoding.known["user_id"].tolist() == ["a"] and encoding.known["hour"].tolist() == ["8"]


def test_lists_are_padded_and_their_last_values_kept(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    batch = gather(encode(fit(events, np.arange(6), min_count=1), events), np.array([0, 1, 4]), None)
    big, new, red = 2, 3, 4
    assert batch.multi[0].tolist() == [[PADDING] * 3, [red, big, PADDING], [big, new, big]]
    short = gather(encode(fit(events, np.arange(6), min_count=1, longest=2), events), np.array([1, 4]), None)
    assert short.multi[0].tolist() == [[red, big], [new, big]]
    # The length is that of the training rows.
    assert fit(events, TRAIN).lengths["tags"] == 2


def test_numbers_are_scaled_by_the_training_rows_alone(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    encoding = fit(events, TRAIN)
    batch = gather(encode(encoding, events), np.arange(6), None)
    fans = np.log1p([9, 0, 0])  # of rows 0, 1 and 2; user c of row 3 has no value
    expected = [(value - fans.mean()) / fans.std() for value in (np.log1p(9), 0, 0)]
    np.testing.assert_allclose(batch.numeric[:, 0], [*expected, 0, expected[1], 0], rtol=1e-6)
    price = np.array([2.5, 1, 2.5, 1])
    np.testing.assert_allclose(batch.numeric[:4, 1], (price - price.mean()) / price.std(), rtol=1e-6)


def test_later_rows_change_nothing() -> None:
    events = shop.generate(shop.ShopSettings(users=80, items=30, rows=600)).events
    rows = np.arange(400)
    whole, cut = fit(events, rows), fit(events.take(rows), rows)
    assert whole.scales == cut.scales and whole.lengths == cut.lengths
    for name, known in whole.known.items():
        assert known.tolist() == cut.known[name].tolist()


def test_vocabularies_against_a_loop() -> None:
    made = shop.generate(shop.ShopSettings(users=80, items=30, rows=600))
    events, rows = made.events, np.arange(100, 500)
    encoding = fit(events, rows, min_count=3)
    counts: dict[str, int] = {}
    for row in rows:
        for tag in made.world.tags.row(events.item[row]):
            counts[str(tag)] = counts.get(str(tag), 0) + 1
    assert len(encoding.known["tags"]) == len([each for each in counts.values() if each >= 3])
    users = {user for user in range(80) if (events.user[rows] == user).sum() >= 3}
    assert encoding.known["user_id"].tolist() == [f"U{user:06d}" for user in sorted(users)]
    encoded = encode(encoding, events)
    later = np.arange(500, 600)
    share = np.mean([events.user[row] not in users for row in later])
    assert unseen_shares(encoding, encoded, later)["user_id"] == pytest.approx(share)
    assert unseen_shares(encoding, encoded, rows)["scenario"] == 0
    assert encoded.sides[1].categorical[0].tolist() == [PADDING] * 3  # of the padding item


def test_a_list_of_items_shares_their_vocabulary(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    write_lines(tmp_path / "toy.user", "user_id:token\tage:token\tfans:float\tseen:token_seq",
                "a\t1\t1\ty x", "b\t1\t1\tx w", "d\t1\t1\tw")  # fmt: skip
    schema = replace(SCHEMA, features=(*SCHEMA.features, Feature("seen", "multi", "user", shares="item_id")))
    events = read(DataConfig(name=str(path)), schema)
    encoding = fit(events, TRAIN, min_count=1)
    assert "seen" not in encoding.known and encoding.known["item_id"].tolist() == ["w", "x", "y"]
    assert encoding.rows_of("seen") == encoding.rows_of("item_id") == 3 + KNOWN
    batch = gather(encode(encoding, events), np.array([0, 1, 5]), None)
    seen = batch.multi[encoding.names("multi").index("seen")]
    assert seen.tolist() == [[3, 2], [4, 3], [2, PADDING]]


def test_another_log_of_the_schema_gets_the_same_codes(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    encoding = fit(events, TRAIN, min_count=1)
    rows = (("z9", "x", 4, "2", 1, 0, "8"), ("a", "y", 4, "1", 0, 0, "9"))
    other = read(DataConfig(name=str(write_log(tmp_path / "next", rows))), SCHEMA)
    assert _column(encoding, other, "user_id", np.arange(2)) == [UNSEEN, 2]
    assert _column(encoding, other, "item_id", np.arange(2)) == [2, 3]
    with pytest.raises(RelandError, match="another schema"):
        encode(encoding, shop.generate(shop.ShopSettings(rows=5)).events)


def test_a_device_gathers_what_the_host_does() -> None:
    events = shop.generate(shop.ShopSettings(users=80, items=30, rows=600)).events
    encoded = encode(fit(events, np.arange(400)), events)
    rows, weight = np.array([5, 599, 0]), np.array([1, 1, 0], np.float32)
    on_host = gather(encoded, rows, weight)
    on_device = jax.jit(gather)(jax.tree.map(jnp.asarray, encoded), rows, weight)
    for ours, theirs in zip(jax.tree.leaves(on_device), jax.tree.leaves(on_host), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert on_host.labels.tolist() == [
        [events.labels[name][row] for name in ("click", "conversion")] for row in rows
    ]


def test_nothing_to_fit_is_refused() -> None:
    events = shop.generate(shop.ShopSettings(rows=5)).events
    for rows, count, longest in ((np.arange(0), 1, 1), (np.arange(5), 0, 1), (np.arange(5), 1, 0)):
        with pytest.raises(RelandError, match="each must be >= 1" if len(rows) else "must be some"):
            fit(events, rows, min_count=count, longest=longest)


def test_a_batch_by_names(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    encoding = fit(events, TRAIN, min_count=1)
    rows = np.array([1, 4])
    columns = columns_of(encoding, gather(encode(encoding, events), rows, np.ones(2, np.float32)))
    names = {"user_id", "age", "item_id", "scenario", "hour", "fans", "price", "tags", "click", "buy"}
    assert set(columns) == names | {"user_row", "item_row", "weight"}
    assert columns["hour"].tolist() == [4, UNSEEN] and columns["tags"].shape == (2, 2)
    assert columns["buy"].tolist() == [0, 1] and columns["click"].tolist() == [1, 1]
    assert columns["user_row"].tolist() == events.user[rows].tolist()
