"""Asking for rationales: `build` makes a pool from a data set, `refresh` brings one up to date.

Both run the stages before the pool in a workdir, make the requests, note whom they show, ask, and publish
what was answered as the next version. Prompts, answers and the pool itself are kept in the store alone, so
that a purge finds them. Who is on the removal list is not asked about: nothing about them is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.pool_commands.changes import (
    ChangeRequest,
    NextVersion,
    apply_change,
    current,
    current_if_any,
)
from reland_jax.config import Config
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import Estimate, estimate
from reland_jax.pool.asking.records import journal_path, request_key
from reland_jax.pool.build import pool_ledger, pool_of, pool_provenance, written
from reland_jax.pool.contract import AnswersPrompts, Problem, Provider, RationaleRequest, SeedRationales
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.requests import PoolRequests, pool_requests
from reland_jax.pool.providers import WITH_JOURNAL, make_provider
from reland_jax.pool.providers.batch import RESPONSE_FILE
from reland_jax.pool.ready import check_ready
from reland_jax.pool.sources import is_source, source_of
from reland_jax.pool_store import (
    ASKING_FOLDER,
    Content,
    Guard,
    PoolStore,
    Population,
    asking,
    edits,
    history_codes,
    new_content,
    note_requests,
    read_patterns,
    read_removals,
    read_version,
    screened,
)
from reland_jax.strings import as_strings
from reland_jax.types import Rationale, ReasoningPool, RelandError, SeedSet

if TYPE_CHECKING:
    from reland_jax.storage import Seeding


def build(request: ChangeRequest, settings: Mapping[str, Any], workdir: str) -> int:
    """Asks about the seed users of a data set and publishes the pool.

    Args:
        request: who wants it, and where; a dry run tells what asking would take, and asks nobody.
        settings: of the run, as nested dictionaries.
        workdir: folder of the stages before the pool.
    """
    config, store = _config(settings, "build"), request.store
    if not request.dry_run:
        check_ready(config.pool, config.llm, store.folder / ASKING_FOLDER)
    seeding = _seeding(config, workdir)
    if request.dry_run:
        seeds = _not_removed(store, seeding.seeds, seeding)
        asks = not is_source(config.pool)
        made = _requests(config, seeding, seeds) if asks else PoolRequests(seeds, [], [])
        return _tell_estimate(made, config, store)
    with asking(store):
        found = _found(store, config, seeding)
    _tell_missing(found.problems)
    pool = pool_of(found, seeding.behaviour, config.pool)

    def plan(before: Content | None) -> NextVersion:
        after = _content(store, config, seeding, pool)
        return NextVersion(after, _arguments(config), problems=found.problems, always=before is None)

    status = apply_change(request, plan, current_if_any)
    missing = [each is None for each in found.rationales]
    ids = as_strings(seeding.interactions.ids.users)[found.seeds.user[np.asarray(missing, bool)]].tolist()
    _tell_asked(config, store, set(ids), found.problems)
    return status


def refresh(request: ChangeRequest, settings: Mapping[str, Any], workdir: str, older_than: str | None) -> int:
    """Asks again about seed users with an old rationale or another history; the others keep theirs.

    A seed user without a usable new rationale keeps the old one. Nobody becomes a seed user here; seed
    users that the data do not have any more go.
    """
    config, store = _config(settings, "refresh"), request.store
    if is_source(config.pool):
        raise RelandError(
            f"refresh: config.pool.provider={config.pool.provider!r} cannot be asked again; set the one "
            "that wrote the pool, or use add"
        )
    before = read_version(store)
    bound = edits.time_bound(older_than, datetime.now(UTC)) if older_than else None
    if not request.dry_run:
        check_ready(config.pool, config.llm, store.folder / ASKING_FOLDER)
    seeding = _seeding(config, workdir)
    stale = _Stale(config, seeding, before, bound)
    if request.dry_run:
        seeds = _not_removed(store, _seeds_of(before, seeding), seeding)
        again = stale.among(_requests(config, seeding, seeds))
        _tell_refresh(again, before)
        return _tell_estimate(again, config, store)
    with asking(store):
        provider = _provider(config, store)
        seeds = _not_removed(store, _seeds_of(before, seeding), seeding)
        again = stale.among(_noted_requests(store, config, seeding, seeds, provider))
        _tell_refresh(again, before)
        fresh, problems = stale.answers(again, provider, store.folder / ASKING_FOLDER)
    _tell_missing(problems)

    def plan(now: Content) -> NextVersion:
        after, kept = _refreshed(store, now, seeding, config, fresh, stale)
        arguments = _arguments(config) | {"older_than": older_than, "asked": len(again.requests)}
        return NextVersion(after, arguments, problems=problems + kept)

    status = apply_change(request, plan, current)
    _tell_asked(config, store, {each.user_id for each in again.requests} - set(fresh), problems)
    return status


def _found(store: PoolStore, config: Config, seeding: Seeding) -> SeedRationales:
    """What a provider writes about the chosen seed users, or a pool file has."""
    if is_source(config.pool):
        pool = source_of(config.pool).open(config.pool)
        return pool.seed_rationales(seeding.interactions.ids, seeding.clusters, seeding.splits)
    provider = _provider(config, store)
    seeds = _not_removed(store, seeding.seeds, seeding)
    made = _noted_requests(store, config, seeding, seeds, provider)
    return written(made, provider, config.pool)


def _content(store: PoolStore, config: Config, seeding: Seeding, pool: ReasoningPool) -> Content:
    """The version that holds a pool, without what the lists of the store forbid; while it is locked."""
    removals, ids = read_removals(store.folder), seeding.interactions.ids.users
    # A file may bring seed users without training items; none can be like them.
    warm = seeding.splits.train.lengths()[pool.seeds.user] > 0
    kept = screened(edits.keep_rows(pool, warm, "the build"), ids, removals, read_patterns(store.folder))
    population, number = _population(seeding, ~removals.left(ids.tolist()))
    kept = kept._replace(seeds=kept.seeds._replace(user=number[kept.seeds.user]))
    provenance = pool_provenance(config.pool, config.data)
    return new_content(population, kept, _settings(config, seeding, provenance))


class _Stale:
    """Which rationales of a version are out of date, and new ones for them."""

    def __init__(self, config: Config, seeding: Seeding, before: Content, bound: datetime | None) -> None:
        self._config, self._seeding, self._bound = config, seeding, bound
        ids = as_strings(before.population.user_ids)[before.pool.seeds.user].tolist()
        self._texts: dict[str, Rationale] = dict(zip(ids, before.pool.rationales, strict=True))
        self._origin = dict(zip(ids, zip(*before.origin, strict=True), strict=True))
        self.same: set[str] = set()
        """External ids whose prompt is the one that was answered: what it shows is training data now."""

    def among(self, made: PoolRequests) -> PoolRequests:
        """The requests about those whose rationale is out of date."""
        changed = self._changed(made)
        self.same = {request.user_id for request in made.requests} - changed
        rows = [
            row
            for row, request in enumerate(made.requests)
            if request.user_id in changed
            or (self._bound is not None and edits.is_older(self._texts[request.user_id], self._bound))
        ]
        requests = [made.requests[row] for row in rows]
        return made._replace(seeds=made.seeds.rows(rows), requests=requests)

    def answers(
        self, again: PoolRequests, provider: Provider, folder: Path
    ) -> tuple[dict[str, Rationale], list[Problem]]:
        """New rationales by external id, and what is wrong with the others."""
        if not again.requests:
            return {}, again.problems
        if self._bound is not None and self._config.pool.provider in WITH_JOURNAL:
            self._retire(again.requests, self._bound, folder)
        result = provider.rationales(again.requests)
        pairs = zip(again.requests, result.rationales, strict=True)
        fresh = {request.user_id: each for request, each in pairs if each is not None}
        return fresh, [*again.problems, *result.problems]

    def _retire(self, requests: Iterable[RationaleRequest], bound: datetime, folder: Path) -> None:
        """The journal would give the old answer to a prompt that has not changed."""
        keys = [request_key(request.prompt, self._config.pool) for request in requests]
        with Journal(journal_path(self._config.llm, folder)) as journal:
            retired = journal.retire(keys, bound.astimezone(UTC).isoformat(timespec="seconds"))
        if retired:
            # By hand: it holds the answers that were just taken back, and would be read again.
            (folder / RESPONSE_FILE).unlink(missing_ok=True)

    def _changed(self, made: PoolRequests) -> set[str]:
        """Those whose prompt is another one; where that is not known, whose training items are."""
        train = self._seeding.splits.train
        codes = history_codes(train, self._seeding.interactions.ids.items, train.lengths())
        changed = set()
        for user, request in zip(made.seeds.user.tolist(), made.requests, strict=True):
            known = self._texts[request.user_id].prompt_hash
            origin = self._origin[request.user_id]
            now = (train.lengths()[user], codes[user])
            if known != prompt_hash(request.prompt) if known else origin != now:
                changed.add(request.user_id)
        return changed


def _refreshed(
    store: PoolStore,
    now: Content,
    seeding: Seeding,
    config: Config,
    fresh: Mapping[str, Rationale],
    stale: _Stale,
) -> tuple[Content, list[Problem]]:
    """The next version: the seed users of the present one on the present data."""
    removals = read_removals(store.folder)
    ids = as_strings(seeding.interactions.ids.users)
    population, number = _population(seeding, ~removals.left(ids.tolist()))
    named = zip(as_strings(population.user_ids).tolist(), population.seen.tolist(), strict=True)
    dense = {user: row for row, (user, seen) in enumerate(named) if seen}
    old_ids = as_strings(now.population.user_ids)[now.pool.seeds.user].tolist()
    why = "this seed user has no training items in the data now"
    gone = [Problem(user, why) for user in old_ids if user not in dense]
    rows = np.asarray([user in dense for user in old_ids], bool)
    pool = edits.keep_rows(now.pool, rows, "the refresh")
    users = np.asarray([dense[user] for user in old_ids if user in dense], np.int32)
    pool = pool._replace(seeds=pool.seeds._replace(user=users), behaviour=population.behaviour[users])
    new = {dense[user]: each for user, each in fresh.items() if user in dense}
    pool = edits.replace_rationales(pool, new)
    pool = screened(pool, population.user_ids, removals, read_patterns(store.folder))
    settings = _settings(config, seeding, now.settings["provenance"])
    current = [*new, *(dense[user] for user in stale.same if user in dense)]
    return new_content(population, pool, settings, now, current), gone


def _tell_missing(problems: Iterable[Problem]) -> None:
    missing = len({problem.user_id for problem in problems if problem.again})
    if missing:
        print(f"incomplete: {missing} seed users have no answer; the same command asks about them again")


def _tell_asked(
    config: Config, store: PoolStore, without: Collection[str], problems: Iterable[Problem]
) -> None:
    """Prints what asking has cost so far, and how many answers could not be read.

    Args:
        config: all settings.
        store: whose journal counts.
        without: external ids of seed users without a usable rationale.
        problems: of this command.
    """
    paid = pool_ledger(config.pool, config.llm, store.folder / ASKING_FOLDER)
    if not paid:
        print(f"provider {config.pool.provider!r} asked no LLM: 0 tokens, price 0")
        return
    money = "no price for this model in config.llm.prices"
    if paid["cost"] is not None:
        money = f"{paid['cost']:.4f} {paid['currency']}"
    waiting = {problem.user_id for problem in problems if problem.again}
    print(
        f"paid in this store so far: {paid['requests']:,} answered requests, {paid['prompt_tokens']:,} "
        f"tokens read, {paid['response_tokens']:,} tokens written; price: {money}\n"
        f"seed users whose answer could not be read or used: {len(set(without) - waiting):,}; still without "
        f"an answer: {len(waiting):,}"
    )


def _tell_refresh(again: PoolRequests, before: Content) -> None:
    seed_users = f"{len(again.requests)} of {len(before.pool.rationales)} seed users"
    print(f"refresh: {seed_users} will be asked about")


def _config(settings: Mapping[str, Any], action: str) -> Config:
    config = Config.from_dict(settings)
    if config.pool.provider == "store":
        raise RelandError(f"{action}: config.pool.provider='store' reads a store and cannot write a pool")
    return config


def _seeding(config: Config, workdir: str) -> Seeding:
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax import flow
    from reland_jax.stages import FLOW, seeding_of

    return seeding_of(flow.run(FLOW, config, workdir, until="sample_seeds"))


def _provider(config: Config, store: PoolStore) -> Provider:
    folder = store.folder / ASKING_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return make_provider(config.pool, config.llm, folder, Guard(store).may_ask)


def _not_removed(store: PoolStore, seeds: SeedSet, seeding: Seeding) -> SeedSet:
    """The seed users that are not on the removal list."""
    ids = seeding.interactions.ids.users[seeds.user].tolist()
    return seeds.rows(np.flatnonzero(~read_removals(store.folder).barred(ids)))


def _seeds_of(content: Content, seeding: Seeding) -> SeedSet:
    """The seed users of a version, with their dense ids in the present data."""
    dense = {str(user): row for row, user in enumerate(seeding.interactions.ids.users)}
    ids = as_strings(content.population.user_ids)[content.pool.seeds.user].tolist()
    seeds = content.pool.seeds.rows([row for row, user in enumerate(ids) if user in dense])
    return seeds._replace(user=np.asarray([dense[user] for user in ids if user in dense], np.int32))


def _requests(
    config: Config, seeding: Seeding, seeds: SeedSet, answers: AnswersPrompts | None = None
) -> PoolRequests:
    train, interactions = seeding.splits.train, seeding.interactions
    return pool_requests(seeds, train, interactions, config.pool, config.data, answers)


def _noted_requests(
    store: PoolStore, config: Config, seeding: Seeding, seeds: SeedSet, provider: Provider
) -> PoolRequests:
    """The requests; whom they show is on disk before anything is sent, also for step 0 by an LLM."""
    made = _requests(config, seeding, seeds)
    if config.pool.provider not in WITH_JOURNAL:
        return made
    journal = journal_path(config.llm, store.folder / ASKING_FOLDER)
    with store.locked():
        note_requests(store.folder, made, journal)
    if config.pool.cleaning == "llm":
        made = _requests(config, seeding, seeds, provider.answers)
        with store.locked():
            note_requests(store.folder, made, journal)
    return made


def _population(seeding: Seeding, stays: np.ndarray) -> tuple[Population, np.ndarray]:
    """The population of a version, and the row in it of every user of the data: ``<int32>[U]``."""
    from reland_jax.retrieval import profiles

    splits, ids = seeding.splits, seeding.interactions.ids
    lengths = splits.train.lengths()
    whole = Population(
        as_strings(ids.users),
        np.asarray(seeding.behaviour, np.float32),
        lengths.astype(np.int32),
        (splits.valid.lengths() + splits.test.lengths()).astype(np.int32),
        history_codes(splits.train, ids.items, lengths),
        profiles(seeding.interactions.user_features, len(lengths)),
    )
    return Population(*(array[stays] for array in whole)), (np.cumsum(stays) - 1).astype(np.int32)


def _settings(config: Config, seeding: Seeding, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "retrieval": dataclasses.asdict(config.retrieval),
        "protocol": seeding.splits.protocol,
        "provenance": dict(provenance),
    }


def _arguments(config: Config) -> dict[str, Any]:
    pool = config.pool
    return {"data": config.data.name, "provider": pool.provider, "model": pool.model, "prompt": pool.prompt}


def _tell_estimate(made: PoolRequests, config: Config, store: PoolStore) -> int:
    """Prints what asking would take; nothing is sent. Returns the exit status."""
    if config.pool.provider not in WITH_JOURNAL:
        print(f"provider {config.pool.provider!r} uses no LLM: 0 prompts, 0 tokens, price 0")
        seeds = len(made.seeds.user)
        print(f"seed users: {seeds}; dry run: nothing was sent, nothing was changed")
        return 0
    answered = _answered(made, config, store.folder / ASKING_FOLDER)
    print_estimate(estimate(made.requests, config.pool, config.llm, answered, made.step0), config)
    return 0


def print_estimate(found: Estimate, config: Config, about: str = "seed users") -> None:
    """Prints what asking would take.

    Args:
        found: the estimate.
        config: with the prices.
        about: what is asked about, in words.
    """
    price = "no price for this model in config.llm.prices"
    if found.price is not None:
        price = f"at most {found.price:.4f} {config.llm.currency}"
    counted = "counted" if found.exact else "estimated"
    print(
        f"{about}: {found.seeds:,}; prompts: {found.prompts:,}, "
        f"of which {found.journalled:,} are answered\n"
        f"tokens: {found.prompt_tokens:,} of prompts ({counted}), at most {found.response_tokens:,} of "
        f"answers; price: {price}; time: about {found.seconds:.0f} s"
    )
    print("dry run: nothing was sent, nothing was changed")


def _answered(made: PoolRequests, config: Config, folder: Path) -> set[str]:
    """Hashes of the prompts that the journal has an answer to."""
    path = journal_path(config.llm, folder)
    if not path.is_file():
        return set()
    prompts: Sequence[str] = [*(request.prompt for request in made.requests), *made.step0]
    keys = {request_key(prompt, config.pool): prompt_hash(prompt) for prompt in prompts}
    with Journal(path) as journal:
        return {keys[key] for key in journal.answers(keys)}
