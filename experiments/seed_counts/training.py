"""Trainings at several sizes of the reasoning pool, to compare with the coverage curve (paper, Figure 6)."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.seed_counts.curve import ENCODED, VALID, Encoded, Prompts, Sampled, point, sampled
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.eval import per_user_metrics
from reland_jax.eval.significance import paired_comparison
from reland_jax.files import write_text
from reland_jax.flow import TEXT_CACHE, Made
from reland_jax.pool import read_pool_file
from reland_jax.records import to_plain
from reland_jax.results import FEWEST_USERS
from reland_jax.stages import ASSIGN, BUILD_POOL, FLOW, ITEMS, training
from reland_jax.storage import Trained
from reland_jax.types import COMPARED, NDCG, PARTS, Interactions, RelandError, Splits
from reland_jax.variants import F_ITEM, RELAND

if TYPE_CHECKING:
    from experiments.seed_counts.options import Options

METRICS = COMPARED
REFERENCE = F_ITEM.name

_SHARED = (*ENCODED, ITEMS.name, TEXT_CACHE)
"""What all sizes read from the workdir, in the place of their own folders."""


class Size(NamedTuple):
    """One size of the pool, ready to train with.

    Attributes:
        made: what training reads; what is trained goes to a folder of its own.
        facts: fraction, cost and coverage of the seed users that have a rationale, as plain values.
    """

    made: Made
    facts: dict[str, Any]


def check(config: Config, encoded: Encoded) -> None:
    """Refuses trainings that would pay an LLM, whose validation items the rationales may have read, or that
    cannot be compared.

    Raises:
        RelandError: the provider is neither file nor heuristic; or it is a file, and validation items
            were taken out of a training part that others published as such; or fewer than two users have
            a validation or a test item.
    """
    for name, part in zip(PARTS, (encoded.splits.valid, encoded.splits.test), strict=True):
        users = int(np.count_nonzero(part.lengths()))
        if users < FEWEST_USERS:
            raise RelandError(
                f"--validate compares trainings user by user, for which {FEWEST_USERS} users need a {name} "
                f"item; {users} has one"
            )
    if config.pool.provider not in ("file", "heuristic"):
        raise RelandError(
            f"--validate with config.pool.provider={config.pool.provider!r} would ask for rationales at "
            "every fraction; export the largest pool and give it as provider file"
        )
    fixed = encoded.interactions.fixed_split
    drawn = (
        config.data.protocol == "fixed" and config.data.validation_from == "train"
        and fixed is not None and VALID not in fixed
    )  # fmt: skip
    if config.pool.provider == "file" and drawn:
        raise RelandError(
            "--validate: the data fix no validation part, so that its items would be taken out of the "
            f"training part from which {config.pool.path} may have been written; say "
            "--config.data.validation_from=test"
        )


def train(
    config: Config, workdir: Path, options: Options, encoded: Encoded, asked: Prompts
) -> Iterator[dict[str, Any]]:
    """Trains seed by seed, the reference first and then every size; yields what is known after each seed."""
    sizes = prepare(config, workdir, options, encoded, asked)
    reference = dataclasses.replace(sizes[0].made, config=config, workdir=workdir)
    jobs: list[tuple[str, Made, str]] = [
        (REFERENCE, reference, REFERENCE),
        *((f"{RELAND.name} {size.facts['fraction']:.2%}", size.made, RELAND.name) for size in sizes),
    ]
    done: list[list[Trained]] = [[] for _ in jobs]
    taken: list[float] = []
    for seed in range(options.seeds):
        for number, (label, made, variant) in enumerate(jobs):
            start = time.perf_counter()
            trained = made.make(training(made, variant, seed))
            taken.append(time.perf_counter() - start)
            done[number].append(trained)
            left = (options.seeds - seed) * len(jobs) - number - 1
            ndcg = trained.summary.valid[NDCG]
            eta = timedelta(seconds=round(max(taken) * left))
            print(f"{label} seed {seed}: validation NDCG@10 {ndcg:.4f}, ETA {eta} at most", flush=True)
        yield _compared([size.facts for size in sizes], done, PARTS if options.test else PARTS[:1])


def prepare(config: Config, workdir: Path, options: Options, encoded: Encoded, asked: Prompts) -> list[Size]:
    """Pool, texts and assignment at every fraction, in ascending order.

    The sizes of a file that does not have all users end at the file's: larger ones are left out.
    """
    usable = usable_users(config, encoded)
    sizes: list[Size] = []
    for fraction in sorted(set(options.fractions)):
        wanted = max(1, round(fraction * encoded.splits.num_users))
        known = sizes[-1].made if sizes else None
        size = _prepared(config, workdir, fraction, encoded, asked, usable, known)
        sizes.append(size)
        if usable is not None and wanted >= len(usable):
            break
    return sizes


def _prepared(
    config: Config,
    workdir: Path,
    fraction: float,
    encoded: Encoded,
    asked: Prompts,
    usable: np.ndarray | None,
    known: Made | None,
) -> Size:
    found = sampled(encoded, config, workdir, fraction, 0, usable)
    folder = workdir / "fractions" / f"{100 * fraction:.4g}"
    folder.mkdir(parents=True, exist_ok=True)
    growth = len(found.user) / max(1, round(config.seeds.fraction * encoded.splits.num_users))
    near = min(max(1, round(growth * config.fusion.neighbours)), len(found.user))
    config = dataclasses.replace(
        config,
        seeds=dataclasses.replace(config.seeds, fraction=fraction),
        fusion=dataclasses.replace(config.fusion, neighbours=near),
    )
    if config.pool.provider == "file":
        path = folder / "rationales.jsonl"
        chosen = set(encoded.interactions.ids.users[found.user].tolist())
        write_subset(Path(config.pool.path_to_read()), path, chosen)
        config = dataclasses.replace(config, pool=dataclasses.replace(config.pool, path=str(path)))
    made = flow.run(FLOW, config, folder, shared=dict.fromkeys(_SHARED, workdir), known=known)
    of_pool = Sampled(made[BUILD_POOL].pool.seeds.user, made[ASSIGN].cosine[:, 0])
    facts = point(encoded, asked, of_pool)
    return Size(made, {"fraction": fraction, "neighbours": near, **facts})


def usable_users(config: Config, encoded: Encoded) -> np.ndarray | None:
    """Users with a rationale in the file that training may see, ``<int32>[A]``; None for everyone."""
    if config.pool.provider != "file":
        return None
    splits: Splits = encoded.splits
    interactions: Interactions = encoded.interactions
    held_out = splits.valid.lengths() + splits.test.lengths()
    entries = read_pool_file(config.pool.path_to_read())
    written = {entry.user_id for entry in entries if entry.rationale is not None}
    has = np.array([str(user) in written for user in interactions.ids.users])
    usable = np.flatnonzero(has & (held_out <= config.pool.held_out)).astype(np.int32)
    if not len(usable):
        raise RelandError(
            f"{config.pool.path}: no user of the data has a rationale there that may be used; every user's "
            f"held-out items must number at most config.pool.held_out={config.pool.held_out}"
        )
    return None if len(usable) == splits.num_users else usable


def write_subset(source: Path, path: Path, users: set[str]) -> None:
    """The lines of a pool file that belong to some users, left as they are."""
    lines = source.read_text(encoding="utf-8-sig").split("\n")
    kept = [line for line in lines if line.strip() and str(json.loads(line)["user_id"]) in users]
    write_text(path, "\n".join(kept) + "\n", private=True)


def _compared(
    facts: list[dict[str, Any]], done: list[list[Trained]], parts: tuple[str, ...]
) -> dict[str, Any]:
    reference, *others = done
    sizes = []
    for fact, runs in zip(facts, others, strict=True):
        sizes.append({**fact, **{part: _gains(runs, reference, part) for part in parts}})
    shown = {part: {name: _means(reference, part, name) for name in METRICS} for part in parts}
    return {"seeds": len(reference), "reference": REFERENCE, REFERENCE: shown, "sizes": sizes}


def _gains(runs: list[Trained], reference: list[Trained], part: str) -> dict[str, Any]:
    """Metric -> its value with every training seed, and the gain over the reference, paired by user."""
    found = {}
    for name in METRICS:
        ours, theirs = (_per_user(each, part, name) for each in (runs, reference))
        comparison = paired_comparison(ours, theirs)
        found[name] = {"values": _means(runs, part, name), **to_plain(comparison)}
    return found


def _per_user(runs: list[Trained], part: str, name: str) -> np.ndarray:
    """A metric of every user, averaged over training seeds."""
    return np.mean([per_user_metrics(run.ranks[part], (10,))[name] for run in runs], axis=0)


def _means(runs: list[Trained], part: str, name: str) -> list[float]:
    return [float(run.summary.of(part)[name]) for run in runs]
