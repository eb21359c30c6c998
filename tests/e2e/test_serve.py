"""The Python API from a table to lists, on the stages of the main job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reland_jax import Reland, RelandError
from reland_jax.bundle import BY_HISTORIES, read_manifest
from reland_jax.config import Config
from reland_jax.storage import load_trained
from tests.e2e.conftest import Finished, merged


@pytest.mark.parametrize(
    "backbone", ["ease", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sasrec", "lightgcn"))]
)
def test_it_gives_the_lists_of_the_main_job(finished: Callable[[str], Finished], backbone: str) -> None:
    """In the same workdir nothing is trained again."""
    done = finished(backbone)
    summary = done.workdir / "train" / "reland-seed0" / "summary.json"
    before = summary.stat().st_mtime_ns
    model = Reland(done.config, workdir=done.workdir).fit()
    assert summary.stat().st_mtime_ns == before
    assert model.evaluate()["test"] == done.results["variants"]["reland"]["test"]
    lists = load_trained(done.workdir / "train" / "reland-seed0").lists
    users = model._fitted().interactions.ids.users[lists.user].tolist()
    mask = done.config.eval.mask_history
    found = model.recommend(users, lists.item.shape[1], as_measured=True, exclude_seen=mask).to_pandas()
    items = model._fitted().interactions.ids.items
    for user, expected in zip(users, lists.item, strict=True):
        assert found.item[found.user == user].tolist() == items[expected[expected > 0]].tolist()


def test_from_a_table_in_memory_without_a_workdir(settings: Callable[..., dict[str, Any]]) -> None:
    """`id` asks nobody and reads no text; what was read stays when the temporary folder is gone."""
    rng = np.random.default_rng(0)
    user, item = np.repeat(np.arange(30), 8), np.concatenate([rng.permutation(20)[:8] for _ in range(30)])
    table = pa.table({
        "user_id": [f"u{each}" for each in user], "item_id": [f"i{each}" for each in item],
        "timestamp": np.arange(len(user)),
    })  # fmt: skip
    titles = pa.table(
        {"item_id": [f"i{each}" for each in range(20)], "title": [f"Item {n}" for n in range(20)]}
    )
    config = Config.from_dict(merged(Reland("demo", backbone="ease")._config.to_dict(), settings()))
    model = Reland(config, variant="id").fit(table, items=titles)
    assert not Path(model._fitted().config.data.name).exists()
    rows = model.recommend("u3", 5).to_pylist()
    assert len(rows) == 5 and rows[0]["title"] == f"Item {rows[0]['item'][1:]}"
    assert not {row["item"] for row in rows} & {f"i{each}" for each in item[user == 3]}
    assert model._fitted().pool is None
    with pytest.raises(RelandError, match="'u99' is not one of the 30 users"):
        model.recommend("u99")


def test_a_variant_runs_the_stages_that_it_reads_alone(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """No seed users, no prompts, no texts for `id`; and a second fit finds all of it."""
    config = Config.from_dict(merged(Reland("demo", backbone="ease")._config.to_dict(), settings()))
    first = Reland(config, variant="id", workdir=tmp_path).fit()
    made = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert {"load", "split", "train"} <= made
    assert not made & {"encode_users", "sample_seeds", "build_pool", "encode_text", "assign"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("stamp.json")}
    again = Reland(config, variant="id", workdir=tmp_path).fit()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("stamp.json")}
    assert again.recommend("U000001") == first.recommend("U000001")


def test_what_was_trained_on_a_mesh_is_served_by_one_device(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Tables that were filled up for four devices have their own rows again."""
    changes = settings(
        mesh={"data": 1, "model": 4}, data={"demo_users": 61, "demo_items": 48, "max_length": 8}
    )
    config = Config.from_dict(merged(Reland("demo", backbone="lightgcn")._config.to_dict(), changes))
    model = Reland(config, variant="id").fit()
    interactions = model._fitted().interactions
    assert interactions.num_users % 4 or (interactions.num_items + 1) % 4
    model.save(tmp_path / "bundle")
    assert Reland.load(tmp_path / "bundle").recommend() == model.recommend()


