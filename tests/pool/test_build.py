"""Building the pool: only training items are shown, no leaked and no unreadable seed gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import DataConfig, PoolConfig
from reland_jax.pool import (
    AwaitingResponses,
    build_pool,
    load_pool,
    pool_provenance,
    pool_summary,
    save_pool,
    written_by_counts,
)
from reland_jax.pool.pool_file import UNKNOWN_CLUSTER
from reland_jax.types import IMPORTANT, IdMap, Interactions, Ragged, RelandError, SeedSet, Splits

USERS, ITEMS, DIM = 6, 20, 3
PRODUCTS = DataConfig()
USER_IDS = np.asarray([f"secret-user-{user}" for user in range(USERS)], object)


def ragged(rows: list[list[int]]) -> Ragged:
    lengths = [len(row) for row in rows]
    return Ragged(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.asarray(sum(rows, []), np.int32)
    )


def world() -> tuple[Interactions, Splits, np.ndarray]:
    """Six users; user u trains on 1 + u .. 5 + u, the next item is for validation, the one after for test.

    User 4 has one validation and three test items; user 5 has items without any text.
    """
    train = [list(range(1 + user, 6 + user)) for user in range(USERS)]
    valid = [[6 + user] for user in range(USERS)]
    test = [[7 + user] for user in range(USERS)]
    train[5], test[4] = [19, 20], [11, 12, 13]
    titles = np.asarray(["", *(f"Title{item}" for item in range(1, ITEMS - 1)), "", ""], object)
    brands = np.asarray(["", *("Acme" if item % 2 else "" for item in range(1, ITEMS - 1)), "", ""], object)
    ids = IdMap(USER_IDS, np.asarray(["", *(f"i{item}" for item in range(1, ITEMS + 1))], object))
    nothing = np.zeros(0)
    interactions = Interactions(nothing, nothing, nothing, ids, {"title": titles, "brand": brands}, {})
    splits = Splits(ragged(train), ragged(valid), ragged(test), ITEMS, "ratio")
    return interactions, splits, np.arange(USERS * DIM, dtype=np.float32).reshape(USERS, DIM)


def seeds_of(*users: int) -> SeedSet:
    array = np.asarray(users, np.int32)
    return SeedSet(array, array + 10, np.ones(len(users), np.int8))


def build(seeds: SeedSet | None, folder: Path, data: DataConfig = PRODUCTS, **config: Any) -> Any:
    interactions, splits, behaviour = world()
    cluster = config.pop("cluster", None)
    return build_pool(
        seeds, behaviour, splits, interactions, PoolConfig(**config), data, folder=folder, cluster=cluster
    )


def pool_file(folder: Path, *users: Any, **values: Any) -> str:
    path = folder / "given.jsonl"
    lines = [{"user_id": f"secret-user-{u}", "step1": "a", "step2": f"for {u}", **values} for u in users]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def test_heuristic_pool(tmp_path: Path) -> None:
    pool, problems = build(seeds_of(3, 0), tmp_path)
    np.testing.assert_array_equal(pool.seeds.user, [3, 0])
    np.testing.assert_array_equal(pool.seeds.cluster, [13, 10])
    np.testing.assert_array_equal(pool.behaviour, [[9, 10, 11], [0, 1, 2]])
    assert pool.behaviour.dtype == np.float32
    assert "Title8; Title7; Title6; Title5; Title4" in pool.rationales[0].step2
    assert problems == [] and pool_summary(pool).llm_inferences == 0


def test_what_counts_say_of_the_seed_users_of_any_pool(tmp_path: Path) -> None:
    """The same text as in a pool of the heuristic, whoever wrote; "" for user 5, whose items have no text."""
    interactions, splits, _ = world()
    config = PoolConfig(provider="openai", cleaning="llm", prompt_tokens=1)
    found = written_by_counts(seeds_of(5, 3, 0), splits.train, interactions, config, PRODUCTS)
    pool, _ = build(seeds_of(3, 0), tmp_path)
    assert found == ["", *(each.step2 for each in pool.rationales)]


@pytest.mark.parametrize("provider", ["heuristic", "batch"])
def test_only_training_items_are_shown(tmp_path: Path, provider: str) -> None:
    """User 0 trains on items 1 to 5; 6 and 7 are held out."""
    texts = ""
    try:
        pool, _ = build(seeds_of(0), tmp_path, provider=provider)
        texts = pool.rationales[0].response
    except AwaitingResponses as waiting:
        texts = waiting.request_path.read_text()
    assert all(f"Title{item}" in texts for item in (1, 5))
    assert not any(f"Title{item}" in texts for item in (6, 7))


def test_no_user_id_in_a_prompt_and_the_history_is_cut(tmp_path: Path) -> None:
    with pytest.raises(AwaitingResponses) as waiting:
        build(seeds_of(0, 1, 2), tmp_path, provider="batch", history=2)
    lines = [json.loads(line) for line in waiting.value.request_path.read_text().splitlines()]
    assert "secret" not in waiting.value.request_path.read_text()
    prompt = lines[1]["body"]["messages"][0]["content"]
    assert '1. "Title5; brand: Acme"\n2. "Title6"\n</history>' in prompt and "Title4" not in prompt


def test_batch_pool_from_end_to_end(tmp_path: Path) -> None:
    with pytest.raises(AwaitingResponses) as waiting:
        build(seeds_of(2, 0, 1), tmp_path, provider="batch")
    lines = [json.loads(line) for line in waiting.value.request_path.read_text().splitlines()]
    answers = ["Step 1: a.\nStep 2: for two.", "no idea", "Step 1: a.\nStep 2: for one."]
    with waiting.value.response_path.open("w") as file:
        for line, content in reversed(list(zip(lines, answers, strict=True))):
            body = {
                "choices": [{"message": {"content": content}}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 2},
            }
            file.write(
                json.dumps({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}})
                + "\n"
            )
    pool, problems = build(seeds_of(2, 0, 1), tmp_path, provider="batch")
    np.testing.assert_array_equal(pool.seeds.user, [2, 1])
    np.testing.assert_array_equal(pool.behaviour[:, 0], [6, 3])
    assert [r.step2 for r in pool.rationales] == ["for two.", "for one."]
    assert {problem.user_id for problem in problems} == {"secret-user-0"}
    summary = pool_summary(pool)
    assert (summary.llm_inferences, summary.prompt_tokens, summary.tokens_known) == (2, 10, True)


def test_seeds_without_any_text_are_listed_and_not_asked(tmp_path: Path) -> None:
    pool, problems = build(seeds_of(5, 1), tmp_path)
    np.testing.assert_array_equal(pool.seeds.user, [1])
    assert problems == [("secret-user-5", "none of the last 30 training items has a text")]


def test_a_file_brings_its_own_seeds(tmp_path: Path) -> None:
    path = pool_file(tmp_path, 2, 5, 0, sampled_by="important")
    cluster = np.arange(USERS, dtype=np.int32) * 7
    pool, problems = build(None, tmp_path, provider="file", path=path, cluster=cluster)
    np.testing.assert_array_equal(pool.seeds.user, [2, 5, 0])
    np.testing.assert_array_equal(pool.seeds.cluster, [14, 35, 0])
    np.testing.assert_array_equal(pool.seeds.how, [IMPORTANT] * 3)
    np.testing.assert_array_equal(pool.behaviour[:, 0], [6, 15, 0])
    assert [r.step2 for r in pool.rationales] == ["for 2", "for 5", "for 0"] and problems == []


def test_clusters_of_a_file(tmp_path: Path) -> None:
    own, _ = build(None, tmp_path, provider="file", path=pool_file(tmp_path, 0, cluster=4))
    none, _ = build(None, tmp_path, provider="file", path=pool_file(tmp_path, 0))
    assert (own.seeds.cluster[0], none.seeds.cluster[0]) == (4, UNKNOWN_CLUSTER)


def test_leak_guard(tmp_path: Path) -> None:
    """User 4 holds out four items, the writer left out two: it read two of them."""
    path = pool_file(tmp_path, 3, 4)
    pool, problems = build(None, tmp_path, provider="file", path=path)
    np.testing.assert_array_equal(pool.seeds.user, [3])
    assert problems == [
        (
            "secret-user-4",
            f"{path}:2: held-out items were shown to the writer: "
            "4 items are held out, config.pool.held_out=2 were left out",
        )
    ]
    all_of_them, problems = build(None, tmp_path, provider="file", path=path, held_out=4)
    np.testing.assert_array_equal(all_of_them.seeds.user, [3, 4])
    assert problems == []
    told = r"2 of 2 texts cannot be used, .* \(line 1: 2 items are held out, .*config\.pool\.held_out$"
    with pytest.raises(RelandError, match=told):
        build(None, tmp_path, provider="file", path=path, held_out=1)


def test_users_that_the_data_do_not_have(tmp_path: Path) -> None:
    path = pool_file(tmp_path, 1, "x", 2, "y")
    with pytest.raises(
        RelandError, match=r"given.jsonl:2: 2 of 4 users are not in the data, .*'secret-user-x'"
    ):
        build(None, tmp_path, provider="file", path=path)


def test_an_unreadable_seed_of_a_file_is_in_no_pool(tmp_path: Path) -> None:
    path = pool_file(tmp_path, 1, 2)
    with Path(path).open("a") as file:
        file.write('\n{"user_id": "secret-user-0", "response": "I\'m sorry, I cannot do that."}')
    pool, problems = build(None, tmp_path, provider="file", path=path)
    np.testing.assert_array_equal(pool.seeds.user, [1, 2])
    assert problems[0].user_id == "secret-user-0" and "refusal" in problems[0].why


def test_an_empty_pool_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RelandError, match="'heuristic' has a usable rationale for none of 1 seed users; the first: user"
    ):
        build(seeds_of(5), tmp_path)


def test_a_build_of_the_same_is_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pool, _ = build(seeds_of(0, 1, 2, 3), tmp_path)
        provenance = pool_provenance(PoolConfig(), DataConfig()) | {"created": "now"}
        save_pool(pool, USER_IDS, tmp_path / name, provenance=provenance)
    for file in ("pool.parquet", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    loaded = load_pool(tmp_path / "one", IdMap(USER_IDS, np.asarray([""])))
    assert list(loaded.rationales) == list(pool.rationales)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("heuristic", {"prompt_version": "2", "history": 30, "scrub": ["email", "phone"]}),
        (
            "batch",
            {"prompt_version": "2", "history": 30, "scrub": ["email", "phone"], "model": "m"}
            | {"max_tokens": 400, "temperature": 0.0, "prompt": "steps", "answers": "auto"}
            | {"cleaning": "rule"},
        ),
        ("file", {"prompt_version": "", "file": "x.jsonl", "held_out": 2}),
    ],
)
def test_provenance(provider: str, expected: dict[str, Any]) -> None:
    found = pool_provenance(
        PoolConfig(provider=provider, path="some/x.jsonl", model="m"), DataConfig(name="d")
    )
    assert found == {"provider": provider, "domain": "products", "data": "d"} | expected


def test_faults_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(
        RelandError, match="text_fields=.*are not fields of the items; the data have .*'brand', 'title'"
    ):
        build(seeds_of(0), tmp_path, data=DataConfig(text_fields=("plot",)))
    with pytest.raises(
        RelandError, match="config.data.domain='product' is not known; did you mean 'products'"
    ):
        build(seeds_of(0), tmp_path, data=DataConfig(domain="product"))
    with pytest.raises(RelandError, match="provider 'heuristic' needs seed users"):
        build(None, tmp_path)


def test_behaviour_that_does_not_fit(tmp_path: Path) -> None:
    interactions, splits, behaviour = world()
    arguments = (splits, interactions, PoolConfig(), DataConfig())
    with pytest.raises(RelandError, match="behaviour has 5 rows for 6 users"):
        build_pool(seeds_of(0), behaviour[:5], *arguments, folder=tmp_path)
    behaviour[1] = np.inf
    with pytest.raises(RelandError, match="behaviour vector of user 1 is not finite"):
        build_pool(seeds_of(0, 1), behaviour, *arguments, folder=tmp_path)
