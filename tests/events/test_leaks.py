"""Features that are a label in disguise are refused, and honest ones of many values are not."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.data.sources.raw import Tokens
from reland_jax.events import Events, Feature, Multi, Schema, refuse_leaks, shop
from reland_jax.events.leaks import single_feature_aucs
from reland_jax.strings import as_strings
from reland_jax.types import Ragged, RelandError

SHOP = shop.generate(shop.ShopSettings(users=300, items=60, rows=2000)).events
ALL = np.arange(SHOP.num_rows)
CLICK = SHOP.labels["click"]


def _with(feature: Feature, values: Tokens | Multi | np.ndarray) -> Events:
    old = SHOP.schema
    schema = Schema(
        old.user, old.item, old.time, old.labels, (*old.features, feature), old.scenario, old.time_unit
    )  # fmt: skip
    return SHOP._replace(schema=schema, features={**SHOP.features, feature.name: values})


def _noisy(label: np.ndarray, wrong: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.where(rng.random(len(label)) < wrong, 1 - label, label)


def test_the_shop_has_no_leak_and_says_what_tells_most() -> None:
    judged = refuse_leaks(SHOP, ALL)
    assert len(judged) == 2 * (3 + 8)
    told = {(each.feature, each.label): each.auc for each in judged}
    assert told["user_id", "click"] is not None and 0.5 <= told["user_id", "click"] < 0.8
    assert judged[0].auc == max(each.auc for each in judged if each.auc is not None)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", CLICK * 10.0 + np.random.default_rng(1).random(len(CLICK))),
        ("numeric", -5.0 * CLICK),
        ("numeric", np.where(CLICK == 1, np.nan, 3.0)),
        ("numeric", np.abs(np.where(CLICK == 1, 0.0, 1.0)) * np.where(np.arange(len(CLICK)) % 2, 1.0, -1.0)),
        ("categorical", Tokens(_noisy(CLICK, 0.005).astype(np.int32), as_strings(["no", "yes"]))),
        (
            "multi",
            Multi(Ragged(np.arange(len(CLICK) + 1), CLICK.astype(np.int32)), as_strings(["skip", "open"])),
        ),
    ],
)
def test_a_label_in_disguise_is_refused(kind: str, values: Tokens | Multi | np.ndarray) -> None:
    events = _with(Feature("seconds", kind, "context"), values)
    message = r"'seconds' ranks 'click' with AUC (0\.99|1\.0).*take it out of the schema"
    with pytest.raises(RelandError, match=message):
        refuse_leaks(events, ALL)


def test_a_telling_feature_is_no_leak() -> None:
    events = _with(
        Feature("hint", "categorical", "context"),
        Tokens(_noisy(CLICK, 0.1).astype(np.int32), as_strings("ab")),
    )
    assert refuse_leaks(events, ALL)[0].feature == "hint"


def test_a_value_per_row_tells_nothing() -> None:
    names = as_strings([str(row) for row in ALL])
    events = _with(Feature("session", "categorical", "context"), Tokens(ALL.astype(np.int32), names))
    told = {each.feature: each.auc for each in single_feature_aucs(events, ALL) if each.label == "click"}
    assert told["session"] == 0.5


def test_too_few_rows_are_not_judged() -> None:
    assert {each.auc for each in single_feature_aucs(SHOP, ALL[:10])} == {None}
