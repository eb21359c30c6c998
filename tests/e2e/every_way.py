r"""Every way to a list against the full ranking, for all users: API, command, server, exported functions.

    python -m tests.e2e.every_way --dataset=amazon-beauty --workdir=DIR [--backbones=sasrec,neumf] \
        [--set=train.max_epochs=1 ...] [--pool=FILE]

Equality needs no good model, so one epoch is enough. The wanted lists are a sort, by NumPy, of all scores
of the vectors that the test part was evaluated with, the item of the smaller number first among equal
scores; each test item must be at the rank that the evaluation kept. A list is "equal", or "rounded" where
items change places whose wanted scores differ by no more than the rounding of another program, or
"different".

The API and the command are asked for lists as measured. A server and exported functions know every user
as of today, by trained vectors where there are some; they are given the bundle of the day before the test
part, and must give the same lists. "new" compares each user's list, as it is served, with that of somebody
new who had the same items: it is equal, or has "overlap" (a share, mean over users) in common.
`lines.jsonl` in the workdir has what was found; what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from experiments.grid.plan import plan
from experiments.recommend import write_lists
from experiments.serving.source import Source
from reland_jax import Reland
from reland_jax.bundle import write_bundle
from reland_jax.config import BACKBONES, LINEAR, Config
from reland_jax.eval import Vectors
from reland_jax.types import Ragged
from reland_jax.variants import VARIANTS
from tests.server.process import serving

K = 10
ROUNDING = 2e-5
"""Of a score, as a share of its size or of 1: sums of another program are in another order."""
WAYS = ("ranks", "today", "new", "api", "command", "server", "exported")
_AT_A_TIME, _CONNECTIONS = 256, 8

ALONE = """
import json, sys
sys.modules["flax"] = sys.modules["reland_jax"] = None  # importing them fails
import jax, numpy as np

folder, masks, out = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
told, arrays = json.load(open(f"{folder}/manifest.json")), np.load(f"{folder}/arrays.npz")
ids = np.load(f"{folder}/ids.npz")
function = jax.jit(jax.export.deserialize(bytearray(open(f"{folder}/users.stablehlo", "rb").read())).call)
given = [jax.numpy.asarray(arrays[name]) for name in told["arrays"]["users"]]
bounds, items, allowed = ids["seen_indptr"], ids["seen_items"], np.arange(len(ids["items"])) > 0
width, found = max(int(np.diff(bounds).max()), 1), []
for begin in range(0, len(ids["users"]), 256):
    rows = np.arange(begin, begin + 256, dtype=np.int32) % len(ids["users"])
    masked = np.zeros((256, width), np.int32)
    for place, row in enumerate(rows if masks else ()):
        had = items[bounds[row]:bounds[row + 1]]
        masked[place, :len(had)] = had
    found.append([np.asarray(each) for each in function(given, rows, masked, allowed)[:2]])
