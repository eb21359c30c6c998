"""The common part of all providers that ask an LLM."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.replies import Asked, Judge, judge_for, provider_result, texts_of
from reland_jax.pool.contract import MayAsk, NoAnswer, ProviderResult, RationaleRequest


class LLMProvider(ABC):
    """Asks an LLM for rationales, with all answers in the journal."""

    def __init__(
        self, config: PoolConfig, llm: LLMConfig, folder: str | Path, may_ask: MayAsk | None = None
    ) -> None:
        """Reads and sends nothing yet.

        Args:
            config: model, prompt and sampling.
            llm: limits, budget and journal.
            folder: for the journal, if `llm.journal` is None.
            may_ask: called for every prompt; None allows all.
        """
        self._config, self._llm, self._folder = config, llm, Path(folder)
        self._may_ask = may_ask

    @abstractmethod
    def _ask(self, prompts: Sequence[str], config: PoolConfig, judge: Judge) -> Asked:
        """Sends every prompt without an answer in the journal."""

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Answers every request; see `Provider`.

        Raises:
            BudgetReached: the budget is used up; answers so far are in the journal.
            RelandError: the service is missing or refuses; or the journal cannot be used.
        """
        prompts = [request.prompt for request in requests]
        asked = self._ask(prompts, self._config, judge_for(self._config))
        return provider_result(requests, asked, self._config)

    def answers(self, prompts: Sequence[str], max_tokens: int, judge: Judge) -> list[str | NoAnswer]:
        """Answers prompts that are not about rationales (step 0 by the LLM); see `AnswersPrompts`.

        Raises:
            RelandError: as above.
        """
        config = dataclasses.replace(self._config, max_tokens=max_tokens, answers="text")
        return texts_of(prompts, self._ask(prompts, config, judge), config)
