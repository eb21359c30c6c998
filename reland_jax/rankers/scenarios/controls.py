"""Controls of the meta layers, as values in one table: what they are given in the place of knowledge."""

from __future__ import annotations

import dataclasses

import numpy as np

from reland_jax.fields import nearest_name
from reland_jax.rankers.arms import NOISE, PERMUTED, shuffled
from reland_jax.rankers.text_fields import Texts
from reland_jax.scenario_settings import GIVEN, TRAINABLE, ScenarioConfig
from reland_jax.text import ablated
from reland_jax.types import RelandError

KNOWLEDGE, CONSTANT = "knowledge", "constant"
EACH_USER, EACH_SEED = "each_user", "each_seed"


@dataclasses.dataclass(frozen=True)
class Control:
    """What the meta layers of a ranker are made of.

    Attributes:
        name: as results call it.
        levels: of the meta layers; none for the backbone alone.
        users: `KNOWLEDGE`; `PERMUTED` among users; `CONSTANT`, the same for all; `NOISE`, random numbers;
            `EACH_USER` or `EACH_SEED`: a learned vector.
        scenarios: `KNOWLEDGE`, `PERMUTED`, `CONSTANT`, `NOISE`, or `TRAINABLE`: a learned vector of each.
    """

    name: str
    levels: tuple[str, ...] = ("user", "scenario")
    users: str = KNOWLEDGE
    scenarios: str = KNOWLEDGE

    def plan(self, plan: ScenarioConfig) -> ScenarioConfig:
        """The settings of a ranker under this control."""
        learned_users = self.users in (EACH_USER, EACH_SEED)
        return dataclasses.replace(
            plan, meta=self.levels, user_vectors=TRAINABLE if learned_users else GIVEN,
            scenario_vectors=TRAINABLE if self.scenarios == TRAINABLE else GIVEN,
        )  # fmt: skip


_ALL = (
    Control("backbone", ()),
    Control("knowledge"),
    Control("only_user", ("user",)),
    Control("only_scenario", ("scenario",)),
    Control("permuted_users", users=PERMUTED),
    Control("permuted_scenarios", scenarios=PERMUTED),
    Control("constant", users=CONSTANT, scenarios=CONSTANT),
    Control("noise", users=NOISE, scenarios=NOISE),
    Control("each_user", users=EACH_USER),
    Control("each_seed", users=EACH_SEED),
    Control("each_scenario", scenarios=TRAINABLE),
)
CONTROLS = {each.name: each for each in _ALL}
"""All controls by name, in the order of tables; `backbone` has no meta layers, `knowledge` is the method."""


def find_control(name: str) -> Control:
    """The control of a name.

    Raises:
        RelandError: there is none.
    """
    if name not in CONTROLS:
        raise RelandError(f"control {name!r} is not known; {nearest_name(name, list(CONTROLS))}")
    return CONTROLS[name]


def controlled(control: Control, texts: Texts, seed: int = 0) -> Texts:
    """What the meta layers are given under a control.

    Args:
        control: of `CONTROLS`.
        texts: on the host: `rationales` and `seed` are the knowledge of users, by their seed user or their
            own, `scenarios` that of scenarios; standardised (`standardised`).
        seed: of what is drawn.

    Raises:
        RelandError: something that the control reads is not there.
    """
    found = Texts()
    if "user" in control.levels:
        vectors, rows = _there(control, texts.rationales, "users"), _there(control, texts.seed, "users")
        if control.users == EACH_USER:
            rows = np.arange(len(rows), dtype=np.int32)
            vectors = np.zeros((len(rows), 1), np.float32)
        if control.users == PERMUTED:
            rows = shuffled(rows, seed)
        else:
            vectors = _replaced(control.users, vectors, seed)
        found = found._replace(rationales=vectors, seed=rows)
    if "scenario" in control.levels:
        vectors = _there(control, texts.scenarios, "scenarios")
        found = found._replace(scenarios=_replaced(control.scenarios, vectors, seed + 1))
    return found


def standardised(vectors: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Vectors whose numbers have mean 0 and variance 1 over some users or scenarios.

    Args:
        vectors: ``<float>[n, T]``.
        rows: ``<int>[m]``, those of training; None for all.

    Returns:
        ``<float32>[n, T]``; a number that is the same in all rows is 0.
    """
    known = vectors if rows is None else vectors[rows]
    deviation = known.std(0)
    safe = np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(known.mean(0))), deviation, np.inf)
    return ((vectors - known.mean(0)) / safe).astype(np.float32)


def _replaced(kind: str, vectors: np.ndarray, seed: int) -> np.ndarray:
    if kind == CONSTANT:
        return np.ones_like(vectors)
    return ablated(vectors, kind, seed) if kind in (NOISE, PERMUTED) else vectors


def _there(control: Control, array: object, what: str) -> np.ndarray:
    if array is None:
        raise RelandError(f"control {control.name!r} reads knowledge of {what}, and there is none")
    return np.asarray(array)
