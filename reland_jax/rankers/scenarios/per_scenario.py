"""Shared bottom, MMoE and PLE over scenarios: the tasks over labels, a scenario in the place of a label."""

from __future__ import annotations

import flax.linen as nn
import jax

from reland_jax.rankers.scenarios.rows import Rows, picked


class PerScenario(nn.Module):
    """A task that gives a logit for every scenario, of which each row's own is taken.

    Attributes:
        task: maps fields ``<float32>[B, f, k]`` (and `train`) to ``<float32>[B, S]``.
    """

    task: nn.Module

    @nn.compact
    def __call__(self, rows: Rows, train: bool = False) -> jax.Array:
        """Rows -> logits ``<float32>[B]``."""
        return picked(self.task(rows.fields, train), rows.shares)


class One(nn.Module):
    """One ranker for all scenarios, which are a field among others.

    Attributes:
        task: maps fields ``<float32>[B, f, k]`` (and `train`) to ``<float32>[B, 1]``.
    """

    task: nn.Module

    @nn.compact
    def __call__(self, rows: Rows, train: bool = False) -> jax.Array:
        """Rows -> logits ``<float32>[B]``."""
        return self.task(rows.fields, train)[:, 0]
