"""Knowledge of scenarios and of users across them, as texts and as vectors.

What an LLM is asked: of every scenario, what it shares with the others and how it differs, from the
statistics of training rows and a description; of some users, what they want across scenarios, from what they
clicked in each. Requests go the way of the reasoning pool, by its providers, journal and budget. Without an
LLM the same statistics are put into sentences.
"""

from reland_jax.knowledge.asking import Told, tell
from reland_jax.knowledge.facts import (
    ScenarioFacts,
    UserFacts,
    facts_of_scenarios,
    facts_of_users,
    item_words,
)
from reland_jax.knowledge.hidden_states import hidden_states
from reland_jax.knowledge.prompts import scenario_prompt, user_prompt
from reland_jax.knowledge.sentences import scenario_text, user_text
from reland_jax.knowledge.vector_file import VectorFile, read_vectors

__all__ = [
    "ScenarioFacts",
    "Told",
    "UserFacts",
    "VectorFile",
    "facts_of_scenarios",
    "facts_of_users",
    "hidden_states",
    "item_words",
    "read_vectors",
    "scenario_prompt",
    "scenario_text",
    "tell",
    "user_prompt",
    "user_text",
]
