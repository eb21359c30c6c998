"""iALS against NumPy's least squares in float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from reland_jax.device import sizes, use_sizes
from reland_jax.linear import IalsConfig
from reland_jax.models.ials import Dense, factorise, solve_rows, weights_of
from reland_jax.train.ials import tiles

USERS, ITEMS, DIM, TEXT = 40, 23, 6, 5
RNG = np.random.default_rng(0)
HAD = RNG.random((USERS, ITEMS)) < np.linspace(0.02, 0.6, ITEMS)
TEXTS = RNG.normal(size=(ITEMS, TEXT))
RATIONALES = RNG.normal(size=(USERS, TEXT))
CONFIG = IalsConfig(unobserved=0.05, regularisation=0.02, frequency=0.8, sweeps=3, steps=40)
WEIGHTS = weights_of(CONFIG)


def penalties(had: np.ndarray) -> np.ndarray:
    weight = had.sum(1) + CONFIG.unobserved * had.shape[1]
    return CONFIG.regularisation * weight**CONFIG.frequency


def solved(
    had: np.ndarray, other: np.ndarray, vectors: np.ndarray | None, loadings: np.ndarray | None
) -> np.ndarray:
    """Every row's normal equations, one after the other; rows without entries stay zero."""
    shared = CONFIG.unobserved * other.T @ other + (0 if loadings is None else loadings.T @ loadings)
    found = np.zeros((len(had), other.shape[1]))
    for row in np.flatnonzero(had.any(1)):
        mine = other[had[row]]
        wanted = mine.sum(0) + (0 if loadings is None else vectors[row] @ loadings)
        matrix = mine.T @ mine + shared + penalties(had)[row] * np.eye(len(shared))
        found[row] = np.linalg.solve(matrix, wanted)
    return found


def loadings_of(vectors: np.ndarray | None, factors: np.ndarray) -> np.ndarray | None:
    if vectors is None:
        return None
    ridge = CONFIG.regularisation * len(factors) ** CONFIG.frequency * np.eye(factors.shape[1])
    return np.linalg.solve(factors.T @ factors + ridge, factors.T @ vectors).T


def by_numpy(
    first: np.ndarray, rationales: np.ndarray | None, texts: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    item, user = first, np.zeros((USERS, DIM))
    for sweep in range(CONFIG.sweeps):
        r, t = (None, None) if sweep == 0 else (rationales, texts)
        user = solved(HAD, item, r, loadings_of(r, user))
        item = solved(HAD.T, user, t, loadings_of(t, item))
    return user, item


PARTS = pytest.mark.parametrize(
    ("rationales", "texts"), [(None, None), (None, TEXTS), (RATIONALES, TEXTS)], ids=["id", "texts", "all"]
)


@PARTS
def test_sweeps_equal_least_squares_by_numpy(rationales: np.ndarray | None, texts: np.ndarray | None) -> None:
    had, key = sparse.csr_array(HAD.astype(np.int8)), jax.random.key(3)
    first = np.asarray(jax.random.normal(key, (ITEMS, DIM))) * CONFIG.initial_scale / DIM**0.5
    given = [None if each is None else jnp.asarray(each, jnp.float32) for each in (rationales, texts)]
    found = factorise(
        tiles(had), tiles(had.T.tocsr()), *given, key, WEIGHTS,
        num_users=USERS, num_items=ITEMS, dim=DIM, sweeps=CONFIG.sweeps, steps=CONFIG.steps,
    )  # fmt: skip
    user, item = by_numpy(np.float64(first), rationales, texts)
    np.testing.assert_allclose(found.items, item, atol=2e-4)
    expected = loadings_of(rationales, user)
    assert (found.rationale_loadings is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(found.rationale_loadings, expected, atol=2e-4)


@pytest.mark.parametrize("entries", [8, 1 << 13])
def test_a_row_is_solved_for_whatever_the_tiles(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    other = RNG.normal(size=(ITEMS, DIM))
    loadings = RNG.normal(size=(TEXT, DIM))
    with use_sizes(dataclasses.replace(sizes(), factor_entries=entries)):
        rows = tiles(sparse.csr_array(HAD.astype(np.int8)))
    beside = Dense(jnp.asarray(RATIONALES, jnp.float32), jnp.asarray(loadings, jnp.float32))
    start = jnp.zeros((USERS, DIM))
    found = solve_rows(rows, jnp.asarray(other, jnp.float32), start, beside, WEIGHTS, CONFIG.steps)
    np.testing.assert_allclose(found, solved(HAD, other, RATIONALES, loadings), rtol=1e-3, atol=1e-4)


def test_few_steps_from_a_good_start_are_enough() -> None:
    other = jnp.asarray(RNG.normal(size=(ITEMS, DIM)), jnp.float32)
    rows = tiles(sparse.csr_array(HAD.astype(np.int8)))
    exact = solve_rows(rows, other, jnp.zeros((USERS, DIM)), None, WEIGHTS, CONFIG.steps)
    errors = [
        float(jnp.abs(solve_rows(rows, other, start, None, WEIGHTS, 1) - exact).max())
        for start in (jnp.zeros((USERS, DIM)), exact * 1.01)
    ]
    assert errors[1] < 0.05 * errors[0]


def test_tiles_hold_every_entry_once() -> None:
    found = np.zeros((USERS + 1, ITEMS + 1), int)
    for each in tiles(sparse.csr_array(HAD.astype(np.int8))):
        np.add.at(found, (np.asarray(each.row)[..., None], np.asarray(each.entry)), 1)
    np.testing.assert_array_equal(found[:USERS, :ITEMS], HAD)
    assert (found[USERS, :ITEMS] == 0).all()
