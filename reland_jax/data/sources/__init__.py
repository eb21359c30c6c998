"""Readers of raw files, one module per format; each returns a `raw.RawTable`."""

from __future__ import annotations
