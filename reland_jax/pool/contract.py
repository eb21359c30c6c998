"""The interfaces of a provider, which writes rationales, and of a source, which reads an existing pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from reland_jax.types import Rationale, SeedSet

HEURISTIC = "heuristic"
"""`Rationale.model` of the offline provider, which uses no LLM."""

MayAsk = Callable[[str], bool]
"""Whether a prompt may be sent and its answer kept. It raises an error to stop all asking."""


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
    """Why an answer of an LLM cannot be used, according to the service.

    Attributes:
        why: the reason, for a message.
        cut: whether the token limit cut the answer off, so that a higher limit may help.
    """

    why: str
    cut: bool = False


class Problem(NamedTuple):
    """A problem with one seed user, for the report.

    Attributes:
        user_id: external id, "" where the problem belongs to no known user.
        why: what happened, with file and line where there is one.
    """

    user_id: str
    why: str

    @property
    def again(self) -> bool:
        """Whether running the same command again may solve it, see `Unanswered`."""
        return False


class Unanswered(Problem):
    """A seed user without an answer: none arrived, or none was requested. The same command asks again."""

    __slots__ = ()

    @property
    def again(self) -> bool:
        """Always true."""
        return True


class NoAnswer(NamedTuple):
    """Stands for a missing answer.

    Attributes:
        why: there is none.
        again: whether it may arrive if the prompt is sent again, see `Unanswered`.
    """

    why: str
    again: bool

    def problem(self, user_id: str, remark: str) -> Problem:
        """The problem of a user whose answer is missing, with another reason."""
        return (Unanswered if self.again else Problem)(user_id, remark)


class ProviderResult(NamedTuple):
    """The result of a provider.

    Attributes:
        rationales: aligned with the requests; None where there is no readable rationale. A rationale
            that is present always has a `step2`.
        problems: missing and unreadable answers, and remarks on those that were used.
    """

    rationales: list[Rationale | None]
    problems: list[Problem]


class SeedRationales(NamedTuple):
    """Seed users with their rationales, from a provider or a source.

    Attributes:
        seeds: S seed users.
        rationales: aligned with them; None where there is no readable one.
        problems: seed users that were left out, missing and unreadable answers, and remarks.
        left_out: number of seed users that were left out.
    """

    seeds: SeedSet
    rationales: list[Rationale | None]
    problems: list[Problem]
    left_out: int


class AnswersPrompts(Protocol):
    """Sends any prompt to the LLM of a provider, with the same journal and budget; used by step 0."""

    def __call__(
        self, prompts: Sequence[str], max_tokens: int, judge: Callable[[str], str]
    ) -> list[str | NoAnswer]:
        """The raw answer to every prompt, in order, or why there is no usable one.

        Args:
            prompts: each sent as one message of the user.
            max_tokens: bound on the tokens of an answer.
            judge: returns "" for a usable answer, else what is wrong with it.
        """
        ...


class Provider(Protocol):
    """Writes rationales for seed users (paper, section 3.1.2)."""

    @property
    def answers(self) -> AnswersPrompts | None:
        """Sends prompts other than for rationales to the LLM; None for a provider without one."""
        ...

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Answers every request; the result is dense and aligned with `requests`."""
        ...
