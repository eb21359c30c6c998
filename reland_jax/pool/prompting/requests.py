"""From seed users and their training histories to requests for rationales (paper, section 3.1.2).

Texts are processed in the same way for all providers: cleaned by rule, scrubbed of personal data, optionally
cleaned by an LLM (step 0), cut to the newest items that fit, and put into the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.config import DataConfig, PoolConfig, nearest_name
from reland_jax.plain import text_columns
from reland_jax.pool.contract import AnswersPrompts, NoAnswer, Problem, RationaleRequest
from reland_jax.pool.prompting.cleaning import WITH_PROMOTION, clean_title
from reland_jax.pool.prompting.prompts import TokenLimit, item_text, newest_that_fit, numbered, shown_text
from reland_jax.pool.prompting.scrub import Scrubber, scrubber
from reland_jax.pool.prompting.step0 import (
    TitleList,
    answer_tokens,
    cleaned_titles,
    title_list,
    why_unreadable,
)
from reland_jax.pool.prompting.tokens import token_counter
from reland_jax.pool.templates import DOMAINS, check_domain, check_prompt, filled
from reland_jax.types import Interactions, Ragged, RelandError, SeedSet

CLEANINGS = ("rule", "llm")
"""Names that `config.pool.cleaning` may have."""

NAME_FIELDS = ("title", "name")
"""Text fields that hold the name of an item."""

_History = Sequence[Mapping[str, str]]


class PoolRequests(NamedTuple):
    """The requests for a pool.

    Attributes:
        seeds: the seed users with any text to show, aligned with `requests`.
        requests: one per seed user.
        problems: seed users that were left out, and answers to step 0 that were not used.
        step0: distinct prompts of step 0, () with `config.cleaning` "rule". Without answers to them,
            `requests` hold the titles as cleaned by rule.
        step0_of: external id -> the prompt of step 0 that shows this user's titles.
    """

    seeds: SeedSet
    requests: list[RationaleRequest]
    problems: list[Problem]
    step0: tuple[str, ...] = ()
    step0_of: Mapping[str, str] = {}


def pool_requests(
    seeds: SeedSet,
    train: Ragged,
    interactions: Interactions,
    config: PoolConfig,
    data: DataConfig,
    answers: AnswersPrompts | None = None,
) -> PoolRequests:
    """The requests for these seed users; nothing is sent except for step 0 if an LLM is given.

    Seed users whose last training items have no text, or whose newest item alone does not fit into
    `config.prompt_tokens`, are left out as problems.

    Args:
        seeds: the seed users.
        train: training items; only these are shown.
        interactions: external ids and the text fields of the items.
        config: history, kind of prompt, step 0, scrubbing and bound on tokens.
        data: `text_fields` and `domain`.
        answers: asks an LLM for step 0 if `config.cleaning` is "llm".

    Raises:
        RelandError: items without text fields, an unknown setting, a token limit below the template, or the
            provider failed.
    """
    _check(config, data)
    limit = _limit(config, data.domain)
    users = [str(interactions.ids.users[user]) for user in seeds.user.tolist()]
    histories = _histories(seeds.user, train, interactions, config, data)
    problems: list[Problem] = []
    step0_of: dict[str, str] = {}
    if config.cleaning == "llm":
        histories, step0_of, problems = _step0(users, histories, config, data.domain, limit, answers)
    made = [_request(*each, config, data.domain, limit) for each in zip(users, histories, strict=True)]
    kept = np.asarray([row for row, one in enumerate(made) if isinstance(one, RationaleRequest)], np.int64)
    problems = [one for one in made if isinstance(one, Problem)] + problems
    requests = [one for one in made if isinstance(one, RationaleRequest)]
    step0 = tuple(dict.fromkeys(step0_of.values()))
    return PoolRequests(seeds.rows(kept), requests, problems, step0, step0_of)


def _check(config: PoolConfig, data: DataConfig) -> None:
    check_domain(data.domain)
    check_prompt(config.prompt)
    if config.cleaning not in CLEANINGS:
        known = nearest_name(config.cleaning, CLEANINGS)
        raise RelandError(f"config.pool.cleaning={config.cleaning!r} is not known; {known}")


def _limit(config: PoolConfig, domain: str) -> TokenLimit | None:
    """The token limit of a prompt; an error if no title fits."""
    if config.prompt_tokens is None:
        return None
    limit = TokenLimit(config.prompt_tokens, token_counter(config))
    if not limit.allows(filled(config.prompt, domain, numbered(["a"]))):
        raise RelandError(
            f"config.pool.prompt_tokens={config.prompt_tokens} has no room for the template of "
            f"config.pool.prompt={config.prompt!r} (counted by {limit.counter.name}); raise it, or give None "
            "for no limit"
        )
    return limit


def _histories(
    users: np.ndarray, train: Ragged, interactions: Interactions, config: PoolConfig, data: DataConfig
) -> list[_History]:
    """Cleaned and scrubbed text fields of every user's last training items, oldest first."""
    features = _text_features(interactions, data)
    scrub = scrubber(config.scrub, config.names, map(str, interactions.ids.users.tolist()))
    rows = [train.row(user)[-config.history :].tolist() for user in users.tolist()]
    # Each item is described once, even if it is in several histories.
    described = {
        item: described_item({name: values[item] for name, values in features.items()}, data.domain, scrub)
        for item in dict.fromkeys(item for row in rows for item in row)
    }
    return [[described[item] for item in row] for row in rows]


