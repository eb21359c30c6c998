"""From raw files to interactions with dense ids, their splits and the texts of the items."""

from __future__ import annotations

from reland_jax.data.accounting import report_line, report_lines, report_text
from reland_jax.data.describe import data_fingerprint, item_texts, statistics, text_coverage
from reland_jax.data.entities import item_entities
from reland_jax.data.finding import raw_state
from reland_jax.data.loading import load_interactions
from reland_jax.data.splits import NOTHING_HELD_OUT, REFRESHED, split, unsplit

__all__ = [
    "NOTHING_HELD_OUT",
    "REFRESHED",
    "data_fingerprint",
    "item_entities",
    "item_texts",
    "load_interactions",
    "raw_state",
    "report_line",
    "report_lines",
    "report_text",
    "split",
    "statistics",
    "text_coverage",
    "unsplit",
]
