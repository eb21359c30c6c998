"""What phrases add is exported for any number of users."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.models.phrases import score_with_phrases


def base(weight: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    """A score without rationales: the weighed sum of the entries, for every item."""
    return jnp.broadcast_to((users * weight).sum(1, keepdims=True), (users.shape[0], items.shape[0]))


def test_a_symbolic_batch_gives_the_scores_of_a_fixed_one() -> None:
    table = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
    items, weight = jnp.arange(5, dtype=jnp.float32)[:, None], jnp.ones(3)

    def score(users: jax.Array) -> jax.Array:
        return score_with_phrases(weight, jax.tree_util.Partial(base, weight), table, users, items)

    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(score))(jax.ShapeDtypeStruct((batch, 3), jnp.float32))
    # Rationales 5 and 6 stand first, then items of the history.
    users = jnp.asarray([[5.0, 2.0, 1.0], [6.0, 5.0, 3.0]])
    found = exported.call(users)
    np.testing.assert_allclose(found, score(users), rtol=1e-6)
    assert np.abs(np.asarray(found) - np.asarray(base(weight, users, items))).max() > 0
