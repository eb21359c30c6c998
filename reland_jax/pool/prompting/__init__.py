"""Prompts: templates, cleaned and scrubbed titles, step 0, and the count of tokens."""
