"""Sentences that explain the tables and plots of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reland_jax.overview import ExpectedBill
from reland_jax.report.content import ReportContent
from reland_jax.report.paper import BACKBONE_NAMES
from reland_jax.report.tables import MISSING, Table, gain, in_order, is_significant_gain
from reland_jax.results import PoolFigures, RunResults
from reland_jax.types import HOW_NAMES, NDCG, Assignment, SeedSet
from reland_jax.variants import EXPECTED, F_ITEM, ID, RELAND


def headline(results: RunResults) -> str:
    """One or two sentences: what `reland` reached, against `id` and `f_item`, and how sure that is."""
    ndcg = {name: one.test[NDCG] for name, one in in_order(results).items()}
    where = f"On {results.dataset} with {BACKBONE_NAMES.get(results.backbone, results.backbone)}"
    if RELAND.name not in ndcg:
        return f"{where}: test NDCG@10 " + ", ".join(f"{k} {v:.4f}" for k, v in ndcg.items()) + "."
    against = [
        f"{gain(ndcg[RELAND.name], ndcg[name]) or 'no ratio'} against {name} ({ndcg[name]:.4f})"
        for name in (ID.name, F_ITEM.name)
        if name in ndcg
    ]
    sentence = f"{where}, reland reaches a test NDCG@10 of {ndcg[RELAND.name]:.4f}: {', '.join(against)}"
    return f"{sentence.rstrip(': ')}. {_certainty(results)}".strip()


def writer_warning(provider: str) -> str:
    """The warning if the heuristic wrote the rationales; otherwise ""."""
    if provider != "heuristic":
        return ""
    return (
        "No LLM was used: the rationales of this run were put together from each seed user's own history by "
        "the offline heuristic. These numbers say nothing about what an LLM's rationales would add."
    )


def warnings(results: RunResults) -> list[str]:
    """What a reader must know before any number."""
    return [text for text in (writer_warning(results.pool.provider), last_epoch_warning(results)) if text]


def last_epoch_warning(results: RunResults) -> str:
    """The warning if the best epoch of a training was its last one; otherwise ""."""
    cut = [
        name
        for name, one in in_order(results).items()
        if may_improve(one.per_seed.epochs, one.per_seed.best_epoch)
    ]
    if not cut:
        return ""
    return (
        f"The best epoch of {', '.join(cut)} was the last one that was trained: with more epochs "
        "(config.train.max_epochs) it might be better, and a comparison with the others is not fair yet."
    )


def may_improve(epochs: Sequence[float | None], best_epoch: Sequence[float | None]) -> bool:
    """Whether the best epoch of a training was the last of several, for any training seed."""
    return any(
        last is not None and last > 1 and last == best for last, best in zip(epochs, best_epoch, strict=True)
    )


def seeds_words(content: ReportContent) -> str:
    """How many seed users there are, how each was chosen, and how active they are."""
    seeds, activity = content.seeds, content.activity
    if not len(seeds.user):
        return "No seed users are recorded."
    counts = ", ".join(f"{int((seeds.how == how).sum()):,} as {name}" for how, name in enumerate(HOW_NAMES))
    means = [f"all users {activity.mean():.1f}"]
    for how, name in enumerate(HOW_NAMES):
        chosen = activity[seeds.user[seeds.how == how]]
        if len(chosen):
            means.append(f"{name} seeds {chosen.mean():.1f}")
    clusters, share = len(np.unique(seeds.cluster)), len(seeds.user) / len(activity)
    return (
        f"{len(seeds.user):,} of {len(activity):,} users ({share:.1%}) are seed users: {counts}. They cover "
        f"{clusters:,} clusters. Mean number of training interactions: {', '.join(means)}. Representative "
        "seeds should resemble all users; important seeds are drawn in proportion to activity and should be "
        "more active."
    )


def borrowed(assignment: Assignment, seeds: SeedSet) -> np.ndarray:
    """Cosines to the nearest seed of the users who are not seed users themselves, ``<float32>[U - S]``."""
    own = np.zeros(len(assignment.cosine), bool)
    own[seeds.user] = True
    return assignment.cosine[~own, 0]


def assignment_words(assignment: Assignment, seeds: SeedSet) -> str:
    """The similarity of users and their seed users, and how many users share one rationale."""
    cosine = borrowed(assignment, seeds)
    if not len(cosine):
        return "Every user is a seed user with a rationale of their own; nothing is borrowed."
    low, median = np.quantile(cosine, [0.1, 0.5])
    used, sharing = np.unique(assignment.seed[:, 0], return_counts=True)
    return (
        f"{len(cosine):,} users borrow the rationale of the seed user whose training behaviour is most like "
        f"theirs. Half of them have a cosine of at least {median:.2f} to that seed, nine in ten at least "
        f"{low:.2f}. Near 1 the rationale was written for nearly the same history; the lower the cosine, the "
        f"more it is about someone else. {len(used):,} of {len(seeds.user):,} rationales are in use, each by "
        f"{sharing.mean():.1f} users on average and by {sharing.max():,} at most."
    )


def cost_of(results: RunResults, num_users: int) -> Table:
    """What the LLM was asked, or what it would be; and what asking about each of `num_users` would take."""
    bill = results.overview.expected
    if bill is None or results.pool.llm_inferences:
        return cost_table(results.pool, num_users)
    return expected_table(bill, results.pool.seeds, num_users)


def expected_table(bill: ExpectedBill, seeds: int, num_users: int) -> Table:
    """What an LLM would cost that writes about the seed users, and about each of `num_users`."""
    share = num_users / max(seeds, 1)
    rows = [
        ("prompts", f"{bill.prompts:,}", f"{bill.prompts * share:,.0f}"),
        ("tokens read", f"{bill.prompt_tokens:,}", f"{bill.prompt_tokens * share:,.0f}"),
        ("tokens written, at most", f"{bill.response_tokens:,}", f"{bill.response_tokens * share:,.0f}"),
    ]
    if bill.price is not None:
        price, everyone = (f"{value:.4f} {bill.currency}" for value in (bill.price, bill.price * share))
        rows.append(("price, at most", price, everyone))
    caption = (
        f"No LLM was asked. What asking {bill.model} (config.pool.model, prices of config.llm.prices) would "
        f"take, at the same prompts: for the {seeds:,} seed users, and for every one of {num_users:,} users."
    )
    return Table(caption, ("expected", "seed users", "every user"), rows)


def cost_table(pool: PoolFigures, num_users: int) -> Table:
    """LLM inferences and tokens of this run, and what asking for each of `num_users` would take."""
    inferences = pool.llm_inferences
    rows = [_cost_row("LLM inferences", inferences, num_users if inferences else None)]
    for name, count in (("tokens read", pool.prompt_tokens), ("tokens written", pool.response_tokens)):
        tokens = count if pool.tokens_known and inferences else None
        everyone = None if tokens is None else round(tokens / inferences * num_users)
        rows.append(_cost_row(name, tokens, everyone))
    caption = "What the LLM was asked, and what asking it about every user would cost at the same length."
    if not inferences:
        caption += f" No inference was made; an LLM would be asked for {pool.seeds:,} users of {num_users:,}."
    return Table(caption, ("cost", "this run", "for every user", "ratio"), rows)


def _cost_row(name: str, value: int | None, everyone: int | None) -> tuple[str, ...]:
    ratio = f"{everyone / value:.1f} times" if value and everyone else MISSING
    return (name, _count(value), _count(everyone), ratio)


def _count(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _certainty(results: RunResults) -> str:
    if not results.significance:
        return "No significance test was run: read a small difference as noise."
    sure = [
        pair.base
        for pair in EXPECTED
        if pair.ours == RELAND.name and is_significant_gain(results, pair, NDCG)
    ]
    if not sure:
        return "No gain of reland in NDCG@10 is significant after Holm."
    return f"The gain over {' and '.join(sure)} is significant (p < 0.05 after Holm)."
