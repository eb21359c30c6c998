"""What a backbone is given of the rows of a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from reland_jax.rankers.schema import UNSEEN

KNOWN = UNSEEN + 1
"""The code of the first known scenario."""


class Rows(NamedTuple):
    """Embedded rows and their scenarios.

    Attributes:
        fields: ``<float32>[B, f, k]``.
        shares: ``<float32>[B, S]``, 1 for the row's scenario; 1/S each where it is unknown.
        domain: ``<float32>[B, k]``, the embedding of the scenario.
        prior: ``<float32>[B, p k]``, the embeddings that gates of layers read.
        counts: ``<bool>[B]``, whether a row is one, and does not only fill up the batch.
    """

    fields: jax.Array
    shares: jax.Array
    domain: jax.Array
    prior: jax.Array
    counts: jax.Array


def scenario_shares(codes: jax.Array, scenarios: int) -> jax.Array:
    """``<int32>[B]`` -> ``<float32>[B, S]``, see `Rows.shares`."""
    known = codes >= KNOWN
    return jnp.where(known[:, None], jax.nn.one_hot(codes - KNOWN, scenarios), 1.0 / scenarios)


def picked(of_each: jax.Array, shares: jax.Array) -> jax.Array:
    """The value of each row's scenario, of values of all: ``[B, S]`` twice -> ``[B]``."""
    return jnp.sum(of_each * shares, -1)
