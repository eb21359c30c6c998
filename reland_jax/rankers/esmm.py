"""ESMM: conversion after the click, learned from all impressions (Ma et al., SIGIR 2018)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import Logit, NetworkFactory
from reland_jax.rankers.scores import reached_logits


class ESMM(nn.Module):
    """A network for every label given the one before it, on shared embeddings.

    The conversion's own probability has no loss, hence no bias by the choice of clicked rows: the product
    pCTCVR = pCTR pCVR has one, over all impressions.

    Attributes:
        network: makes the networks.
        labels: T, number of labels.
    """

    network: NetworkFactory
    labels: int

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, T]``, logits that a row reaches each label."""
        given = [
            Logit(name=f"logit_{at}")(self.network(f"network_{at}")(fields, train))
            for at in range(self.labels)
        ]
        return reached_logits(jnp.stack(given, -1))
