"""Full-ranking evaluation: ranks on the device, metrics per user, significance."""

from reland_jax.eval.cold import ColdUserWeights, impute_cold_users
from reland_jax.eval.lists import best_items
from reland_jax.eval.metrics import mean_metrics, per_user_metrics
from reland_jax.eval.ranks import RankingPlan, Vectors, plan_ranking, rank_targets
from reland_jax.eval.targets import HeldOut, check_targets, evaluation_notes, had_before, held_out

__all__ = [
    "ColdUserWeights",
    "HeldOut",
    "RankingPlan",
    "Vectors",
    "best_items",
    "check_targets",
    "evaluation_notes",
    "had_before",
    "held_out",
    "impute_cold_users",
    "mean_metrics",
    "per_user_metrics",
    "plan_ranking",
    "rank_targets",
]
