"""Linear models with their data."""

from __future__ import annotations

from reland_jax.models import AnyTables, Linear
from reland_jax.models.ease import Ease
from reland_jax.train.closed_form import ClosedForm, check_users, closed_form, lists_of
from reland_jax.train.ials import factorisation
from reland_jax.train.sparse_ease import sparse_form
from reland_jax.types import Splits


def linear_task(
    model: Linear, tables: AnyTables, splits: Splits, max_length: int, history: str = "train"
) -> ClosedForm:
    """What `fit` solves for.

    Args:
        model: which model.
        tables: of the host: item texts, rationales and seed users, where the variant reads them.
        splits: training part and histories.
        max_length: newest items of a history that are read, where they are weighed by their age.
        history: what models of sets read for the test part, see `EvalConfig`.

    Raises:
        RelandError: a user without training items.
    """
    check_users(splits.train)
    known = splits.train.joined(splits.valid)
    if not isinstance(model, Ease):
        return factorisation(model, tables, splits, known if history == "known" else splits.train)
    before = lists_of(model, tables, splits.train, max_length)
    lists = {"valid": before, "test": before}
    if model.recency or history == "known":
        lists["test"] = lists_of(model, tables, known, max_length)
    solved = sparse_form if model.config.form == "sparse" else closed_form
    return solved(model, tables, splits, lists)
