"""Figure 8 from trained recommenders: ranks, lists, rationales and titles of the users that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.analysis.cases import PAPER_USER, Labelled, Shown, as_plain, cells_of, drawn
from reland_jax.variants import F_ITEM, ID, RELAND

if TYPE_CHECKING:
    from reland_jax.config import Config
    from reland_jax.flow import Made
    from reland_jax.storage import Trained

COMPARED = (ID.name, F_ITEM.name, RELAND.name)
_SEED = 0


def trained_cases(config: Config, folder: Path) -> dict[str, Any]:
    """The cases of a backbone, see `cases.as_plain`; what is not trained yet is trained.

    Args:
        config: data, pool and backbone.
        folder: of the artefacts, where backbones have folders of their own below "train".

    Raises:
        RelandError: bad data, pool or settings.
    """
    from reland_jax import flow
    from reland_jax.stages import FLOW, training

    made, place = flow.run(FLOW, config, folder), f"train/{config.model.backbone}"
    trained = {name: made.make(training(made, name, _SEED, place)) for name in COMPARED}
    users, ranks = _first_targets(trained)
    cells = cells_of(users, ranks[RELAND.name], ranks[ID.name], _own(made, users))
    chosen = _of_paper(made, config, users) + [
        (f"{cell.outcome}, {cell.source} rationale", user) for cell, user in drawn(cells)
    ]
    row_of = {user: row for row, user in enumerate(users.tolist())}
    shown = _shown(made, trained, place, row_of, ranks, chosen)
    return as_plain(Path(config.data.name).name, config.model.backbone, cells, shown)


def _first_targets(trained: Mapping[str, Trained]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Users with a test item, ``<int64>[n]``, and the rank of the first of it by variant, from 1."""
    one = trained[ID.name].ranks["test"]
    users, first = np.unique(one.user, return_index=True)
    return users, {name: each.ranks["test"].rank[first] for name, each in trained.items()}


def _own(made: Made, users: np.ndarray) -> np.ndarray:
    from reland_jax.stages import ASSIGN, BUILD_POOL

    nearest = made[ASSIGN].seed[users, 0]
    return np.asarray(made[BUILD_POOL].pool.seeds.user[nearest] == users)


def _of_paper(made: Made, config: Config, users: np.ndarray) -> list[tuple[str, int]]:
    from reland_jax.stages import LOAD

    wanted = PAPER_USER.get(Path(config.data.name).name)
    rows = np.flatnonzero(made[LOAD].ids.users == wanted).tolist() if wanted else []
    return [("the user whom the paper shows", row) for row in rows if row in users]


def _shown(
    made: Made,
    trained: Mapping[str, Trained],
    place: str,
    row_of: Mapping[int, int],
    ranks: Mapping[str, np.ndarray],
    chosen: list[tuple[str, int]],
) -> list[Shown]:
    """The chosen users in full."""
    from reland_jax.stages import ASSIGN, BUILD_POOL, LOAD, SPLIT

    label, splits = _Labels(made), made[SPLIT]
    users = np.array([user for _, user in chosen], np.int64)
    lists = {name: _lists(made, trained, name, place, users) for name in COMPARED}
    pool, ids, found = made[BUILD_POOL].pool, made[LOAD].ids.users, []
    for number, (why, user) in enumerate(chosen):
        row, cosine = made[ASSIGN].seed[user, 0], float(made[ASSIGN].cosine[user, 0])
        seed, rationale = int(pool.seeds.user[row]), pool.rationales[row]
        had = [*splits.train.row(user).tolist(), *splits.valid.row(user).tolist()]
        found.append(Shown(
            str(ids[user]), why, [label(item) for item in had], label(int(splits.test.row(user)[0])),
            str(ids[seed]), cosine, seed == user, rationale.step1, rationale.step2,
            {name: int(ranks[name][row_of[user]]) for name in COMPARED},
            {name: [label(int(item)) for item in items[number] if item] for name, items in lists.items()},
        ))  # fmt: skip
    return found


def _lists(
    made: Made, trained: Mapping[str, Trained], name: str, place: str, users: np.ndarray
) -> np.ndarray:
    from reland_jax.stages import lists_to_show

    return lists_to_show(made, trained[name], name, _SEED, users, place)


class _Labels:
    """Titles and brands of items."""

    def __init__(self, made: Made) -> None:
        from reland_jax.plain import text_columns
        from reland_jax.report.cases import Labels
        from reland_jax.stages import LOAD

        self._of_report = Labels(made[LOAD])
        self._brands = text_columns(made[LOAD].item_features, ("brand",)).get("brand")

    def __call__(self, item: int) -> Labelled:
        one = self._of_report.all([item])[0]
        return Labelled(one.title or one.item_id, "" if self._brands is None else str(self._brands[item]))
