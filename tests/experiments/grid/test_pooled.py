"""The pooled test over backbones, against a loop over users."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.grid.pooled import pooled_tests
from experiments.grid.scores import Scores
from reland_jax.eval.significance import holm
from reland_jax.variants import VARIANTS
from tests.experiments.grid.test_summary import make_group

NAMES = (*VARIANTS, "permuted")


def test_a_user_is_averaged_over_the_backbones_and_seeds_that_it_has() -> None:
    one, other = make_group("sasrec", NAMES, seeds=(0, 1, 2)), make_group("lightgcn", NAMES, seeds=(0, 1))
    del one.runs["permuted"][1]
    for runs in other.runs.values():  # it evaluates the first users only
        for seed, found in runs.items():
            runs[seed] = Scores(found.summary, found.users[:150], {m: v[:150] for m, v in found.test.items()})
    differences = []
    for user in range(400):
        over = []
        for group, seeds in ((one, (0, 2)), (other, (0, 1))):
            if user in group.runs["reland"][0].users:
                ours, base = (
                    np.mean([group.runs[v][s].test["hr@10"][user] for s in seeds])
                    for v in ("reland", "permuted")
                )
                over.append(ours - base)
        differences.append(np.mean(over))
    found = pooled_tests([one, other])["amazon-beauty"]["reland>permuted"]["hr@10"]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue)
    assert (found.backbones, found.seeds, found.users) == (["sasrec", "lightgcn"], [2, 2], 400)


def test_data_sets_are_apart_and_corrected_apart() -> None:
    groups = [make_group("sasrec", NAMES), make_group("sasrec", VARIANTS, dataset="demo")]
    found = pooled_tests(groups)
    assert list(found["amazon-beauty"]) == ["reland>id", "reland>f_item", "reland>permuted"]
    assert list(found["demo"]) == ["reland>id", "reland>f_item"]
    tests = [one for metrics in found["demo"].values() for one in metrics.values()]
    np.testing.assert_allclose([one.p_holm for one in tests], holm([one.p_value for one in tests]))


def test_without_two_variants_of_a_backbone_there_is_no_test() -> None:
    assert pooled_tests([]) == {}
    assert pooled_tests([make_group("sasrec", ("id", "f_item"))]) == {}
