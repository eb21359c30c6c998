"""The stored pool: the same bytes for the same pool, and nothing damaged is ever read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.pool.folder import (
    MANIFEST_FILE,
    POOL_FILE,
    PoolSummary,
    load_pool,
    pool_summary,
    read_manifest,
    save_pool,
)
from reland_jax.records import to_plain
from reland_jax.types import IdMap, Rationale, ReasoningPool, RelandError, SeedSet

USERS = np.asarray(["ann", "bob", "cy", "dé"])
IDS = IdMap(USERS, np.asarray([""]))
PROVENANCE = {
    "provider": "batch",
    "prompt_version": "1",
    "created": "2026-01-02T03:04:05+00:00",
    "domain": "movies",
}


def pool(**changes: Any) -> ReasoningPool:
    seeds = SeedSet(
        np.asarray([2, 0, 3], np.int32), np.asarray([1, 0, -1], np.int32), np.asarray([0, 1, 0], np.int8)
    )
    rationales = [
        Rationale(
            "a", "b; c", "Step 1: a\nStep 2: b; c", "f" * 64, "llm-1", 10, 4, "2026-01-01T00:00:00+00:00"
        ),
        Rationale("", "ü 😀", "raw", "e" * 64, "llm-2", 20, 6, ""),
        Rationale("d", "e", "raw"),
    ]
    behaviour = np.asarray([[0.1, -2.5], [3e-20, 7], [0, 1e10]], np.float32)
    return ReasoningPool(seeds, behaviour, rationales)._replace(**changes)


def save(folder: Path, **changes: Any) -> Path:
    save_pool(pool(**changes), USERS, folder, provenance=PROVENANCE)
    return folder


def test_round_trip(tmp_path: Path) -> None:
    loaded = load_pool(save(tmp_path / "pool"), IDS)
    for got, expected in zip(loaded.seeds, pool().seeds, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    np.testing.assert_array_equal(loaded.behaviour, pool().behaviour)
    assert loaded.behaviour.dtype == np.float32
    assert list(loaded.rationales) == list(pool().rationales)


def test_the_same_pool_is_the_same_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "first")
    second = tmp_path / "second"
    save_pool(load_pool(first, IDS), USERS, second, provenance=PROVENANCE)
    for name in (POOL_FILE, MANIFEST_FILE):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_external_ids_are_stored_and_looked_up_again(tmp_path: Path) -> None:
    other = IdMap(USERS[::-1].copy(), IDS.items)
    loaded = load_pool(save(tmp_path / "pool"), other)
    np.testing.assert_array_equal(loaded.seeds.user, [1, 3, 0])


def test_manifest_says_what_it_is(tmp_path: Path) -> None:
    manifest = read_manifest(save(tmp_path / "pool"))
    assert manifest["created"] == PROVENANCE["created"] and manifest["provider"] == "batch"
    assert manifest["prompt_version"] == "1" and manifest["provenance"]["domain"] == "movies"
    assert (manifest["rows"], manifest["dim"]) == (3, 2)
    assert manifest["summary"] == to_plain(pool_summary(pool()))


def test_saving_again_replaces_the_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = save(tmp_path / "pool")
    (folder / "stray").write_text("x")
    fewer = pool(rationales=[Rationale("x", "y", "z")] * 3)
    save_pool(fewer, USERS, folder, provenance={})
    assert load_pool(folder, IDS).rationales[0].step2 == "y"
    assert sorted(path.name for path in folder.iterdir()) == sorted([POOL_FILE, MANIFEST_FILE])
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_a_failed_save_keeps_the_old_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "pool")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reland_jax.pool.folder._manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
    assert len(load_pool(folder, IDS).rationales) == 3


def test_summary_counts_a_shared_prompt_once() -> None:
    shared = Rationale("a", "b", "c", "f" * 64, "llm-1", 10, 4)
    heuristic = Rationale("a", "b", "c", model="heuristic")
    assert pool_summary(pool(rationales=[shared, shared, heuristic])) == PoolSummary(
        seeds=3,
        how={"representative": 2, "important": 1},
        llm_inferences=1,
        prompt_tokens=10,
        response_tokens=4,
        tokens_known=True,
        models={"heuristic": 1, "llm-1": 2},
    )


def test_summary_without_tokens() -> None:
    from_file = pool_summary(pool(rationales=[Rationale("a", "b", "c", model="file:x")] * 3))
    assert (from_file.llm_inferences, from_file.prompt_tokens, from_file.tokens_known) == (3, 0, False)
    offline = pool_summary(pool(rationales=[Rationale("a", "b", "c", model="heuristic")] * 3))
    assert (offline.llm_inferences, offline.tokens_known) == (0, True)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_table_is_refused(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path / "pool") / POOL_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RelandError, match="pool.parquet: truncated or edited: its SHA-256 is"):
        load_pool(path.parent, IDS)


def test_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "pool") / POOL_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RelandError, match="truncated or edited"):
        load_pool(path.parent, IDS)


def edit(folder: Path, **values: Any) -> None:
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value != "gone"}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 2}, "format version 2, this program reads 1; update"),
        ({"format_version": "1"}, "format version '1', this program reads 1"),
        ({"format_version": 0}, "format version 0, this program reads 1"),
        ({"format": "other"}, "not the manifest of a reasoning pool"),
        ({"rows": 4}, "not 4 rows of width 2"),
        ({"dim": 3}, "not 3 rows of width 3"),
        ({"file": "gone"}, "lacks 'file'"),
        ({"rows": "gone"}, "lacks 'rows'"),
        ({"file": {"sha256": None}}, "truncated or edited"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    folder = save(tmp_path / "pool")
    edit(folder, **values)
    with pytest.raises(RelandError, match=message):
        load_pool(folder, IDS)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = save(tmp_path / "pool")
    pq.write_table(pa.table({"user_id": ["ann"]}), folder / POOL_FILE)
    edit(folder, file={"sha256": hashlib.sha256((folder / POOL_FILE).read_bytes()).hexdigest()})
    with pytest.raises(RelandError, match=r"its columns \['user_id'\] are not those of format 1"):
        load_pool(folder, IDS)


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="no reasoning pool here"):
        load_pool(tmp_path / "absent", IDS)
    folder = save(tmp_path / "pool")
    (folder / POOL_FILE).unlink()
    with pytest.raises(RelandError, match="the pool's table is missing"):
        load_pool(folder, IDS)
    (folder / MANIFEST_FILE).write_text('{"format": ')
    with pytest.raises(RelandError, match="the manifest is damaged"):
        load_pool(folder, IDS)


def test_unknown_users_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "pool")
    with pytest.raises(RelandError, match="2 of 3 seed users are not in the data, the first is 'cy'"):
        load_pool(folder, IdMap(np.asarray(["ann", "bob"]), IDS.items))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rationales": []}, "does not fit together"),
        ({"behaviour": np.zeros((3,), np.float32)}, "does not fit together"),
        ({"behaviour": np.full((3, 2), np.nan, np.float32)}, "not finite"),
        ({"seeds": pool().seeds._replace(user=np.asarray([1, 1, 2]))}, "distinct dense ids below 4"),
        ({"seeds": pool().seeds._replace(user=np.asarray([1, 2, 4]))}, "distinct dense ids below 4"),
    ],
)
def test_a_pool_that_makes_no_sense_is_not_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RelandError, match=message):
        save(tmp_path / "pool", **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_pool_is_not_written(tmp_path: Path) -> None:
    none = np.zeros(0, np.int32)
    empty = ReasoningPool(SeedSet(none, none, none), np.zeros((0, 2), np.float32), [])
    with pytest.raises(RelandError, match="the pool is empty"):
        save_pool(empty, USERS, tmp_path / "pool", provenance={})
