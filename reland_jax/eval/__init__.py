"""Full-ranking evaluation: ranks on the device, metrics per user, significance."""

from reland_jax.eval.cold import Borrowed, lend
from reland_jax.eval.metrics import mean_metrics, per_user_metrics
from reland_jax.eval.ranks import RankingPlan, Vectors, plan_ranking, rank_targets, recommend

__all__ = [
    "Borrowed",
    "RankingPlan",
    "Vectors",
    "lend",
    "mean_metrics",
    "per_user_metrics",
    "plan_ranking",
    "rank_targets",
    "recommend",
]
