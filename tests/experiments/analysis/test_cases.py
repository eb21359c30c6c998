"""Figure 8: cells, the draw, the paper's user, and what is kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from experiments.analysis.cases import (
    Labelled,
    Shown,
    as_plain,
    cases_part,
    cells_of,
    drawn,
    shared_words,
)


def test_every_user_is_in_one_cell() -> None:
    """Against a loop over users."""
    rng = np.random.default_rng(0)
    users, ours, base = np.arange(100, 400), rng.integers(1, 5, 300), rng.integers(1, 5, 300)
    own = rng.random(300) < 0.1
    expected: dict[tuple[str, str], list[int]] = {}
    for user, a, b, is_own in zip(users, ours, base, own, strict=True):
        outcome = "gained" if a < b else "lost" if a > b else "equal"
        expected.setdefault((outcome, "own" if is_own else "borrowed"), []).append(int(user))
    found = cells_of(users, ours, base, own)
    assert {(cell.outcome, cell.source): cell.users.tolist() for cell in found} == expected
    assert len(found) == 6 and [(cell.outcome, cell.source) for cell in found][:2] == [
        ("gained", "own"), ("gained", "borrowed"),
    ]  # fmt: skip


def test_users_are_drawn_uniformly_and_again_the_same() -> None:
    cells = cells_of(np.arange(40), np.arange(40) % 3, np.ones(40, int), np.zeros(40, bool))
    assert drawn(cells, 2) == drawn(cells, 2)
    assert [cell.outcome for cell, _ in drawn(cells, 2)] == ["gained"] * 2 + ["lost"] * 2 + ["equal"] * 2
    assert all(user in cell.users for cell, user in drawn(cells, 2))
    counts = np.bincount([drawn(cells, 1, seed)[0][1] for seed in range(1400)], minlength=40)
    of_first = counts[cells[1].users]
    assert counts.sum() == of_first.sum() == 1400 and of_first.min() > 60 and of_first.max() < 140


def shown(user: str = "A2LUSYXY8NXYKW", **changes: Any) -> Shown:
    sibu, target = Labelled("Cleanser", "Sibu"), Labelled("Mascara <b>", "CoverGirl")
    one = Shown(
        user, "drawn", [sibu], target, "S", 0.5, False, "Gentle.", "Recommended items: a mascara; soap.",
        {"id": 300, "f_item": 20, "reland": 3}, {"id": [sibu], "reland": [sibu, target]},
    )  # fmt: skip
    return one._replace(**changes)


def verdict(one: Shown) -> str:
    plain = json.loads(json.dumps(as_plain("amazon-beauty", "sasrec", [], [one])))
    assert Shown.from_plain(plain["users"][0]).to_plain() == plain["users"][0]
    return cases_part([plain], {}).findings[0].verdict.value


def test_the_paper_s_user_is_judged_by_both_lists_and_the_brand() -> None:
    assert verdict(shown()) == "holds"
    assert verdict(shown(ranks={"id": 9, "f_item": 20, "reland": 3})) == "does not hold"
    assert verdict(shown(ranks={"id": 300, "f_item": 2, "reland": 11})) == "does not hold"
    assert verdict(shown(target=Labelled("Mascara", "Sibu"))) == "does not hold"
    assert verdict(shown("somebody else")) == "not testable here"
    assert cases_part([], {"demo": "none is kept"}).findings[0].why == "none is kept"


def test_what_is_new_and_what_is_the_target_is_marked() -> None:
    part = cases_part([as_plain("amazon-beauty", "sasrec", [], [shown()])], {})
    said = dict(part.texts[0].rows)
    assert said["target"] == "> Mascara <b> [CoverGirl*]" and said["last items"] == "Cleanser [Sibu]"
    assert said["words of step 2 in the target"] == "mascara" and "borrowed from S" in said["rationale"]
    first, second = part.texts[1].rows
    assert first == ("1", "Cleanser [Sibu]", "Cleanser [Sibu]")
    assert second == ("2", "", "> Mascara <b> [CoverGirl*]")
    assert shared_words("Gentle soap; bath, soap.", "A SOAP for the Bath") == ["soap", "bath"]
