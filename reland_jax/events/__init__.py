"""Logs of impressions for rankers: reading, splits by days, arrays of fixed shape, and metrics."""

from __future__ import annotations

from reland_jax.events import domains, kuairand, shop, streamed
from reland_jax.events.batches import Batches, Rows
from reland_jax.events.bootstrap import compare
from reland_jax.events.build import Tables, build
from reland_jax.events.contract import Events, Feature, Label, Multi, Schema, refuse_later, without
from reland_jax.events.days import Days, DaySplit, days_between, last_days, split_days
from reland_jax.events.encoding import (
    Batch,
    Encoded,
    Encoding,
    columns_of,
    encode,
    fit,
    gather,
    unseen_shares,
)
from reland_jax.events.leaks import Judged, refuse_leaks
from reland_jax.events.levels import Levels, activity_levels
from reland_jax.events.quality import Predictions, Quality, evaluate
from reland_jax.events.reading import FUNNEL, read, schema_of_atomic
from reland_jax.events.storing import read_schema

__all__ = [
    "FUNNEL",
    "Batch",
    "Batches",
    "DaySplit",
    "Days",
    "Encoded",
    "Encoding",
    "Events",
    "Feature",
    "Judged",
    "Label",
    "Levels",
    "Multi",
    "Predictions",
    "Quality",
    "Rows",
    "Schema",
    "Tables",
    "activity_levels",
    "build",
    "columns_of",
    "compare",
    "days_between",
    "domains",
    "encode",
    "evaluate",
    "fit",
    "gather",
    "kuairand",
    "last_days",
    "read",
    "read_schema",
    "refuse_later",
    "refuse_leaks",
    "schema_of_atomic",
    "shop",
    "split_days",
    "streamed",
    "unseen_shares",
    "without",
]
