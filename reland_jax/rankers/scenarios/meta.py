"""Meta layers: their weights and biases are made of a vector of knowledge, for every row.

This is a reading of LLM4MSR (Wang et al., CIKM 2024), of whose text only the abstract and a caption were at
hand: layers of users' knowledge at the bottom, those of scenarios' knowledge in parallel with the backbone.
The low-rank form is that of APG (Yan et al., NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

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


def meta_bytes(
    plan: ScenarioConfig, batch_size: int, wide: int, knowledge: Mapping[str, int], between: int = 0
) -> int:
    """Bytes by which meta layers make a step larger than that of the backbone alone; float32.

    Weights and their two moments are given and returned. What is made of knowledge for every row stays until
    the gradient; at the most that grows further by the activations, or by the gradient of the largest
    matrices. Layers of users come last in the backward pass, where the backbone's own arrays are free again.

    Args:
        plan: levels, form and sizes.
        batch_size: B.
        wide: m, numbers of all fields of a row.
        knowledge: T, numbers of a vector, by level; learned vectors have `ScenarioConfig.vector_width`, and
            their table is not counted.
        between: what a step of the backbone alone needs beside arguments and results; 0 counts the most.
    """
    sides = {"user": [(wide, wide)], "scenario": [(wide, plan.meta_width), (plan.meta_width, 1)]}
    weights = sum(_weights(plan, *side, knowledge[level]) for level in plan.meta for side in sides[level])
    made = {level: [_made(plan, *side) for side in sides[level]] for level in plan.meta}
    low_rank = 2 * plan.meta_rank * (plan.meta_form != FULL)
    active = sum(
        knowledge[level] + sum(4 * plan.meta_hidden + 4 * h + low_rank for _, h in sides[level])
        for level in plan.meta
    )
    of_row = 4 * batch_size
    backward = {level: of_row * max(each) for level, each in made.items()}
    if "user" in backward:
        backward["user"] += 4 * weights - between
    most = max(of_row * active, *backward.values()) if backward else 0
    return 6 * 4 * weights + of_row * sum(sum(each) for each in made.values()) + most


def _made(plan: ScenarioConfig, m: int, h: int) -> int:
    """Numbers of the matrix that a layer makes for a row."""
    return m * h if plan.meta_form == FULL else plan.meta_rank**2


def _weights(plan: ScenarioConfig, m: int, h: int, knowledge: int) -> int:
    """Learned numbers of a `MetaLayer`."""
    inner = (knowledge + 1) * plan.meta_hidden
    outer = [(plan.meta_hidden + 1) * count for count in (h, _made(plan, m, h))]
    return 2 * inner + sum(outer) + (0 if plan.meta_form == FULL else plan.meta_rank * (m + h))
