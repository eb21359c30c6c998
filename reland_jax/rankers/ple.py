"""PLE: experts of every label beside those that all share, in levels (Tang et al., RecSys 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import MLP, NetworkFactory, TowerLogit, flat
from reland_jax.rankers.mmoe import Gate

ExpertFactory = Callable[[str, jax.Array], jax.Array]
"""(name of an expert, its input) -> its output ``<float32>[B, H]``."""


class PLE(nn.Module):
    """Levels of customised gate control, and a tower for every label.

    On every level the gate of a label mixes the label's own experts and the shared ones, and a further gate
    mixes all of them into the input of the next level's shared experts. Each gate reads what its own experts
    read. Experts of the first level are networks on the fields, those of later levels a hidden layer.

    Attributes:
        network: makes the experts of the first level.
        labels: T, number of labels.
        shared_experts: experts that all labels share, on every level.
        own_experts: experts of each label, on every level.
        levels: number of levels.
        tower: hidden layers of a tower.
        dropout: share of units dropped in training.
    """

    network: NetworkFactory
    labels: int
    shared_experts: int
    own_experts: int
    levels: int
    tower: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, T]``, logits that a row reaches each label."""

        def first(name: str, x: jax.Array) -> jax.Array:
            del x
            return self.network(name)(fields, train)

        inputs = [flat(fields)] * (self.labels + 1)
        for level in range(self.levels):
            expert = partial(self._later, train) if level else first
            inputs = self._level(level, level == self.levels - 1, expert, inputs)
        towers = [TowerLogit(self.tower, self.dropout, name=f"tower_{at}") for at in range(self.labels)]
        return jnp.stack([tower(x, train) for tower, x in zip(towers, inputs, strict=True)], -1)

    def _later(self, train: bool, name: str, x: jax.Array) -> jax.Array:
        """An expert above the first level: a hidden layer as wide as the first of a tower."""
        return MLP(self.tower[:1], self.dropout, name=name)(x, train)

    def _level(
        self, level: int, is_last: bool, expert: ExpertFactory, inputs: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """One level; the last input and output are those of shared experts, and lack on the last level."""
        own = [
            [expert(f"level_{level}_expert_{at}_{n}", x) for n in range(self.own_experts)]
            for at, x in enumerate(inputs[:-1])
        ]
        shared = [expert(f"level_{level}_shared_{n}", inputs[-1]) for n in range(self.shared_experts)]
        mixed = [
            Gate(name=f"level_{level}_gate_{at}")(x, [*experts, *shared])
            for at, (x, experts) in enumerate(zip(inputs[:-1], own, strict=True))
        ]
        if is_last:
            return mixed
        every = [each for experts in own for each in experts] + shared
        return [*mixed, Gate(name=f"level_{level}_gate_shared")(inputs[-1], every)]
