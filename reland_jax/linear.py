"""Settings of the linear models in closed form; `reland_jax.config` has them with all others."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import setting as _setting
from reland_jax.types import RelandError

LINEAR = ("ease", "ease_recency")
"""Linear models in closed form: of sets, and of sequences, whose newer items weigh more."""


@dataclasses.dataclass(frozen=True)
class EaseConfig:
    """The linear models `ease` and `ease_recency`."""

    regularisation: float = _setting(100.0, "lambda, added to the diagonal of X'X", above=0)
    text_weight: float = _setting(
        30.0, "f_item, reland: beta, weight of item similarities by text, added to X'X; 0: none", low=0
    )
    rationale_weight: float = _setting(
        0.3, "reland: weight of a user's rationales relative to its items; 0 reads none", low=0
    )
    half_life: float = _setting(
        1.0, "ease_recency: number of newer items after which a history item weighs half as much", above=0
    )
    precision: str = _setting(
        "float64",
        "precision of the solution; float32 takes half the memory and suits devices without float64",
        choices=("float64", "float32"),
    )


def check_linear(encoder: str, backbone: str, objective: str) -> None:
    """Raises `RelandError` where a linear model is put to what it cannot do.

    Args:
        encoder: backbone of the behaviour encoder.
        backbone: of the recommender.
        objective: by which the recommender is trained.
    """
    if encoder in LINEAR:
        raise RelandError(
            f"config.encoder.model.backbone={encoder!r}: a linear model of items has no vectors of users; "
            "take lightgcn"
        )
    if (backbone in LINEAR) != (objective == "closed_form"):
        raise RelandError(
            f"config.train.objective={objective!r} does not fit config.model.backbone={backbone!r}: "
            f"{' and '.join(LINEAR)}, and no others, are solved in closed_form"
        )