def described_item(fields: Mapping[str, str], domain: str, scrub: Scrubber) -> dict[str, str]:
    """The text fields of an item, cleaned by rule and scrubbed.

    Args:
        fields: plain texts (`plain.text_columns`) by name.
        domain: `config.data.domain`.
        scrub: removes personal data; names of films and music are not searched for telephone numbers.
    """
    named = domain not in WITH_PROMOTION
    return {
        name: scrub(clean_title(text, domain), name=named and name in NAME_FIELDS)
        for name, text in fields.items()
    }


def _text_features(interactions: Interactions, data: DataConfig) -> dict[str, np.ndarray]:
    columns = text_columns(interactions.item_features, data.text_fields)
    if not columns:
        raise RelandError(
            f"config.data.text_fields={data.text_fields} are not fields of the items; the data have "
            f"{sorted(interactions.item_features) or 'no item fields'}. Prompts need texts; with provider "
            f"'file' they are not needed. Prompt wordings: {', '.join(DOMAINS)}"
        )
    return columns


def _request(
    user_id: str, history: _History, config: PoolConfig, domain: str, limit: TokenLimit | None
) -> RationaleRequest | Problem:
    """The request for one user, or why there is none."""
    texts = [shown_text(item_text(fields)) for fields in history]
    positions = [position for position, text in enumerate(texts) if text]
    if not positions:
        return Problem(user_id, f"none of the last {config.history} training items has a text")
    shown = [texts[position] for position in positions]
    count = newest_that_fit(shown, config.prompt, domain, limit)
    if not count:
        why = f"its newest item alone does not fit into config.pool.prompt_tokens={config.prompt_tokens}"
        return Problem(user_id, why)
    # Without a cut, items without a text are passed on too, for providers that do not read prompts.
    first = positions[-count] if count < len(positions) else 0
    prompt = filled(config.prompt, domain, numbered(shown[-count:]))
    return RationaleRequest(user_id, prompt, tuple(history[first:]))


def _step0(
    users: Sequence[str],
    histories: Sequence[_History],
    config: PoolConfig,
    domain: str,
    limit: TokenLimit | None,
    ask: AnswersPrompts | None,
) -> tuple[list[_History], dict[str, str], list[Problem]]:
    """The histories with titles cleaned by an LLM, the prompt of every user, and unused answers."""
    listed = [
        title_list([next(iter(fields.values())) for fields in history], domain, limit)
        for history in histories
    ]
    prompt_of = {user: one.prompt for user, one in zip(users, listed, strict=True) if one.prompt}
    prompts = tuple(dict.fromkeys(prompt_of.values()))
    if ask is None:
        return list(histories), prompt_of, []
    # The limit is part of the key in the journal, so it must not depend on the other users.
    longest = answer_tokens(config.history, config.max_tokens)
    answers = ask(prompts, longest, why_unreadable) if prompts else []
    by_prompt = dict(zip(prompts, answers, strict=True))
    cleaned: list[_History] = []
    problems = []
    for user, history, one in zip(users, histories, listed, strict=True):
        titles = _answered(one, by_prompt)
        if isinstance(titles, NoAnswer):
            problems.append(titles.problem(user, f"{titles.why}; its titles are cleaned by rule"))
            titles = list(one.titles)
        pairs = zip(history, titles, strict=True)
        cleaned.append([{**fields, next(iter(fields)): title} for fields, title in pairs])
    return cleaned, prompt_of, problems


def _answered(listed: TitleList, answers: Mapping[str, str | NoAnswer]) -> list[str] | NoAnswer:
    if not listed.prompt:
        full = "step 0 has no room for any title in config.pool.prompt_tokens"
        return NoAnswer(full, False) if any(listed.titles) else list(listed.titles)
    answer = answers[listed.prompt]
    if isinstance(answer, NoAnswer):
        return NoAnswer(f"step 0 has no answer: {answer.why}", answer.again)
    titles = cleaned_titles(listed, answer)
    return NoAnswer(titles, False) if isinstance(titles, str) else titles
