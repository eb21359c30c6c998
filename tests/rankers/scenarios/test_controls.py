"""What the meta layers are given in the place of knowledge."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.rankers import CONTROLS, Texts, controlled, find_control, standardised
from reland_jax.scenario_settings import ScenarioConfig
from reland_jax.types import RelandError

RNG = np.random.default_rng(0)
TEXTS = Texts(
    rationales=RNG.normal(size=(6, 3)).astype(np.float32),
    seed=RNG.integers(-1, 6, 50).astype(np.int32),
    scenarios=RNG.normal(size=(4, 3)).astype(np.float32),
)


def test_the_method_reads_knowledge_as_it_is() -> None:
    found = controlled(CONTROLS["knowledge"], TEXTS)
    np.testing.assert_array_equal(found.rationales, TEXTS.rationales)
    np.testing.assert_array_equal(found.seed, TEXTS.seed)
    np.testing.assert_array_equal(found.scenarios, TEXTS.scenarios)


def test_the_backbone_reads_nothing() -> None:
    assert controlled(CONTROLS["backbone"], TEXTS) == Texts()
    assert CONTROLS["backbone"].plan(ScenarioConfig(meta=("user",))).meta == ()


def test_one_level_alone() -> None:
    assert controlled(CONTROLS["only_user"], TEXTS).scenarios is None
    assert controlled(CONTROLS["only_scenario"], TEXTS).rationales is None


def test_users_exchange_their_knowledge() -> None:
    found = controlled(CONTROLS["permuted_users"], TEXTS, seed=3)
    np.testing.assert_array_equal(np.sort(found.seed), np.sort(TEXTS.seed))
    np.testing.assert_array_equal(found.seed < 0, TEXTS.seed < 0)
    assert np.mean(found.seed == TEXTS.seed) < 0.6
    np.testing.assert_array_equal(found.scenarios, TEXTS.scenarios)


def test_no_scenario_keeps_its_knowledge() -> None:
    found = controlled(CONTROLS["permuted_scenarios"], TEXTS).scenarios
    assert not (found == TEXTS.scenarios).all(1).any()
    np.testing.assert_array_equal(np.sort(found, 0), np.sort(TEXTS.scenarios, 0))


def test_constant_and_noise_have_the_shapes_of_knowledge() -> None:
    constant, noise = (controlled(CONTROLS[name], TEXTS) for name in ("constant", "noise"))
    assert np.unique(constant.rationales).tolist() == np.unique(constant.scenarios).tolist() == [1.0]
    assert noise.rationales.shape == TEXTS.rationales.shape
    assert abs(np.corrcoef(noise.rationales.ravel(), TEXTS.rationales.ravel())[0, 1]) < 0.6
    np.testing.assert_array_equal(constant.seed, TEXTS.seed)


def test_learned_vectors_are_of_users_or_of_seed_users() -> None:
    each_user, each_seed = (controlled(CONTROLS[name], TEXTS) for name in ("each_user", "each_seed"))
    assert each_user.seed.tolist() == list(range(50)) and len(each_user.rationales) == 50
    np.testing.assert_array_equal(each_seed.seed, TEXTS.seed)
    plan = CONTROLS["each_seed"].plan(ScenarioConfig())
    assert (plan.user_vectors, plan.scenario_vectors) == ("trainable", "given")


def test_vectors_are_standardised_by_those_of_training() -> None:
    vectors = np.concatenate([RNG.normal(3, 2, (9, 2)), np.full((9, 1), 0.1)], 1)
    found = standardised(vectors, np.arange(5))
    np.testing.assert_allclose(found[:5].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found[:5].std(0), [1, 1, 0], atol=1e-6)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(RelandError, match="control 'only_user' reads knowledge of users, and there is none"):
        controlled(CONTROLS["only_user"], Texts())
    with pytest.raises(RelandError, match="did you mean 'constant'"):
        find_control("constnt")
