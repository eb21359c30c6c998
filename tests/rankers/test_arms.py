"""What stands in the place of the texts in every arm."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.rankers.arms import ARMS, arm_texts, find_arm
from reland_jax.rankers.text_fields import Texts
from reland_jax.types import RelandError
from tests.rankers.toys import toy_texts

USERS, SEED_USERS = 400, 12
RNG = np.random.default_rng(0)
MANY = Texts(
    RNG.normal(size=(5, 3)).astype(np.float32),
    RNG.normal(size=(SEED_USERS, 3)).astype(np.float32),
    RNG.integers(-1, SEED_USERS, USERS).astype(np.int32),
    RNG.uniform(size=USERS).astype(np.float32),
)


def test_the_plain_arms_read_no_rationale() -> None:
    assert arm_texts(ARMS["id"], MANY) == Texts()
    found = arm_texts(ARMS["f_item"], MANY)
    assert found.items is MANY.items and found[1:] == (None,) * 4


def test_reland_reads_all_as_it_is() -> None:
    for found, given in zip(arm_texts(ARMS["reland"], MANY), MANY, strict=True):
        np.testing.assert_array_equal(found, given)


def test_seed_ids_come_without_words() -> None:
    found = arm_texts(ARMS["seed_id"], MANY)
    assert found.rationales is None and ARMS["seed_id"].fields == ARMS["reland"].fields
    np.testing.assert_array_equal(found.seed, MANY.seed)


def test_permuted_rationales_are_dealt_to_the_users_anew() -> None:
    found = arm_texts(ARMS["permuted"], MANY)
    np.testing.assert_array_equal(found.seed < 0, MANY.seed < 0)
    np.testing.assert_array_equal(np.sort(found.seed), np.sort(MANY.seed))
    has = MANY.seed >= 0
    # Two users of one seed user must not stay together: that would be its number without its words.
    kept_together = [len(set(found.seed[MANY.seed == seed])) for seed in range(SEED_USERS)]
    assert min(kept_together) > 5 and np.mean(found.seed[has] == MANY.seed[has]) < 0.25
    np.testing.assert_array_equal(found.cosine, MANY.cosine)
    again, other = arm_texts(ARMS["permuted"], MANY), arm_texts(ARMS["permuted"], MANY, seed=1)
    np.testing.assert_array_equal(found.seed, again.seed)
    assert (found.seed != other.seed).any()


def test_permuted_texts_of_others_stay_where_a_user_gets_a_first_seed_user() -> None:
    """As in a deployment, where some do each day; who gets one stands in one place of the circle of users."""
    before = arm_texts(ARMS["permuted"], MANY).seed
    more = MANY.seed.copy()
    new = np.flatnonzero(more < 0)[:3]
    assert len(new) == 3
    more[new] = [0, 1, 2]
    after = arm_texts(ARMS["permuted"], MANY._replace(seed=more)).seed
    assert (after[new] >= 0).all() and (np.delete(before != after, new)).sum() <= len(new)


def test_noise_takes_the_place_of_the_rationales() -> None:
    found = arm_texts(ARMS["noise"], MANY)
    assert found.rationales.shape == MANY.rationales.shape
    assert np.abs(found.rationales - MANY.rationales).min(axis=0).max() > 1e-3
    np.testing.assert_array_equal(found.seed, MANY.seed)


def test_own_texts_are_those_of_the_users() -> None:
    own = RNG.normal(size=(USERS, 3)).astype(np.float32)
    own[3] = 0
    found = arm_texts(ARMS["own"], MANY, own)
    np.testing.assert_array_equal(found.rationales, own)
    expected = np.arange(USERS)
    expected[3] = -1
    np.testing.assert_array_equal(found.seed, expected)
    np.testing.assert_array_equal(found.cosine, expected >= 0)


def test_what_an_arm_lacks_is_an_error() -> None:
    with pytest.raises(RelandError, match="arm 'own' reads texts of the users, and there are none"):
        arm_texts(ARMS["own"], MANY)
    with pytest.raises(RelandError, match="arm 'f_item' reads item texts"):
        arm_texts(ARMS["f_item"], Texts())
    with pytest.raises(RelandError, match="arm 'relnd' is not known; did you mean 'reland'?"):
        find_arm("relnd")
    assert arm_texts(ARMS["id"], toy_texts()) == Texts()
