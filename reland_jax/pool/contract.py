"""The contract of every provider: what a writer of rationales receives and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from reland_jax.types import Rationale

HEURISTIC = "heuristic"
"""What `Rationale.model` says of the offline writer, which is no LLM."""


class RationaleRequest(NamedTuple):
    """One seed user about whom a rationale is wanted.

    Attributes:
        user_id: external id; it names the answer and is never part of the prompt.
        prompt: the whole prompt, "" for a provider that does not read prompts.
        history: text fields of the shown training items, oldest first, each a mapping of field name
            to cleaned text (step 0); () for a provider that does not read them.
    """

    user_id: str
    prompt: str
    history: tuple[Mapping[str, str], ...] = ()


class Flaw(NamedTuple):
    """Why an answer of an LLM cannot be used, by what the service says of it.

    Attributes:
        why: in words.
        cut: whether the bound on tokens ended the answer, so that more room may help.
    """

    why: str
    cut: bool = False


class Problem(NamedTuple):
    """Something that a person should know about one seed user.

    Attributes:
        user_id: external id, "" where the problem belongs to no known user.
        why: what happened, with file and line where there is one.
    """

    user_id: str
    why: str

    @property
    def again(self) -> bool:
        """Whether the same command can put it right, see `Unanswered`."""
        return False


class Unanswered(Problem):
    """A problem that the same command can put right: no answer came, or none was asked for."""

    __slots__ = ()

    @property
    def again(self) -> bool:
        """It can."""
        return True


class NoAnswer(NamedTuple):
    """What stands in place of an answer.

    Attributes:
        why: there is none.
        again: whether it may come when the prompt is asked again, see `Unanswered`.
    """

    why: str
    again: bool

    def problem(self, user_id: str, remark: str) -> Problem:
        """The problem that it is for a user, in other words."""
        return (Unanswered if self.again else Problem)(user_id, remark)


class ProviderResult(NamedTuple):
    """What a provider could deliver.

    Attributes:
        rationales: aligned with the requests; None where there is no readable rationale. A rationale
            that is present always has a `step2`.
        problems: what was missing, unreadable or read with a remark.
    """

    rationales: list[Rationale | None]
    problems: list[Problem]


class Provider(Protocol):
    """Writes rationales for seed users (paper, section 3.1.2)."""

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Answers every request; the result is dense and aligned with `requests`."""
        ...
