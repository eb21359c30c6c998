"""Linear models with their data."""

from __future__ import annotations

from reland_jax.models import AnyTables, Linear
from reland_jax.models.ease import Ease
from reland_jax.train.closed_form import ClosedForm, check_users, closed_form, lists_of
from reland_jax.train.ials import factorisation
from reland_jax.train.sparse_ease import sparse_form
from reland_jax.types import Splits


def linear_task(model: Linear, tables: AnyTables, splits: Splits, max_length: int) -> ClosedForm:
    """What `fit` solves for.

    Args:
        model: which model.
        tables: of the host: item texts, rationales and seed users, where the variant reads them.
        splits: training part and histories.
        max_length: newest items of a history that are read, where they are weighed by their age.

    Raises:
        RelandError: a user without training items.
    """
    check_users(splits.train)
    if not isinstance(model, Ease):
        return factorisation(model, tables, splits)
    before = lists_of(model, tables, splits.train, max_length)
    lists = {"valid": before, "test": before}
    if model.recency:  # Histories of sets end at the training part, as for other backbones of sets.
        lists["test"] = lists_of(model, tables, splits.train.joined(splits.valid), max_length)
    solved = sparse_form if model.config.form == "sparse" else closed_form
    return solved(model, tables, splits, lists)