item, score = (np.concatenate(each)[:len(ids["users"])] for each in zip(*found))
np.savez(out, item=item, score=score)
"""


class Lists(NamedTuple):
    """The best items of all users.

    Attributes:
        item: ``<int32>[U, K]``, 0 at the end of a list that is shorter.
        score: ``<float32>[U, K]``.
    """

    item: np.ndarray
    score: np.ndarray


class Subject(NamedTuple):
    """A trained recommender, and what its lists should be.

    Attributes:
        model: it.
        folder: its bundle.
        before: the bundle of the day before the test part.
        runs: the workdir.
        masks: whether the evaluation leaves the history out.
        wanted: lists as measured.
    """

    model: Reland
    folder: Path
    before: Path
    runs: Path
    masks: bool
    wanted: Lists


def full_ranking(vectors: Vectors, seen: Ragged, masks: bool, num_items: int) -> Lists:
    """The first K of a stable sort of the scores of all items."""
    import jax

    score, found = jax.jit(lambda users, items: vectors.score(users, items)), []
    users, items = np.asarray(vectors.users), vectors.items
    for begin in range(0, seen.num_rows, _AT_A_TIME):
        rows = np.arange(begin, begin + _AT_A_TIME) % seen.num_rows
        scores = np.array(score(users[rows], items))[:, : num_items + 1]
        scores[:, 0] = -np.inf
        for place, row in enumerate(rows if masks else ()):
            scores[place, seen.row(row)] = -np.inf
        order = first_of(scores)
        best = np.take_along_axis(scores, order, 1)
        found.append(Lists(np.where(np.isneginf(best), 0, order).astype(np.int32), best))
    return Lists(*(np.concatenate(each)[: seen.num_rows] for each in zip(*found, strict=True)))


def first_of(scores: np.ndarray) -> np.ndarray:
    """The first K columns of ``argsort(-scores, kind="stable")``, of which the others are not sorted."""
    least = -np.partition(-scores, K - 1, axis=1)[:, K - 1 : K]
    row, column = np.nonzero(scores >= least)
    order = np.lexsort((column, -scores[row, column], row))
    begin = np.searchsorted(row, np.arange(len(scores)))
    return column[order[begin[:, None] + np.arange(K)]]


def as_served(config: Config) -> Config:
    """The settings by which the evaluation reads what a server reads."""
    if config.model.backbone not in ("ease", "ials"):
        return config
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, history="known"))


def subject_of(config: Config, variant: str, workdir: Path, folder: Path) -> Subject:
    """Trains, or reads back what is there, and saves both bundles."""
    model = Reland(config, variant=variant, workdir=workdir).fit(by_histories=False)
    model.save(folder / variant)
    bundle = model._with_params()
    nothing = Ragged(np.zeros_like(bundle.splits.test.indptr), bundle.splits.test.items[:0])
    write_bundle(bundle._replace(splits=bundle.splits._replace(test=nothing)), folder / f"{variant}-before")
    masks, splits = config.eval.mask_history, bundle.splits
    seen = splits.train.joined(splits.valid)
    wanted = full_ranking(model._reader.measured(), seen, masks, splits.num_items)
    return Subject(model, folder / variant, folder / f"{variant}-before", workdir, masks, wanted)


def of_table(model: Reland, table: Any) -> Lists:
    """The lists of an Arrow table of `Reland.recommend`."""
    found = table.to_pandas()
    user = {name: row for row, name in enumerate(model.user_ids)}
    item = {name: row for row, name in enumerate(model.item_ids, 1)}
    lists = _empty(len(user))
    place = found.user.map(user).to_numpy(), found["rank"].to_numpy() - 1
    lists.item[place], lists.score[place] = found.item.map(item), found.score
    return lists


def of_command(subject: Subject) -> Lists:
    """What `experiments.recommend` writes from the bundle."""
    import pyarrow.parquet as pq

    out = subject.folder.with_suffix(".parquet")
    out.unlink(missing_ok=True)
    options = {"k": K, "exclude_seen": subject.masks, "as_measured": True}
    write_lists(Source(Reland.load(subject.folder), "here"), None, out, 5000, options)
    return of_table(subject.model, pq.read_table(out))


def of_exported(subject: Subject) -> Lists:
    """What the exported functions give in a process that has neither Flax nor this package."""
    folder, out = subject.folder.with_suffix(".exported"), subject.folder.with_suffix(".npz")
    Reland.load(subject.before).export(folder, K)
    subprocess.run([sys.executable, "-c", ALONE, str(folder), str(subject.masks), str(out)], check=True)
    with np.load(out) as found:
        return Lists(found["item"][:, :K], found["score"][:, :K])


def of_server(url: str, name: str, subject: Subject) -> Lists:
    """The answers of a server, over connections that are kept open."""
    model, lists = subject.model, _empty(len(subject.model.user_ids))
    item, place = {name: row for row, name in enumerate(model.item_ids, 1)}, urlsplit(url)
    users = list(enumerate(model.user_ids))

    def ask(some: Sequence[tuple[int, str]]) -> None:
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        for row, user in some:
            body = {"user": user, "k": K, "model": name, "exclude_seen": subject.masks}
            connection.request("POST", "/recommend", json.dumps(body))
            answer = connection.getresponse()
            said = json.loads(answer.read())
            assert answer.status == 200, said
            for at, each in enumerate(said["items"]):
                lists.item[row, at], lists.score[row, at] = item[each["item"]], each["score"]
        connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(ask, (users[first::_CONNECTIONS] for first in range(_CONNECTIONS))))
    return lists


def compared(found: Lists, wanted: Lists, vectors: Vectors) -> dict[str, int]:
    """How many users have the wanted list, that list but for rounding, or another one."""
    same = (found.item == wanted.item).all(1)
    rows = np.flatnonzero(~same)
    users, items = np.asarray(vectors.users)[rows], np.asarray(vectors.items)[found.item[rows]]
    parts = np.array_split(np.arange(len(rows)), -(-len(rows) // _AT_A_TIME) or 1)
    scores = [np.asarray(vectors.score(users[part], items[part])) for part in parts if len(part)]
    again = np.concatenate(scores) if scores else np.zeros((0, K))
    again = np.where(found.item[rows] > 0, again, -np.inf)
    alike = is_close(again, wanted.score[rows]).all(1)
    alike &= np.array([len({*row}) == len(row) or 0 in row for row in found.item[rows].tolist()], bool)
    return {"users": len(same), "equal": int(same.sum()), "rounded": int(alike.sum()),
            "different": int((~alike).sum())}  # fmt: skip


def is_close(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether scores are equal but for rounding."""
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(np.where(np.isneginf(other), 0, other)), 1.0)
        return (one == other) | (np.abs(one - other) <= ROUNDING * size)


