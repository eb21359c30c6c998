"""A log gone through file by file is what it is in memory: ids, features, counts, clicks and encoded rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from reland_jax import events
from reland_jax.config import DataConfig
from reland_jax.events import Events, Feature, Label, Schema, streamed
from reland_jax.events.levels import activity_of
from reland_jax.events.shards import ShardBatches
from reland_jax.events.streamed import Division, Files, Streamed
from reland_jax.types import RelandError

SCHEMA = Schema(
    "user", "item", "time", (Label("click"), Label("buy", given="click")),
    (
        Feature("age", "categorical", "user"),
        Feature("price", "numeric", "item"),
        Feature("hour", "categorical", "context"),
        Feature("tags", "multi", "context"),
        Feature("wait", "numeric", "context"),
    ),
    "tab", "seconds",
)  # fmt: skip
START, DAY = 1_704_067_200, 86_400


def write_files(folder: Path) -> DataConfig:
    """Seven days in four files, whose days and values overlap; tables of users and items beside them."""
    rng, rows = np.random.default_rng(0), []
    for number in range(420):
        day = number // 60
        click = rng.integers(2)
        tags = " ".join(f"t{each}" for each in rng.integers(8, size=rng.integers(4)))
        time = START + DAY * day + int(rng.integers(DAY))
        rows.append(
            f"u{rng.integers(20)},i{rng.integers(15)},{time},{click},{rng.integers(2)},"
            f"h{rng.integers(3 + day)},{tags},{rng.normal():.3f},s{rng.integers(1 + day)}"
        )
    folder.mkdir()
    header = "user,item,time,click,buy,hour,tags,wait,tab"
    for number, some in enumerate(np.array_split(rows, [90, 100, 300])):
        (folder / f"part-{number}.csv").write_text("\n".join([header, *some]) + "\n")
    users = [f"u{each},{'' if each == 3 else 20 + each % 4}" for each in range(20)]
    (folder.parent / "users.csv").write_text("\n".join(["user,age", *users]) + "\n")
    items = [f"i{each},{each / 2}" for each in range(15)]
    (folder.parent / "items.csv").write_text("\n".join(["item,price", *items]) + "\n")
    tables = {f"{side}_table": str(folder.parent / f"{side}s.csv") for side in ("user", "item")}
    return DataConfig(name=str(folder), **tables)


def read_streamed(config: DataConfig, warm_days: int = 0) -> tuple[Files, Division, Events, Streamed]:
    files = streamed.files_of(config)
    found = streamed.survey(files, SCHEMA)
    days = events.days_between(found.first, found.last, 1, 2)
    division = streamed.division_of(days, found, warm_days)
    whole = streamed.catalogue(files, SCHEMA, found.ids)
    return files, division, *streamed.go_through(files, whole, division, ())


@pytest.mark.parametrize("warm_days", [0, 2])
def test_is_what_it_is_in_memory(tmp_path: Path, warm_days: int) -> None:
    config = write_files(tmp_path / "log")
    memory = events.read(config, SCHEMA)
    files, division, held, rest = read_streamed(config, warm_days)
    assert [path.name for path in files.log] == [f"part-{number}.csv" for number in range(4)]
    split = events.split_days(memory, events.last_days(memory, 1, 2))
    first = memory.day()[split.train] < memory.day()[0] + warm_days
    warm, train = split.train[first], split.train[~first]
    for mine, theirs in zip(held.ids, memory.ids, strict=True):
        assert mine.tolist() == theirs.tolist()
    kept = np.concatenate([split.valid, split.test])
    _, _, valid, test = division.rows(held)
    assert len(valid) == len(split.valid) and len(test) == len(split.test)
    encoding = events.fit(memory, train)
    trees = (jax.tree.leaves(events.encode(encoding, log)) for log in (held, memory.take(kept)))
    for one, other in zip(*trees, strict=True):
        np.testing.assert_array_equal(one, other)
    known = rest.training
    assert known.seen is not None
    mine = known.seen.encoding()
    assert {name: each.tolist() for name, each in mine.known.items()} == {
        name: each.tolist() for name, each in encoding.known.items()
    }
    assert mine.lengths == encoding.lengths
    assert mine.scales["wait"].mean == pytest.approx(encoding.scales["wait"].mean)
    for one, other in zip((known.activity, known.impressions), activity_of(memory, train), strict=True):
        np.testing.assert_array_equal(one, other)
    labels = zip(memory.labels["click"][train].tolist(), memory.labels["buy"][train].tolist(), strict=True)
    assert known.labels == Counter(labels)
    behaviour = warm if warm_days else train
    clicked = behaviour[memory.labels["click"][behaviour] == 1]
    for one, column in zip(known.clicks, (memory.user, memory.item, memory.time), strict=True):
        np.testing.assert_array_equal(one, column[clicked])


def test_shards_have_the_training_rows(tmp_path: Path) -> None:
    config = write_files(tmp_path / "log")
    memory = events.read(config, SCHEMA)
    _, _, held, rest = read_streamed(config)
    train = events.split_days(memory, events.last_days(memory, 1, 2)).train
    encoding = events.fit(memory, train)
    streamed.write_training(rest, encoding, held.ids, tmp_path)
    paths = sorted(tmp_path.glob("*.parquet"))
    assert len(paths) == 3, "the last file has no training rows"
    found = ShardBatches(paths, len(train), None).at(0)
    expected = events.gather(events.encode(encoding, memory), train, np.ones(len(train), np.float32))

    def in_order(batch: events.Batch) -> np.ndarray:
        columns = [batch.user[:, None], batch.item[:, None], batch.categorical, batch.numeric, *batch.multi]
        rows = np.concatenate([np.asarray(each, np.float64) for each in (*columns, batch.labels)], 1)
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(in_order(found), in_order(expected))


def test_faults(tmp_path: Path) -> None:
    config = write_files(tmp_path / "log")
    with pytest.raises(RelandError, match="warm_days=4 leaves nothing to train on: training has 4 days"):
        read_streamed(config, 4)
    with pytest.raises(RelandError, match="read as demo; a log that is streamed is a file or a folder"):
        streamed.files_of(DataConfig(name="demo"))
