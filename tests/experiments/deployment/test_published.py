"""The daily job over shards: the same vectors and seed users as in memory, restartable, in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.deployment import published
from experiments.deployment.encoders import Encoder, encoded, laid_out, reader_of, save_encoder
from experiments.deployment.features import nearest
from experiments.deployment.published import daily_job, publish
from experiments.deployment.tables import load_table
from reland_jax import artefacts
from reland_jax.artefacts import save_arrays
from reland_jax.config import ModelConfig, RetrievalConfig
from reland_jax.events import shop
from reland_jax.events.parts import catalogue_of
from reland_jax.events.shop import ShopSettings
from reland_jax.events.storing import save_events
from reland_jax.retrieval import learn_fold_in
from reland_jax.scale import StreamAssigner, attach_all
from reland_jax.seeds import add_texts
from reland_jax.storage import save_array
from reland_jax.types import Ragged, RelandError
from tests.toys import ragged

LOG = shop.generate(ShopSettings(users=30, items=20, rows=400)).events
CATALOGUE = catalogue_of(LOG)
ITEMS = np.random.default_rng(0).normal(size=(21, 6)).astype(np.float32)
DAY = "2024-01-10"
UNTIL = 1_704_844_800_000
SEEDS = np.array([3, 8, 20], np.int32)


def histories() -> Ragged:
    rng = np.random.default_rng(1)
    return ragged([rng.integers(1, 21, size=rng.integers(0, 9)).tolist() for _ in range(30)])


def encoder() -> Encoder:
    history = histories()
    users = np.random.default_rng(2).normal(size=(30, 5)).astype(np.float32)
    fold = learn_fold_in(users, history, np.random.default_rng(3).normal(size=(21, 4)).astype(np.float32))
    known = np.arange(21) % 7 > 0
    arrays = {f"fold/{name}": array for name, array in fold._asdict().items()}
    return Encoder(arrays | {"known": known}, ModelConfig(backbone="lightgcn"), 6, 1.0)


def vectors() -> np.ndarray:
    """What the loop in memory makes of the same histories."""
    history, made = histories(), encoder()
    rows = [[item for item in history.row(user).tolist() if made.known[item]] for user in range(30)]
    kept = ragged(rows)
    return add_texts(encoded(reader_of(made), laid_out(kept, 6)), kept, ITEMS, 1.0)


def stage(folder: Path, value: Any, save: Any) -> None:
    artefacts.make(folder, folder.name, compute=lambda: value, save=save, load=lambda _: value)


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """The artefacts of a deployment that the job reads, and two shards of histories."""
    workdir = tmp_path / "deployment"
    for part in ("encoder", "pool"):
        (workdir / part).mkdir(parents=True)
    stage(workdir / "catalogue", CATALOGUE, save_events)
    stage(workdir / "items", ITEMS, save_array)
    stage(workdir / "encoder" / "2024-01-04", encoder(), save_encoder)
    pool = {"user": SEEDS, "behaviour": vectors()[SEEDS], "rationales": np.eye(3, dtype=np.float32)}
    for day, row in (("2024-01-04", [0, 0, 0]), ("2024-01-09", [0, 1, 2]), ("2024-01-11", [2, 1, 0])):
        stage(workdir / "pool" / day, {name: array[row] for name, array in pool.items()}, save_arrays)
    for number, users in enumerate((range(20), range(20, 30))):
        write(tmp_path / "histories" / f"part-{number}.parquet", list(users))
    return workdir


def write(path: Path, users: list[int], time: int = UNTIL - 1) -> None:
    path.parent.mkdir(exist_ok=True)
    items = [LOG.ids.items[histories().row(user)].tolist() for user in users]
    columns = {"user_id": LOG.ids.users[users].tolist(), "items": pa.array(items, pa.list_(pa.string()))}
    pq.write_table(pa.table(columns | {"time": [time] * len(users)}), path)


def test_the_table_is_that_of_the_loop_in_memory(deployment: Path, tmp_path: Path) -> None:
    day = daily_job(deployment, DAY, tmp_path / "histories", tmp_path / "out")
    attach_all(StreamAssigner(day.job), lambda progress: None)
    table = publish(day, tmp_path / "out")
    seed, cosine = nearest(vectors(), SEEDS, vectors()[SEEDS], RetrievalConfig())
    np.testing.assert_array_equal(table.seed, seed)
    np.testing.assert_allclose(table.cosine, cosine, atol=1e-6)
    assert (seed == -1).any() and table.until == UNTIL and table.seed_users.tolist() == SEEDS.tolist()
    assert isinstance(np.asarray(load_table(tmp_path / "out" / "table").seed).base, np.memmap)


def test_started_again_it_makes_only_what_is_missing(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> tuple[int, Any]:
        day, told = daily_job(deployment, DAY, tmp_path / "histories", tmp_path / "out"), list[Path]()
        attach_all(StreamAssigner(day.job), lambda progress: told.append(progress.shard))
        return len(told), publish(day, tmp_path / "out")

    monkeypatch.setattr(published, "ROWS", 7)
    first = run()
    (tmp_path / "out" / "assigned" / "part-1.parquet").unlink()
    again, last = run(), run()
    assert (first[0], again[0], last[0]) == (2, 1, 0)
    np.testing.assert_array_equal(first[1].seed, last[1].seed)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".rows-")]


def test_clicks_of_the_day_itself_are_refused(deployment: Path, tmp_path: Path) -> None:
    write(tmp_path / "histories" / "part-2.parquet", [0], time=UNTIL)
    day = daily_job(deployment, DAY, tmp_path / "histories", tmp_path / "out")
    with pytest.raises(RelandError, match=r"row 0: the newest click is of 2024-01-10T00:00:00.000 UTC"):
        list(day.job.read.batches(tmp_path / "histories" / "part-2.parquet", None, 10))


def test_faults(deployment: Path, tmp_path: Path) -> None:
    given = (tmp_path / "histories", tmp_path / "out")
    with pytest.raises(RelandError, match="not a date such as 2024-01-14"):
        daily_job(deployment, "tomorrow", *given)
    with pytest.raises(RelandError, match="nothing was made for 2024-01-03 or a day before it"):
        daily_job(deployment, "2024-01-03", *given)
    pq.write_table(pa.table({"user_id": ["a"], "time": [0]}), tmp_path / "histories" / "part-3.parquet")
    with pytest.raises(RelandError, match="no column 'items'"):
        attach_all(StreamAssigner(daily_job(deployment, DAY, *given).job), lambda progress: None)


@pytest.mark.slow
@pytest.mark.optional("ray")
def test_ray_makes_the_same(deployment: Path, tmp_path: Path) -> None:
    import ray

    from reland_jax.scale import attach_on_ray

    day = daily_job(deployment, DAY, tmp_path / "histories", tmp_path / "out")
    plain = daily_job(deployment, DAY, tmp_path / "histories", tmp_path / "plain")
    attach_all(StreamAssigner(plain.job), lambda progress: None)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    try:
        assert attach_on_ray(day.job, 2, 1, lambda shard, users: None) == 30
    finally:
        ray.shutdown()
    np.testing.assert_array_equal(
        publish(day, tmp_path / "out").seed, publish(plain, tmp_path / "plain").seed
    )
