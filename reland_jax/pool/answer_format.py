"""The form of an answer as a JSON schema, for services that can hold an LLM to one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reland_jax.config import PoolConfig

FORMAT = "response_format"
"""Name of the parameter in the OpenAI protocol."""

NO_SCHEMA = "set config.pool.answers to text, or to auto, which asks without a schema where it is refused"

CATEGORIES, ITEMS = "recommended_categories", "recommended_items"

_ABOUT_FORMAT = re.compile(r"response_?format|json_?schema|\bschema|grammar|structured|guided", re.IGNORECASE)


def response_format(config: PoolConfig) -> dict[str, Any] | None:
    """The parameter that asks for an answer in fields.

    None where `config.answers` is "text", or the prompt asks for free text.

    The fields have the order in which the model should generate them: step 1, categories, items.
    """
    if config.answers == "text" or config.prompt == "factors":
        return None
    items = {ITEMS: _texts(5, 8)}
    steps = {"step1": {"type": "string"}, "step2": _fields({CATEGORIES: _texts(3, 5), **items})}
    schema = _fields(items if config.prompt == "direct" else steps)
    return {"type": "json_schema", "json_schema": {"name": "rationale", "strict": True, "schema": schema}}


def format_messages(config: PoolConfig) -> Sequence[Mapping[str, str]]:
    """The schema as the message that a service may add to the prompt, for counting tokens; [] without."""
    asked = response_format(config)
    return [{"role": "system", "content": json.dumps(asked)}] if asked else []


def is_about_format(said: str) -> bool:
    """Whether an error message of a service is about the response format."""
    return bool(_ABOUT_FORMAT.search(said))


def without_schema(prompts: int, model: str) -> str:
    """The remark on prompts that were sent without a schema."""
    return f"{prompts} prompts were sent without a JSON schema: the service refuses one for {model!r}"


def _fields(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with exactly these fields, all required, as strict mode demands."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _texts(fewest: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "minItems": fewest, "maxItems": most}
