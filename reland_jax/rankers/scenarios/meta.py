"""Meta layers: their weights and biases are made of a vector of knowledge, for every row.

This is a reading of LLM4MSR (Wang et al., CIKM 2024), of whose text only the abstract and a caption were at
hand: layers of users' knowledge at the bottom, those of scenarios' knowledge in parallel with the backbone.
The low-rank form is that of APG (Yan et al., NeurIPS 2022).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import flat
from reland_jax.rankers.text_fields import AnyArray, entries
from reland_jax.scenario_settings import FULL, TRAINABLE, ScenarioConfig

USER_LAYER, SCENARIO_LAYER = "user_layer", "scenario_layer"
"""Names of the modules of the two levels."""


class MadeOf(nn.Module):
    """Numbers made of knowledge by one hidden layer.

    Attributes:
        hidden: units of the hidden layer.
        shape: of what is made for a row.
        scale: variance of what is made, times the numbers of the hidden layer; 1 as of a dense layer.
    """

    hidden: int
    shape: tuple[int, ...]
    scale: float = 1.0

    @nn.compact
    def __call__(self, knowledge: jax.Array) -> jax.Array:
        """``<float32>[B, T]`` -> ``<float32>[B, *shape]``."""
        inner = nn.relu(nn.Dense(self.hidden, name="inner")(knowledge))
        init = nn.initializers.variance_scaling(self.scale, "fan_in", "truncated_normal")
        made = nn.Dense(math.prod(self.shape), kernel_init=init, name="outer")(inner)
        return made.reshape(len(knowledge), *self.shape)


class MetaLayer(nn.Module):
    """``x W(h) + b(h)``.

    In the low-rank form ``W(h) = U S(h) V``, where S is a square of side r and U and V belong to all rows; it
    is never formed. In the full form every row of the batch has a matrix of its own (`meta_bytes`).

    Attributes:
        width: of the output.
        plan: form and sizes.
    """

    width: int
    plan: ScenarioConfig

    @nn.compact
    def __call__(self, x: jax.Array, knowledge: jax.Array) -> jax.Array:
        """``<float32>[B, m]``, ``<float32>[B, T]`` -> ``<float32>[B, width]``."""
        plan, wide = self.plan, x.shape[-1]
        bias = MadeOf(plan.meta_hidden, (self.width,), name="bias")(knowledge)
        if plan.meta_form == FULL:
            made = MadeOf(plan.meta_hidden, (wide, self.width), 1 / wide, name="kernel")
            return jnp.einsum("bm,bmh->bh", x, made(knowledge)) + bias
        rank, init = plan.meta_rank, nn.initializers.lecun_normal()
        before = self.param("before", init, (wide, rank))
        after = self.param("after", init, (rank, self.width))
        square = MadeOf(plan.meta_hidden, (rank, rank), 1 / rank, name="square")(knowledge)
        return jnp.einsum("br,brq->bq", x @ before, square) @ after + bias


class Vectors(nn.Module):
    """The vectors that are given, or learned ones in their place.

    Attributes:
        kind: one of `scenario_settings.VECTORS`.
        width: of a learned vector.
    """

    kind: str
    width: int

    @nn.compact
    def __call__(self, given: AnyArray) -> AnyArray:
        """``<float32>[n, T]`` -> ``<float32>[n, T]``, or ``[n, width]``."""
        if self.kind != TRAINABLE:
            return given
        return self.param("learned", nn.initializers.normal(1.0), (len(given), self.width))


class UserLayer(nn.Module):
    """The fields with what knowledge of the user adds: ``e + g ReLU(e W(h) + b(h))``, g zero at the start.

    Attributes:
        plan: form and sizes.
    """

    plan: ScenarioConfig

    @nn.compact
    def __call__(self, fields: jax.Array, given: AnyArray, row: jax.Array) -> jax.Array:
        """The changed fields.

        Args:
            fields: ``<float32>[B, f, k]``.
            given: ``<float32>[n, T]``, knowledge.
            row: ``<int32>[B]``, the row's place in it, -1 for none, which is the mean.

        Returns:
            ``<float32>[B, f, k]``.
        """
        table = Vectors(self.plan.user_vectors, self.plan.vector_width, name="vectors")(given)
        embedded, knowledge = flat(fields), entries(table, row, 0.0)
        added = nn.relu(MetaLayer(embedded.shape[-1], self.plan, name="meta")(embedded, knowledge))
        gate = self.param("gate", nn.initializers.zeros, ())
        return fields + gate * added.reshape(fields.shape)


class ScenarioLayer(nn.Module):
    """Two layers of knowledge of the scenario, whose output times g is added to the logit; g starts at zero.

    Attributes:
        plan: form and sizes.
    """

    plan: ScenarioConfig

    @nn.compact
    def __call__(self, fields: jax.Array, given: AnyArray, shares: jax.Array) -> jax.Array:
        """What is added to the logit.

        Args:
            fields: ``<float32>[B, f, k]``.
            given: ``<float32>[S, T]``, knowledge.
            shares: ``<float32>[B, S]``, see `Rows`.

        Returns:
            ``<float32>[B]``.
        """
        table = Vectors(self.plan.scenario_vectors, self.plan.vector_width, name="vectors")(given)
        knowledge = shares @ jnp.asarray(table)
        hidden = nn.relu(MetaLayer(self.plan.meta_width, self.plan, name="meta_0")(flat(fields), knowledge))
        output = MetaLayer(1, self.plan, name="meta_1")(hidden, knowledge)[:, 0]
        gate = self.param("gate", nn.initializers.zeros, ())
        return gate * output


def meta_bytes(plan: ScenarioConfig, batch_size: int, wide: int) -> int:
    """Bytes of the matrices that meta layers make for the rows of a step, and of those that make them.

    Args:
        plan: levels, form and sizes.
        batch_size: B.
        wide: m, numbers of all fields of a row.

    Returns:
        Made matrices twice (a step needs their gradient too), and the last layers of the networks that make
        them four times (gradient and two moments); float32.
    """
    sides = {"user": [(wide, wide)], "scenario": [(wide, plan.meta_width), (plan.meta_width, 1)]}
    rank = plan.meta_rank
    made = sum(
        m * h if plan.meta_form == FULL else rank * rank for level in plan.meta for m, h in sides[level]
    )
    return 4 * made * (2 * batch_size + 4 * (plan.meta_hidden + 1))
