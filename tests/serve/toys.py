"""A trained recommender of four users and six items, made in a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from reland_jax.bundle import Bundle
from reland_jax.config import EaseConfig, RetrievalConfig, ScoreConfig
from reland_jax.retrieval import learn_matching
from reland_jax.serve.api import Reland
from reland_jax.stages import ASSIGN, BUILD_POOL, ITEMS, LOAD, RATIONALES, SPLIT, linear_weights, training
from reland_jax.strings import as_strings
from reland_jax.types import Interactions
from reland_jax.variants import find_variant
from tests.stages.toys import ENCODER, REPEATS, made_of, settings
from tests.toys import inputs_of
from tests.train.toys import SIZES

TITLES = ("", "Rose cream", "Rose soap", "Mint soap", "Mint tea", "Lemon tea", "Lemon cream")
BRANDS = ("", "Quellin", "Quellin", "Zorvane", "Zorvane", "Zorvane", "")
OBJECTIVES = {
    "sasrec": "shifted", "lightgcn": "bpr", "ngcf": "bpr", "neumf": "bpr",
    "ease": "closed_form", "ials": "closed_form",
}  # fmt: skip


def described(interactions: Interactions) -> Interactions:
    """With titles and brands."""
    features = {"title": as_strings(list(TITLES)), "brand": as_strings(list(BRANDS))}
    return interactions._replace(item_features=features)


def toy_bundle(
    folder: Path, backbone: str, variant: str = "reland", score: ScoreConfig | None = None
) -> Bundle:
    """Everybody is given both seed users, which are the fourth and the second."""
    config = settings(
        model=dataclasses.replace(SIZES, backbone=backbone),
        train=dataclasses.replace(ENCODER, objective=OBJECTIVES[backbone]),
        ease=EaseConfig(regularisation=1.0),
        score=score or ScoreConfig(),
        retrieval=RetrievalConfig(neighbours=2),
        variants=(variant,),
    )
    inputs = inputs_of(REPEATS, (3, 1))
    interactions, pool = described(inputs.interactions), inputs.built.pool
    made = made_of(config, folder, {
        LOAD: interactions, SPLIT: REPEATS, BUILD_POOL: inputs.built, ITEMS: inputs.texts.items,
        RATIONALES: inputs.texts.rationales, ASSIGN: inputs.assignment,
    })  # fmt: skip
    trained = made.make(training(made, variant, 0))
    behaviour = np.random.default_rng(5).normal(size=(4, pool.behaviour.shape[1])).astype(np.float32)
    behaviour[pool.seeds.user] = pool.behaviour
    whole = Bundle(
        config, variant, 0, interactions, REPEATS, inputs.texts.items, inputs.texts.rationales, pool,
        inputs.assignment, learn_matching(behaviour, REPEATS.train, 6), trained,
        {"valid": trained.summary.valid, "test": trained.summary.test}, "origin",
        linear=linear_weights(made, variant),
    )  # fmt: skip
    if not find_variant(variant).reads_rationales:
        whole = whole._replace(rationales=None, pool=None, assignment=None, matching=None)
    return whole if find_variant(variant).reads_texts else whole._replace(items=None)


def model_of(bundle: Bundle) -> Reland:
    """The API on a bundle, as after a fit."""
    model = Reland(bundle.config, variant=bundle.variant, seed=bundle.seed)
    model._hold(bundle)
    return model
