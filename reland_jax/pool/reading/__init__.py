"""Parses answers of LLMs: finds the two steps in many formats."""