def test_a_refitted_model_has_learned_from_everything(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Its weights are those of all interactions by NumPy; what was measured stays, and is told as such."""
    exact = settings(ease={"form": "exact"})
    config = Config.from_dict(merged(Reland("demo", backbone="ease")._config.to_dict(), exact))
    measured = Reland(config, variant="id", workdir=tmp_path / "work").fit()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("stamp.json")}
    refitted = Reland(config, variant="id", workdir=tmp_path / "work").fit(refit=True)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = refitted._fitted().interactions
    had = np.zeros((found.num_users, found.num_items))
    had[found.user, found.item - 1] = 1
    inverse = np.linalg.inv(had.T @ had + config.ease.regularisation * np.eye(found.num_items))
    expected = np.eye(found.num_items) - inverse / np.diag(inverse)
    weights = np.asarray(refitted._fitted().trained.params["weights"])[1:, 1:]
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
    assert refitted.evaluate() == measured.evaluate() and measured.evaluate()["test"]
    refitted.save(tmp_path / "bundle")
    told = read_manifest(tmp_path / "bundle")
    assert (told["model"], told["trained_on"]) == ("refitted", "all interactions")
    assert told["metrics"] == measured.evaluate() and "not of this one" in told["metrics_of"]
    loaded = Reland.load(tmp_path / "bundle")
    assert loaded.evaluate() == measured.evaluate() and loaded.recommend() == refitted.recommend()
    with pytest.raises(RelandError, match=r"nothing held out.*fit\(refit=False\)"):
        loaded.recommend(as_measured=True)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sasrec", "lightgcn"])
def test_a_refit_takes_the_epochs_of_the_measured_model(
    finished: Callable[[str], Finished], backbone: str
) -> None:
    done = finished(backbone)
    best = load_trained(done.workdir / "train" / "reland-seed0").summary.best_epoch
    model = Reland(done.config, workdir=done.workdir).fit(refit=True)
    assert model._fitted().trained.summary.epochs == best
    assert (
        model._fitted().splits.train.lengths().tolist()
        == np.bincount(model._fitted().interactions.user).tolist()
    )
    assert model.evaluate()["test"] == done.results["variants"]["reland"]["test"]
    assert len(model.recommend(k=3)) == 3 * model._fitted().interactions.num_users


@pytest.mark.slow
def test_new_items_and_newer_histories_without_training(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Texts are encoded and whitened as those of the known items: a copy of one is most like it."""
    config = Config.from_dict(merged(Reland("demo", backbone="sasrec")._config.to_dict(), settings()))
    Reland(config, variant="f_item").fit().save(tmp_path / "bundle")
    model = Reland.load(tmp_path / "bundle")
    found = model._fitted().interactions
    columns = {name: [str(column[1])] for name, column in found.item_features.items()}
    model.append_items({"item_id": ["new"], **columns})
    old, new = (np.asarray(model._fitted().items)[row] for row in (1, -1))
    np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)
    for wrong, message in (
        ({"item_id": ["new"]}, "known to the model already"),
        ({"item_id": ["newer"]}, "item 'newer' has no text"),
        ({"id": ["newer"]}, "there is no column 'item_id'"),
    ):
        with pytest.raises(RelandError, match=message):
            model.append_items(wrong)
    items = [str(name) for name in found.ids.items[1:4]]
    now = {"user_id": ["a", "a", "b"], "item_id": [items[0], "new", items[2]], "timestamp": [1, 2, 3]}
    model.refresh(now).save(tmp_path / "bundle")
    again = Reland.load(tmp_path / "bundle")
    told = again.recommend(["a", "b"], 5).drop_columns("score")
    asked = again.recommend_from_history({"a": [items[0], "new"], "b": [items[2]]}, 5).drop_columns("score")
    assert told == asked and len(told) == 10


@pytest.mark.slow
def test_users_of_sets_are_read_by_histories_where_the_validation_is_no_worse(tmp_path: Path) -> None:
    """Then an old user and a new one with its history get the same list."""
    settings = {"train.max_epochs": 2}
    model = Reland("demo", backbone="neumf", variant="id", workdir=tmp_path / "work", settings=settings).fit()
    found, trained = model.evaluate()[BY_HISTORIES], model.evaluate()["valid"]
    assert model._fitted().by_histories == (found["ndcg@10"] >= trained["ndcg@10"])
    read = Reland("demo", backbone="neumf", variant="id", workdir=tmp_path / "work", settings=settings)
    read.fit(by_histories=True).save(tmp_path / "bundle")
    read = Reland.load(tmp_path / "bundle")
    everything, ids = read._everything, np.array(["", *read.item_ids])
    histories = {user: ids[everything.row(row)].tolist() for row, user in enumerate(read.user_ids[:50])}
    old, new = read.recommend(list(histories)).to_pandas(), read.recommend_from_history(histories).to_pandas()
    assert (old.item == new.item).mean() > 0.99
    measured = np.asarray(read._reader.measured().users)
    assert np.abs(measured[:50] - read.vectors().users[:50]).max() > 1e-3
