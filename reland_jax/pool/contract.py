"""What a writer of rationales (a provider) receives and returns, and what a source of a pool brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from reland_jax.types import Rationale, SeedSet

HEURISTIC = "heuristic"
"""What `Rationale.model` says of the offline writer, which is no LLM."""

MayAsk = Callable[[str], bool]
"""Says of a prompt whether it may still be sent and its answer be kept; it raises to end the asking."""


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


class SeedRationales(NamedTuple):
    """Seed users with their rationales, of whatever origin.

    Attributes:
        seeds: S seed users.
        rationales: aligned with them; None where there is no readable one.
        problems: seed users that were left out, and what was missing, unreadable or read with a remark.
        left_out: number of seed users that were left out.
    """

    seeds: SeedSet
    rationales: list[Rationale | None]
    problems: list[Problem]
    left_out: int


class AnswersPrompts(Protocol):
    """What a provider offers for step 0: its LLM answers any prompt, by the same journal and budget."""

    def __call__(
        self, prompts: Sequence[str], max_tokens: int, judge: Callable[[str], str]
    ) -> list[str | NoAnswer]:
        """The raw answer to every prompt, in their order, or why there is no usable one.

        Args:
            prompts: each sent as one message of the user.
            max_tokens: bound on the tokens of an answer.
            judge: "" for a usable answer, else in words what is wrong with it.
        """
        ...


class Provider(Protocol):
    """Writes rationales for seed users (paper, section 3.1.2)."""

    @property
    def answers(self) -> AnswersPrompts | None:
        """Asks its LLM prompts that are not about rationales; None where it asks no LLM by itself."""
        ...

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Answers every request; the result is dense and aligned with `requests`."""
        ...
