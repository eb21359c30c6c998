"""Facts as sentences, without an LLM; they count as no call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from reland_jax.knowledge.facts import ScenarioFacts, UserFacts

_OFTEN = 4


def scenario_text(facts: ScenarioFacts, others: Sequence[ScenarioFacts], description: str = "") -> str:
    """What a scenario has in common with the others, and how it differs.

    Args:
        facts: of the scenario.
        others: of all scenarios.
        description: of the scenario, by whoever runs it.
    """
    mean = sum(each.rate * each.rows for each in others) / max(sum(each.rows for each in others), 1)
    shared = sorted(facts.shared.items(), key=lambda entry: -entry[1])
    sentences = [
        f"Scenario {facts.name}{f': {description}' if description else ''}.",
        f"It has {facts.share:.1%} of the impressions, {facts.users:,} users and {facts.items:,} items.",
        f"{facts.rate:.1%} are clicked, {'more' if facts.rate > mean else 'less'} than the mean, {mean:.1%}.",
    ]
    sentences += [f"Of its users {part:.0%} are in {name} too." for name, part in shared[:_OFTEN]]
    for words, how in ((facts.liked, "more"), (facts.disliked, "less")):
        if words:
            sentences.append(f"Clicked {how} than elsewhere: {'; '.join(words)}.")
    return " ".join(sentences)


def user_text(facts: UserFacts) -> str:
    """What a user clicks in each scenario and in all; "" for one who never clicked."""
    if not facts.clicked:
        return ""
    every = [word for words in facts.clicked.values() for word in words]
    sentences = [f"Clicks most: {_most(every)}."]
    for name, (rows, clicks) in facts.seen.items():
        what = f", most of {_most(facts.clicked[name])}" if name in facts.clicked else ""
        sentences.append(f"In {name} {clicks} of {rows}{what}.")
    return " ".join(sentences)


def _most(words: Sequence[str]) -> str:
    counted: Mapping[str, int] = Counter(part for each in words for part in each.split(", "))
    return "; ".join(sorted(counted, key=lambda word: (-counted[word], word))[:_OFTEN])
