"""Reads a prompt back, for tests: what it shows, and what stands around it."""

from __future__ import annotations

import json
import re


def shown(prompt: str, tag: str = "history") -> list[str]:
    """The titles in a prompt, by the rule that the prompt states; fails if the rule is broken."""
    _, block, _ = frame(prompt, tag)
    lines = [re.fullmatch(r'(\d+)\. (".*")', line) for line in block.split("\n")]
    assert [int(line[1]) for line in lines] == list(range(1, len(lines) + 1))
    return [json.loads(line[2]) for line in lines]


def frame(prompt: str, tag: str = "history") -> tuple[str, str, str]:
    """What stands before, between and after the tags, each of which stands alone on its line once."""
    assert prompt.count(f"\n<{tag}>\n") == prompt.count(f"\n</{tag}>\n") == 1
    before, rest = prompt.split(f"\n<{tag}>\n")
    block, after = rest.split(f"\n</{tag}>\n")
    return before, block, after
