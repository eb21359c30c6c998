"""Training: device-resident data, many steps per dispatch, early stopping, exact resume."""

from reland_jax.train.checkpoint import Checkpoints, TrainingCheckpoint, load_params, save_params
from reland_jax.train.closed_form import ClosedForm, check_users
from reland_jax.train.evaluator import Evaluator, FixedEpochs
from reland_jax.train.late import with_late_scores
from reland_jax.train.loop import FitResult, fit, fit_together
from reland_jax.train.state import param_shapes
from reland_jax.train.tasks import Score, Task, create_task, history_encoder
from reland_jax.train.upon_linear import solve, with_linear_scores, with_lists_of

__all__ = [
    "Checkpoints",
    "ClosedForm",
    "Evaluator",
    "FitResult",
    "FixedEpochs",
    "Score",
    "Task",
    "TrainingCheckpoint",
    "check_users",
    "create_task",
    "fit",
    "fit_together",
    "history_encoder",
    "load_params",
    "param_shapes",
    "save_params",
    "solve",
    "with_late_scores",
    "with_linear_scores",
    "with_lists_of",
]