def of_ranks(subject: Subject) -> dict[str, int]:
    """Test items that are where the evaluation has ranked them; ties lose there."""
    ranks, wanted = subject.model._fitted().trained.ranks["test"], subject.wanted
    looked_at = ranks.rank < K
    if ranks.had_before is not None:
        looked_at &= ~ranks.had_before
    user, item, rank = (each[looked_at] for each in ranks[:3])
    here = wanted.item[user] == item[:, None]
    place = np.where(here.any(1), here.argmax(1), rank)
    equal = (place == rank) & here.any(1)
    rounded = ~equal & is_close(wanted.score[user, place], wanted.score[user, rank])
    return {"users": len(user), "equal": int(equal.sum()), "rounded": int(rounded.sum()),
            "different": int((~equal & ~rounded).sum())}  # fmt: skip


def of_today(subject: Subject) -> dict[str, int]:
    """Lists of the API as of today against a full ranking of the vectors and histories of today."""
    model = subject.model
    splits, vectors = model._fitted().splits, model._reader.today()
    seen = splits.train.joined(splits.valid).joined(splits.test)
    wanted = full_ranking(vectors, seen, subject.masks, splits.num_items)
    return compared(of_table(model, model.recommend(k=K, exclude_seen=subject.masks)), wanted, vectors)


def of_new(subject: Subject) -> dict[str, float]:
    """Lists of users as they are served, beside those of new users with the same histories."""
    fitted = subject.model._fitted()
    model = Reland(fitted.config, variant=fitted.variant, workdir=subject.runs).fit()
    rows = np.arange(len(model.user_ids))
    old, (new, _) = model.predictor.users(rows, K), model.predictor.histories(model._everything, K)
    same = (old.item == new.item).all(1)
    shared = (old.item[:, :, None] == new.item[:, None]).any(2).mean()
    return {"users": len(rows), "equal": int(same.sum()), "overlap": round(float(shared), 4),
            "by_histories": model._fitted().by_histories}  # fmt: skip


def ways_of(subject: Subject, name: str, url: str) -> Iterator[tuple[str, dict[str, float]]]:
    """What each way gives, in the order of `WAYS`."""
    model, masks, vectors = subject.model, subject.masks, subject.model._reader.measured()
    yield "ranks", of_ranks(subject)
    yield "today", of_today(subject)
    yield "new", of_new(subject)
    ways: Mapping[str, Callable[[], Lists]] = {
        "api": lambda: of_table(model, model.recommend(k=K, exclude_seen=masks, as_measured=True)),
        "command": lambda: of_command(subject),
        "server": lambda: of_server(url, name, subject),
        "exported": lambda: of_exported(subject),
    }
    for way, ask in ways.items():
        yield way, compared(ask(), subject.wanted, vectors)


def every_way(
    config: Config, variants: Sequence[str], workdir: Path, folder: Path
) -> Iterator[dict[str, Any]]:
    """One line for each variant and way: counts of users and seconds.

    Args:
        config: settings, with a backbone.
        variants: which of them; one server has them all.
        workdir: of the trainings.
        folder: of bundles and what is written from them.
    """
    subjects = {variant: subject_of(config, variant, workdir, folder) for variant in variants}
    with ExitStack() as stack:
        flags = [f"--bundle={name}={subject.before}" for name, subject in subjects.items()]
        url = stack.enter_context(serving(*flags, "--watch=0")).url
        for variant, subject in subjects.items():
            begun = time.perf_counter()
            for way, counts in ways_of(subject, variant, url):
                seconds, begun = time.perf_counter() - begun, time.perf_counter()
                told = {"backbone": config.model.backbone, "variant": variant, "way": way}
                yield told | counts | {"seconds": round(seconds, 1)}


def _empty(users: int) -> Lists:
    return Lists(np.zeros((users, K), np.int32), np.full((users, K), -np.inf, np.float32))


def main() -> None:
    """The backbones one after the other, with a line for each variant and way as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--backbones", default=",".join((*BACKBONES, *LINEAR)))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--set", action="append", default=[], help="section.key=value; can be repeated")
    parser.add_argument("--pool", default="", help="file of rationales; else they are heuristic")
    given = parser.parse_args()
    backbones, variants = given.backbones.split(","), given.variants.split(",")
    pools = [f"{given.dataset}={given.pool}"] if given.pool else []
    configs = plan([given.dataset], backbones, variants, 1, pools, given.set)
    given.workdir.mkdir(parents=True, exist_ok=True)
    kept = given.workdir / "lines.jsonl"
    done = (
        {json.loads(line)["backbone"] for line in kept.read_text().splitlines()} if kept.exists() else set()
    )
    for (_, backbone), config in configs.items():
        if backbone in done:
            continue
        runs, folder = given.workdir / config.data.protocol, given.workdir / backbone
        lines = []
        for line in every_way(as_served(config), variants, runs, folder):
            print(json.dumps(line), flush=True)
            lines.append(json.dumps(line))
        kept.write_text(
            "\n".join([*kept.read_text().splitlines(), *lines] if kept.exists() else lines) + "\n"
        )


if __name__ == "__main__":
    from tests.server.process import REPOSITORY

    assert Path.cwd() == REPOSITORY, f"start this in {REPOSITORY}"
    main()
