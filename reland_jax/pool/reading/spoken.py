"""What an LLM says to the user, out of all that it writes."""

from __future__ import annotations

import re

_THOUGHT_WORD = re.compile(
    r"(?:think|thought|reason|analy[sz]|reflect|ponder|deliberat|contemplat|introspect|ruminat|brainstorm"
    r"|scratch|monolog|cogitat)\w*|cot|思考|思维|推理|分析",
    re.IGNORECASE,
)


def is_thought(name: str) -> bool:
    """Whether the name of a mark, a field or a part says that thoughts are in it ("reasoning_content")."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+", name)
    return any(_THOUGHT_WORD.fullmatch(word) for word in words)
