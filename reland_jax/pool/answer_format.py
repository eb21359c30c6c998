"""The form of an answer as a JSON schema, for services that can hold an LLM to one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reland_jax.config import PoolConfig

FORMAT = "response_format"
"""What the OpenAI protocol calls it."""

NO_SCHEMA = "set config.pool.answers to text, or to auto, which asks without a schema where it is refused"

CATEGORIES, ITEMS = "recommended_categories", "recommended_items"

_ABOUT_FORMAT = re.compile(r"response_?format|json_?schema|\bschema|grammar|structured|guided", re.IGNORECASE)


def response_format(config: PoolConfig) -> dict[str, Any] | None:
    """The parameter that asks for an answer in fields, None where `config.answers` is "text".

    The fields stand in the order in which they are to be thought of: step 1, then categories, then items.
    """
    if config.answers == "text":
        return None
    items = {ITEMS: _texts(5, 8)}
    steps = {"step1": {"type": "string"}, "step2": _fields({CATEGORIES: _texts(3, 5), **items})}
    schema = _fields(items if config.prompt == "direct" else steps)
    return {"type": "json_schema", "json_schema": {"name": "rationale", "strict": True, "schema": schema}}


def format_messages(config: PoolConfig) -> Sequence[Mapping[str, str]]:
    """The schema as the message that a service may add to a chat, for counts of tokens; [] without one."""
    asked = response_format(config)
    return [{"role": "system", "content": json.dumps(asked)}] if asked else []


def is_about_format(said: str) -> bool:
    """Whether an error of a service speaks of the form that the answer should have."""
    return bool(_ABOUT_FORMAT.search(said))


def without_schema(prompts: int, model: str) -> str:
    """The remark on prompts that were asked without a schema."""
    return f"{prompts} prompts were asked without a JSON schema of the answer, which is refused for {model!r}"


def _fields(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with these fields, all of them and no other: what a strict service demands."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _texts(fewest: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "minItems": fewest, "maxItems": most}
