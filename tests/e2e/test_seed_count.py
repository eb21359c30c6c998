"""Choosing the number of seed users on tiny demo data: curve, costs, trainings, a second run, refusals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.texts import seed_pool
from experiments.configs.reland import get_config
from experiments.seed_count import run
from experiments.seed_counts import curve, training
from experiments.seed_counts.options import Options
from reland_jax.artefacts import load_arrays
from reland_jax.config import Config, DataConfig, PoolConfig
from reland_jax.data import load_interactions, split
from reland_jax.stages import ASSIGN, BUILD_POOL
from reland_jax.storage import load_splits
from reland_jax.types import RelandError
from tests.e2e.conftest import merged
from tests.toys import ragged

FRACTIONS = (0.1, 0.3, 1.0)


@pytest.fixture
def config(settings: Callable[..., dict[str, Any]]) -> Config:
    """The demo at its smallest."""
    changes = settings(train={"max_epochs": 2}, data={"min_interactions": 2})
    return Config.from_dict(merged(get_config("demo,lightgcn").to_dict(), changes))


@pytest.mark.slow
def test_curve_then_trainings_then_nothing_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(config, tmp_path, Options(FRACTIONS, repeats=2))
    points = first["repeats"][1]
    users = first["users"]
    assert [point["seeds"] for point in points] == [round(share * users) for share in FRACTIONS]
    assert points[-1]["covered"] == pytest.approx(1) and points[-1]["others"] is None
    assert all(
        point["covered"] == pytest.approx(point["bought"] + (1 - point["bought"]) * point["others"])
        for point in points[:-1]
    )
    counted = load_arrays(tmp_path / "prompt_tokens")
    everyone = {number: tokens for number, tokens in zip(counted["number"], counted["tokens"], strict=True)}
    assert points[-1]["prompt_tokens"] == sum(everyone.values())
    assert points[-1]["response_tokens"] == curve.ASSUMED_ANSWER * len(everyone)
    price = (0.5 * points[-1]["prompt_tokens"] + 1.5 * points[-1]["response_tokens"]) / 1e6
    assert points[-1]["price"] == pytest.approx(price)

    options = Options(FRACTIONS, repeats=2, validate=True, seeds=1)
    second = run(config, tmp_path, options, tmp_path / "figures.json")
    assert second["repeats"] == first["repeats"]
    sizes = second["validation"]["sizes"]
    assert [size["seeds"] for size in sizes] == [point["seeds"] for point in points]
    assert [size["covered"] for size in sizes] == pytest.approx(
        [point["covered"] for point in second["repeats"][0]]
    )
    assert "test" not in sizes[0] and "test" not in second["validation"]["f_item"]
    gain = sizes[0]["valid"]["ndcg@10"]
    reference = np.mean(second["validation"]["f_item"]["valid"]["ndcg@10"])
    assert gain["difference"] == pytest.approx(np.mean(gain["values"]) - reference)
    assert (tmp_path / "figures.svg").read_text().startswith("<?xml")
    assert "<- recommended" in capsys.readouterr().out

    monkeypatch.setattr("reland_jax.stages.train.fit_together", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(curve, "choose_seeds", lambda *_: pytest.fail("sampled again"))
    again = run(config, tmp_path, options._replace(test=True))
    assert again["validation"]["sizes"][1]["valid"] == sizes[1]["valid"]
    assert "test" in again["validation"]["sizes"][0]


def test_a_file_gives_only_its_own_users_and_ends_the_sizes(config: Config, tmp_path: Path) -> None:
    encoded = curve.encode(config, tmp_path)
    users = encoded.interactions.ids.users
    path = tmp_path / "pool.jsonl"
    written = users[::3].tolist()
    lines = [json.dumps({"user_id": user, "response": "Step 1: a.\nStep 2: b " + user}) for user in written]
    path.write_text("\n".join(lines))
    pool = dataclasses.replace(config.pool, provider="file", path=str(path), held_out=100)
    config = dataclasses.replace(config, pool=pool)
    asked = curve.prompts(encoded, config, tmp_path, 0)
    assert asked.answer == pytest.approx(np.mean([-(-len(json.loads(x)["response"]) // 3) for x in lines]))
    sizes = training.prepare(config, tmp_path, Options(FRACTIONS), encoded, asked)
    chosen = [set(users[size.made[BUILD_POOL].pool.seeds.user].tolist()) for size in sizes]
    wanted = round(0.1 * len(users))
    assert [len(each) for each in chosen] == [wanted, round(0.3 * len(users)), len(written)]
    shared = {"load", "split", "encode_users", "text_cache"}
    assert not shared & {path.name for path in (tmp_path / "fractions/10").iterdir()}
    assert chosen[0] <= set(written) and chosen[-1] == set(written)
    near = config.fusion.neighbours * wanted / round(config.seeds.fraction * len(users))
    assert sizes[0].facts["neighbours"] == min(wanted, max(1, round(near)))
    cosine = sizes[0].made[ASSIGN].cosine[:, 0]
    assert sizes[0].facts["covered"] == pytest.approx(float(cosine.mean()), abs=1e-6)


def fixed_data(folder: Path) -> Path:
    """Four users with a fixed split and no validation part; user d has one test item."""
    rows = [(user, f"i{item}", "train") for user in "abcd" for item in range(4)]
    rows += [(user, f"i{item}", "test") for user in "abc" for item in (5, 6)] + [("d", "i5", "test")]
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\tsplit:token", *("\t".join(row) for row in rows)]
    (folder / "small.inter").write_text("\n".join(lines) + "\n")
    (folder / "small.item").write_text("item_id:token\ttitle:token_seq\n" + "i0\tone\n")
    return folder / "small.inter"


def as_encoded(data: DataConfig) -> curve.Encoded:
    """Loaded and split, with vectors that say nothing."""
    interactions = load_interactions(data)
    splits = split(interactions, "fixed", data.validation_from)
    return curve.Encoded(interactions, splits, np.zeros((4, 2)), "")


def test_texts_of_all_users_are_cut_down_to_those_of_seed_users(config: Config, tmp_path: Path) -> None:
    """The sampling chooses them, each keeps its own text, and training sees as large a share of them."""
    with pytest.raises(RelandError, match="none is given"):
        seed_pool(config, tmp_path)
    users = load_interactions(config.data).ids.users
    path = tmp_path / "all.jsonl"
    lines = [json.dumps({"user_id": str(each), "text": f"Likes {each}."}) for each in users]
    path.write_text("\n".join(lines))
    pool = dataclasses.replace(config.pool, provider="file", path=str(path))
    found = seed_pool(dataclasses.replace(config, pool=pool), tmp_path)
    kept = [json.loads(line) for line in Path(found.pool.path_to_read()).read_text().splitlines()]
    chosen = users[load_arrays(next(tmp_path.glob("*/*-0")))["user"]].tolist()
    assert len(kept) == round(config.seeds.fraction * len(users))
    assert {each["user_id"] for each in kept} == set(chosen)
    assert all(each["text"] == f"Likes {each['user_id']}." for each in kept)
    assert found.fusion.neighbours == max(1, round(config.fusion.neighbours * len(users) / 22_363))


def test_what_would_pay_or_leak_is_refused(config: Config, tmp_path: Path) -> None:
    data = DataConfig(name=str(fixed_data(tmp_path / "raw")), protocol="fixed", min_interactions=0)
    with pytest.raises(RelandError, match="'openai' would ask for rationales at every fraction"):
        training.check(Config(pool=PoolConfig(provider="openai")), as_encoded(data))
    file = Config(data=data, pool=PoolConfig(provider="file", path="pool.jsonl"))
    with pytest.raises(RelandError, match="say --config.data.validation_from=test"):
        training.check(file, as_encoded(data))
    fresh = dataclasses.replace(data, validation_from="test")
    training.check(dataclasses.replace(file, data=fresh), as_encoded(fresh))
    alone = as_encoded(data)
    alone = alone._replace(splits=alone.splits._replace(test=ragged([[1], [], [], []])))
    with pytest.raises(RelandError, match="2 users need a test item; 1 has one"):
        training.check(Config(data=data), alone)
    with pytest.raises(RelandError, match="at least three shares"):
        run(config, tmp_path, Options((0.1, 1.0)))


def test_a_file_whose_writer_saw_held_out_items_is_of_no_use(config: Config, tmp_path: Path) -> None:
    encoded = curve.encode(config, tmp_path)
    user = str(encoded.interactions.ids.users[0])
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps({"user_id": user, "text": "Likes things."}))
    pool = dataclasses.replace(config.pool, provider="file", path=str(path), held_out=0)
    config = dataclasses.replace(config, pool=pool)
    asked = curve.prompts(encoded, config, tmp_path, 100)
    assert load_splits(tmp_path / "split").test.lengths()[0] > 0
    with pytest.raises(RelandError, match="no user of the data has a rationale there that may be used"):
        training.prepare(config, tmp_path, Options(FRACTIONS), encoded, asked)
