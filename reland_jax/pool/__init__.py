"""The LLM Reasoning Pool: prompts, providers of rationales, the parser of answers, and pool files."""

from __future__ import annotations

from reland_jax.pool.build import (
    build_pool,
    expected_cost,
    missing_answers_note,
    pool_ledger,
    pool_provenance,
    pool_state,
    refuse_to_pay_again,
    written_by_counts,
)
from reland_jax.pool.contract import Problem, Provider, ProviderResult, RationaleRequest, Unanswered
from reland_jax.pool.folder import PoolSummary, load_pool, pool_summary, read_manifest, save_pool
from reland_jax.pool.pool_file import FileRationale, read_pool_file
from reland_jax.pool.prompting.cleaning import clean_title
from reland_jax.pool.prompting.prompts import build_prompt, prompt_hash
from reland_jax.pool.providers import PROVIDERS, make_provider
from reland_jax.pool.providers.batch import AwaitingResponses
from reland_jax.pool.reading.parser import ParsedRationale, parse_response
from reland_jax.pool.reading.phrases import phrases_of
from reland_jax.pool.templates import DOMAINS, PROMPT_VERSION

__all__ = [
    "PoolSummary",
    "DOMAINS",
    "PROMPT_VERSION",
    "PROVIDERS",
    "AwaitingResponses",
    "FileRationale",
    "ParsedRationale",
    "Problem",
    "Provider",
    "ProviderResult",
    "RationaleRequest",
    "Unanswered",
    "build_pool",
    "build_prompt",
    "clean_title",
    "expected_cost",
    "load_pool",
    "make_provider",
    "parse_response",
    "phrases_of",
    "pool_ledger",
    "pool_provenance",
    "pool_state",
    "pool_summary",
    "prompt_hash",
    "read_manifest",
    "read_pool_file",
    "refuse_to_pay_again",
    "save_pool",
    "missing_answers_note",
    "written_by_counts",
]
