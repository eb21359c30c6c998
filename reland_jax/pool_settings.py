"""Settings of the reasoning pool and of asking an LLM; `reland_jax.config` has them with all others."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import setting as _setting
from reland_jax.types import RelandError

PROVIDERS = ("heuristic", "file", "store", "openai", "batch")
POOL_SOURCES = ("file", "store")
"""The providers that read an existing pool, which brings its own seed users."""
PROMPTS = ("steps", "direct", "factors")


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """Who writes the rationales, and from what."""

    provider: str = _setting(
        "heuristic",
        "where rationales come from: heuristic is offline and no LLM, file and store are pools that exist",
        choices=PROVIDERS,
        gone={
            "hf": "a local model is asked by 'openai', through a server (vLLM, llama.cpp, Ollama or that "
            "of python -m launch.local_llm) whose address is in the environment variable OPENAI_BASE_URL"
        },
    )
    path: str | None = _setting(
        None, "file, store: the pool to read, a .jsonl file or the folder of a store", path=True, none="none"
    )
    held_out: int = _setting(
        2, "file: number of each user's last items that the writer of the file was not shown", low=0
    )
    history: int = _setting(30, "most recent training items shown in a prompt", low=1)
    prompt: str = _setting(
        "steps", "steps (the paper's steps 1 and 2), direct (the paper's ablation), or factors (KAR's "
        "preference reasoning, in free text)", choices=PROMPTS
    )  # fmt: skip
    cleaning: str = _setting(
        "rule", "what removes promotional noise from titles (step 0); llm asks first", choices=("rule", "llm")
    )
    prompt_tokens: int | None = _setting(
        None, "most tokens of a prompt; the oldest items of a history are left out first", low=1, none="any"
    )
    tokenizer: str | None = _setting(
        None, "how tokens are counted: characters estimates them from the length", choices=("characters",),
        none="by tiktoken for models of OpenAI, else characters",
    )  # fmt: skip
    scrub: tuple[str, ...] = _setting(
        ("email", "phone"), "what is blanked out of titles", choices=("email", "phone", "names"), names=True
    )
    names: tuple[str, ...] = _setting((), "names to blank out, or files with one name per line", path=True)
    any_script: bool = _setting(
        False, "use answers and pool files in other scripts than Latin, for a text.encoder that knows them"
    )
    answers: str = _setting(
        "auto", "form of answers; auto: by schema where offered",
        choices=("auto", "text", "json_schema"), added=True,
    )  # fmt: skip
    model: str = _setting("gpt-3.5-turbo", "openai, batch: model, as the service calls it", path=True)
    max_tokens: int = _setting(400, "bound on the length of an answer, in tokens", low=1)
    temperature: float = _setting(0.0, "sampling temperature", low=0)

    def path_to_read(self) -> str:
        """`path`, for a provider that reads a pool.

        Raises:
            RelandError: it is None.
        """
        if self.path is None:
            pool = "the folder of the store" if self.provider == "store" else "the pool file (.jsonl)"
            raise RelandError(f"config.pool.path is None; with provider {self.provider!r} it names {pool}")
        return self.path


@dataclasses.dataclass(frozen=True)
class LLMConfig:
    """How an LLM is asked. No setting here changes a finished pool.

    The endpoint and its key are not settings: they are read from the environment variables
    OPENAI_BASE_URL and OPENAI_API_KEY, and never stored.
    """

    concurrency: int = _setting(64, "concurrent requests", low=1)
    requests_per_minute: int | None = _setting(
        None, "most requests that are sent per minute", low=1, none="no limit"
    )
    tokens_per_minute: int | None = _setting(
        None, "most tokens that are read and written per minute", low=1, none="no limit"
    )
    timeout_seconds: float = _setting(60.0, "longest wait for one answer", low=1e-3)
    longest_wait: float = _setting(
        600.0, "longest wait that a service may ask for (Retry-After) while no answer arrives, in seconds",
        low=1e-3,
    )  # fmt: skip
    attempts: int = _setting(6, "tries of one prompt before its seed user goes without a rationale", low=1)
    breaker_failures: int = _setting(
        20, "failures in a row, of all requests, after which the job stops", low=1
    )
    budget_tokens: int | None = _setting(
        None, "hard limit on the tokens read and written by this journal", low=1, high=10**15, none="no limit"
    )
    budget: float | None = _setting(
        None, "hard limit on the money spent by this journal", above=0, none="no limit"
    )
    currency: str = _setting("USD", "of the budget and the prices")
    prices: tuple[str, ...] = _setting(
        ("gpt-3.5-turbo=0.50/1.50", "gpt-4o-mini=0.15/0.60"),
        "MODEL=PROMPT/RESPONSE, prices of a million tokens; set those of your contract",
    )
    journal: str | None = _setting(
        None, "SQLite file of requests and answers", path=True, none="journal.sqlite in the workdir"
    )
    responses: str | None = _setting(
        None, "batch: the response file", path=True, none="batch_responses.jsonl in the workdir"
    )
    upload: bool = _setting(False, "batch: send, poll and fetch through the Batch API, instead of by hand")
    poll_seconds: float = _setting(60.0, "batch: seconds between polls of a batch", low=1e-3)
