"""Why a user is recommended something, as plain values: seed users with their rationales, and evidence.

The evidence is read off what the model has read: words that an item's text shares with the rationales, and
history items that are most like it to the model. It does not say that the score would be another without.
For linear models the contributions do: they add up to the score.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from reland_jax.report.content import ItemLabel
from reland_jax.types import Rationale

MOST_HISTORY = 3
"""History items that are named for a recommended item."""

_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    "and are but can for from has have her his how its may more not other our out such than that the their "
    "them they this was who will with you your item items like likes user users categories category".split()
)
"""Words that say nothing of a taste."""


@dataclasses.dataclass(frozen=True)
class MatchedSeed:
    """A seed user whose rationale a user is given.

    Attributes:
        user_id: external id of the seed user, from whose history the rationale was written.
        weight: cosine of the two users, in [-1, 1]; for a user without training items a share of votes.
        is_own: whether it is the user itself; otherwise the rationale is borrowed.
        step1: the user's preferences in one sentence.
        step2: recommended categories and items, the text that the model reads.
        model: who wrote it.
    """

    user_id: str
    weight: float
    is_own: bool
    step1: str
    step2: str
    model: str


BORROWED = ("step2", "all", "none")
"""What may be shown of a rationale of another user: what it recommends, also that user's tastes, nothing."""


def shown(said: Rationale | MatchedSeed, is_own: bool, borrowed: str = "step2") -> tuple[str, str]:
    """Both steps of a rationale, as far as they may be shown to a user; "" for what may not.

    The first step is about the user from whose history it was written, and may mention what that user had.

    Args:
        said: the rationale.
        is_own: whether it was written from the history of the user who sees it.
        borrowed: of `BORROWED`.
    """
    if is_own or borrowed == "all":
        return said.step1, said.step2
    return "", said.step2 if borrowed == "step2" else ""


def sentence(said: Rationale | MatchedSeed, is_own: bool, borrowed: str = "step2") -> str:
    """The first step that may be shown: the user's own tastes, else what an LLM recommends to its like."""
    step1, step2 = shown(said, is_own, borrowed)
    return step1 or step2


@dataclasses.dataclass(frozen=True)
class Contribution:
    """What a history item adds to a score of a linear model.

    Attributes:
        item: id and title.
        score: in the unit of the score; may be below 0.
    """

    item: ItemLabel
    score: float


@dataclasses.dataclass(frozen=True)
class ItemEvidence:
    """What speaks for a recommended item.

    Attributes:
        item: id and title.
        score: of the model, comparable within one list.
        words: of the item's text, which the rationales have too.
        history: items of the user that are most like it to the model, the likest first.
        contributions: of a linear model: what each history item adds to the score, the most first. With
            `of_rationales` they are the score. Empty for other models, whose scores are no such sum.
        of_rationales: of a linear model: what the rationales add; 0 without any.
    """

    item: ItemLabel
    score: float
    words: tuple[str, ...]
    history: tuple[ItemLabel, ...]
    contributions: tuple[Contribution, ...] = ()
    of_rationales: float = 0.0


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation:
    """A user's recommendations and what they rest on; printed, it is a text for people.

    Attributes:
        user_id: external id; "" for a user of a given history.
        history: all that the user had, oldest first.
        seeds: matched seed users, nearest first; empty for a variant without rationales.
        items: recommended items, best first.
    """

    user_id: str
    history: tuple[ItemLabel, ...]
    seeds: tuple[MatchedSeed, ...]
    items: tuple[ItemEvidence, ...]

    def __repr__(self) -> str:
        """The explanation as lines to read, in a notebook as well."""
        lines = [f"user {self.user_id or '(given by a history)'}", "had, oldest first:"]
        lines += [f"  {_named(item)}" for item in self.history]
        for seed in self.seeds:
            whose = "own" if seed.is_own else "borrowed from a similar user"
            lines += [f"rationale of {seed.user_id} ({whose}; weight {seed.weight:.2f}), by {seed.model}:"]
            lines += [f"  {step}" for step in (seed.step1, seed.step2) if step]
        for rank, each in enumerate(self.items, 1):
            lines += [f"{rank}. {_named(each.item)}, score {each.score:.3f}", *_reasons(each)]
        return "\n".join(lines)


def _named(item: ItemLabel) -> str:
    return f"{item.item_id} {item.title}".rstrip()


def _reasons(of: ItemEvidence) -> list[str]:
    """What speaks for an item, a line for each kind that there is."""
    added = [f"{_named(each.item)} {each.score:+.3f}" for each in of.contributions]
    if of.contributions:
        added += [f"rationales {of.of_rationales:+.3f}"] * bool(of.of_rationales)
    told = {
        "words in the rationales": of.words,
        "most like it of the history": [_named(each) for each in of.history],
        "adds to the score": added,
    }
    return [f"     {what}: {', '.join(found)}" for what, found in told.items() if found]


def shared_words(text: str, rationales: Sequence[Rationale]) -> tuple[str, ...]:
    """Words of a text that rationales have too, each once, in the order of the text, in small letters."""
    said = {word for each in rationales for word in _words(f"{each.step1} {each.step2}")}
    return tuple(dict.fromkeys(word for word in _words(text) if word in said))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _COMMON]


def nearest_in(history: np.ndarray, alike: np.ndarray, item: int) -> np.ndarray:
    """The history items that speak most for an item, ``<int32>[n]``, at most `MOST_HISTORY`.

    Args:
        history: ``<int32>[m]``, distinct.
        alike: ``<float32>[m, I + 1]``, see `readers.likeness`.
        item: the item; it does not speak for itself.
    """
    found = np.where(history == item, -np.inf, alike[:, item])
    order = np.argsort(-found, kind="stable")[:MOST_HISTORY]
    return history[order[found[order] > 0]]
