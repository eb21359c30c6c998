"""Settings by data set and backbone."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.configs.reland import get_config
from experiments.grid.plan import plan
from reland_jax.config import ENCODERS, LINEAR, Config
from reland_jax.presets import BEST, preset, row_name
from reland_jax.types import RelandError


@pytest.mark.parametrize("backbone", [*ENCODERS, *LINEAR])
@pytest.mark.parametrize("dataset", ["demo", "lastfm"])
def test_commands_and_the_python_api_have_the_same(dataset: str, backbone: str) -> None:
    config = preset(dataset, backbone)
    assert Config.from_dict(get_config(f"{dataset},{backbone}").to_dict()) == config
    assert config.model.backbone == backbone and config.data.name == dataset
    assert (config.data.protocol, config.data.domain) == (
        ("fixed", "music") if dataset == "lastfm" else (config.data.protocol, "products")
    )


@pytest.mark.parametrize("backbone", BEST)
def test_a_best_row_stands_beside_that_of_the_paper(backbone: str) -> None:
    best, paper = preset("demo", f"{backbone}+best", {"train.max_epochs": 3}), preset("demo", backbone)
    assert best.model == paper.model and best.score != paper.score and best.train.max_epochs == 3
    assert [row_name(each) for each in (best, paper)] == [f"{backbone}+best", backbone]
    assert get_config(f"demo,{backbone}+best").score.to_dict() == best.to_dict()["score"]
    assert set(plan(["demo"], [f"{backbone}+best"], ["id"], 1)) == {("demo", f"{backbone}+best")}


def test_changes_by_dotted_name() -> None:
    config = preset(
        "demo", "sasrec", {"train.max_epochs": 3, "encoder.train.max_epochs": 2, "variants": ("id",)}
    )
    assert (config.train.max_epochs, config.encoder.train.max_epochs, config.variants) == (3, 2, ("id",))
    assert config.train.learning_rate == preset("demo", "sasrec").train.learning_rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.max_epoch": 3}, "did you mean 'max_epochs'"),
        ({"train": {"max_epochs": 3}}, "config.train is not a setting"),
        ({"train.max_epochs.more": 3}, "config.train.max_epochs.more is not a setting"),
        ({"train.max_epochs": 0}, "config.train.max_epochs=0"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        preset("demo", "sasrec", changes)
