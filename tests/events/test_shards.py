"""Logs in shards: counted as a whole log is, encoded alike, and streamed once per epoch in any order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reland_jax.data.sources.raw import Tokens
from reland_jax.events import encode, fit, gather, shards, shop
from reland_jax.events.contract import Events
from reland_jax.events.encoding import Batch
from reland_jax.events.shards import ShardBatches, fit_shards, read_shards, write_encoded
from reland_jax.events.shop import ShopSettings
from reland_jax.strings import as_strings
from reland_jax.types import RelandError
from tests.events.toys import SCHEMA, read_toy, write_log

LOG = shop.generate(ShopSettings(users=60, items=40, rows=900)).events
PARTS = [LOG.take(rows) for rows in np.array_split(np.arange(LOG.num_rows), 5)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 50)


def written(folder: Path, parts: list[Events] = PARTS) -> list[Path]:
    encoding = fit_shards(iter(PARTS))
    paths = [folder / f"part-{number}.parquet" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_encoded(encoding, part, path)
    return paths


def keys(batch: Batch) -> list[tuple[float, ...]]:
    """Every row of a batch that counts, as numbers."""
    columns = (
        batch.user[:, None],
        batch.item[:, None],
        batch.categorical,
        batch.numeric,
        *batch.multi,
        batch.labels,
    )
    rows = np.concatenate([np.asarray(each, np.float64) for each in columns], 1)
    return [tuple(row) for row, weight in zip(rows.tolist(), batch.weight, strict=True) if weight]


def whole() -> Batch:
    encoding = fit(LOG, np.arange(LOG.num_rows))
    return gather(encode(encoding, LOG), np.arange(LOG.num_rows), np.ones(LOG.num_rows, np.float32))


def test_what_is_learnt_of_parts_is_what_is_learnt_of_the_whole() -> None:
    together, parts = fit(LOG, np.arange(LOG.num_rows)), fit_shards(iter(PARTS))
    assert together.lengths == parts.lengths and list(together.known) == list(parts.known)
    for name, known in together.known.items():
        assert known.tolist() == parts.known[name].tolist(), name
    for name, scale in together.scales.items():
        np.testing.assert_allclose(parts.scales[name][:2], scale[:2], rtol=1e-12)


def test_missing_numbers_and_values_of_one_part_alone(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    parts = [events.take(rows) for rows in (np.arange(2), np.arange(2, 3), np.arange(3, 6))]
    for min_count in (1, 2):
        together = fit(events, np.arange(6), min_count=min_count)
        found = fit_shards(iter(parts), min_count=min_count)
        assert {name: each.tolist() for name, each in found.known.items()} == {
            name: each.tolist() for name, each in together.known.items()
        }
        np.testing.assert_allclose(
            [each[:2] for each in found.scales.values()], [each[:2] for each in together.scales.values()],
            rtol=1e-12,
        )  # fmt: skip


def test_files_are_read_one_by_one(tmp_path: Path) -> None:
    log = write_log(tmp_path / "atomic")
    lines = log.read_text().replace(":token", "").replace(":float", "").replace("\t", ",").splitlines()
    for number, rows in enumerate((lines[1:3], lines[3:])):
        (tmp_path / f"part-{number}.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    for side in ("user", "item"):
        text = (tmp_path / "atomic" / f"toy.{side}").read_text()
        for kind in (":token_seq", ":token", ":float"):
            text = text.replace(kind, "")
        (tmp_path / f"{side}.csv").write_text(text.replace("\t", ","))
    events = read_toy(tmp_path / "atomic")
    parts = list(
        read_shards(
            [tmp_path / "part-0.csv", tmp_path / "part-1.csv"],
            SCHEMA,
            [tmp_path / "user.csv"],
            [tmp_path / "item.csv"],
        )
    )
    assert sum(part.num_rows for part in parts) == events.num_rows
    names = [name for part in parts for name in part.ids.users[part.user].tolist()]
    assert names == events.ids.users[events.user].tolist()
    found, together = fit_shards(iter(parts), min_count=1), fit(events, np.arange(6), min_count=1)
    assert found.known["tags"].tolist() == together.known["tags"].tolist()


def test_an_epoch_has_every_row_once_whatever_the_sizes(tmp_path: Path) -> None:
    paths, rows = written(tmp_path), sorted(keys(whole()))
    for size, window in ((64, 3), (900, 1), (7, 100)):
        batches = ShardBatches(paths, size, seed=1, window=window)
        for epoch in (0, 1):
            steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
            found = [batches.at(step) for step in steps]
            assert {len(batch.user) for batch in found} == {size}
            assert sorted(key for batch in found for key in keys(batch)) == rows


def test_in_the_order_of_the_files_without_a_seed(tmp_path: Path) -> None:
    batches = ShardBatches(written(tmp_path), 64, seed=None, window=2)
    steps = range(batches.steps_per_epoch)
    assert [key for step in steps for key in keys(batches.at(step))] == keys(whole())
    assert keys(batches.at(batches.steps_per_epoch)) == keys(batches.at(0))


def test_a_step_is_a_function_of_the_seed_and_the_step(tmp_path: Path) -> None:
    paths = written(tmp_path)
    first = ShardBatches(paths, 64, seed=3, window=4)
    told = [keys(first.at(step)) for step in range(40)]
    again = ShardBatches(paths, 64, seed=3, window=4)
    assert [keys(again.at(step)) for step in range(17, 40)] == told[17:]
    assert keys(again.at(2)) == told[2]
    assert keys(ShardBatches(paths, 64, seed=4, window=4).at(0)) != told[0]
    assert told[0] != told[first.steps_per_epoch]


def test_processes_read_shards_of_their_own_and_every_row(tmp_path: Path) -> None:
    paths = written(tmp_path)
    parts = [ShardBatches(paths, 64, seed=0, window=2, process=each, processes=2) for each in (0, 1)]
    steps = range(parts[0].steps_per_epoch)
    assert parts[0].steps_per_epoch == parts[1].steps_per_epoch == -(-540 // 32)
    found = [[key for step in steps for key in keys(part.at(step))] for part in parts]
    assert sorted(found[0] + found[1]) == sorted(keys(whole()))
    assert len(found[0]) == 3 * 180 and parts[1].at(steps[-1]).weight.sum() == 0
    opened = {block.path for block in parts[1]._parts[1]}
    assert opened == set(paths[1::2])


def test_a_batch_is_mixed_from_the_blocks_of_a_window(tmp_path: Path) -> None:
    """Of rows in the order of time, a batch of the unmixed log has neighbours; a mixed one has a window."""
    number = LOG._replace(features={**LOG.features, "position": np.arange(900.0)})
    path = tmp_path / "numbered.parquet"
    write_encoded(fit(number, np.arange(900)), number, path)
    spread = {}
    for window in (1, 6, 18):
        batches = ShardBatches([path], 50, seed=0, window=window)
        place = batches.at(0).numeric.shape[1] - 1
        means = [batches.at(step).numeric[:, place].mean() for step in range(batches.steps_per_epoch)]
        spread[window] = np.std(means)
    assert spread[1] > 1.5 * spread[6] and spread[6] > 1.5 * spread[18]
    assert spread[18] < 1.5 / np.sqrt(50)  # all blocks in one window: a sample of all rows


def test_rows_of_tables_by_the_ids_of_the_whole(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    part = events.take(np.array([0, 3, 5]))
    ids = events.ids._replace(users=as_strings(["d", "b"]), items=as_strings(["", "z", "y", "x"]))
    write_encoded(fit(events, np.arange(6)), part, tmp_path / "part.parquet", ids)
    batch = ShardBatches([tmp_path / "part.parquet"], 3, seed=None).at(0)
    assert batch.user.tolist() == [
        [-1, 0][name == "d"] if name != "b" else 1 for name in events.ids.users[part.user]
    ]
    assert ids.items[batch.item].tolist() == events.ids.items[part.item].tolist()


def test_faults(tmp_path: Path) -> None:
    paths = written(tmp_path)
    with pytest.raises(RelandError, match="6 processes: each needs at least one with rows"):
        ShardBatches(paths, 60, processes=6)
    with pytest.raises(RelandError, match="a multiple of the 2 processes"):
        ShardBatches(paths, 61, processes=2)
    with pytest.raises(RelandError, match="no such file"):
        ShardBatches([tmp_path / "gone.parquet"], 8)
    with pytest.raises(RelandError, match="no part of the log"):
        fit_shards(iter([]))
    other = PARTS[1]._replace(schema=SCHEMA, scenario=Tokens(PARTS[1].scenario.code, PARTS[1].scenario.name))
    with pytest.raises(RelandError, match="different schemas"):
        shards.seen(PARTS[0], np.arange(5)).joined(
            shards.seen(LOG, np.arange(5))._replace(schema=other.schema)
        )
    batches = ShardBatches(paths, 60)
    paths[0].write_bytes(paths[0].read_bytes()[:-50])
    with pytest.raises(RelandError, match="part-0.parquet: not a readable Parquet file"):
        for step in range(batches.steps_per_epoch):
            batches.at(step)


_PEAK = """
import resource, sys
from pathlib import Path
from reland_jax.events import shop
from reland_jax.events.shards import ShardBatches, fit_shards, write_encoded
folder, count = Path(sys.argv[1]), int(sys.argv[2])
def part(number):
    return shop.generate(shop.ShopSettings(users=2000, items=500, rows=60_000, seed=number % 3)).events
encoding = fit_shards(part(number) for number in range(count))
paths = [folder / f"{number}.parquet" for number in range(count)]
for number, path in enumerate(paths):
    write_encoded(encoding, part(number), path)
batches = ShardBatches(paths, 1024, window=4)
rows = sum(float(batches.at(step).weight.sum()) for step in range(batches.steps_per_epoch))
print(int(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    peaks = []
    for count in (3, 24):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(folder), str(count)], capture_output=True, text=True, check=True
        )
        rows, peak = map(int, done.stdout.split())
        assert rows == count * 60_000
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 24_000  # kB; the rows of the larger log are 1.4 million, at 100 bytes each
