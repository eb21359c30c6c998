"""Wing: rankers of impressions (click, and conversion after it), with texts as features.

**The contract of a batch.** A ranker is trained on, and scores, a mapping from names of columns to arrays of
equal length B (the last batch of a log is filled up with rows of weight 0, so that all shapes are equal):

| column, by the name of | type and shape | content |
|---|---|---|
| a categorical feature | ``<int32>[B]`` | 0: no value, 1: one that training lacks, known: 2 to size - 1 |
| a numeric feature | ``<float32>[B]`` | finite and scaled (by training rows); 0 where it is missing |
| a `multi` feature | ``<int32>[B, L]`` | the same codes; 0 fills up, in any place |
| a `sequence` | ``<int32>[B, L]`` | codes of the feature that it `shares`, in order; 0 fills up |
| a label | ``<float32>[B]`` | 0 or 1; a later one of the funnel counts only where all before it are 1 |
| ``weight`` | ``<float32>[B]`` | 1, or 0 for a row that only fills up |
| ``user_row`` | ``<int32>[B]`` | the user's row in `Texts.seed`, -1: not there |
| ``item_row`` | ``<int32>[B]`` | the item's row in `Texts.items`, -1: not there |

`FieldSchema` declares the features and labels (name, kind, number of codes, L). `check_batch` compares a
batch on the host with it. More columns (time, scenario, ...) may be there; they are not read.

An encoded event log (`reland_jax.events`) has its columns side by side; `field_schema` and `named_columns`
make these of it.

`user_row` and `item_row` are dense ids of the whole log and not values of a vocabulary: a user or an item
that no training row has may still have a text.

This is the wing's door: what other packages use is named here.
"""

from reland_jax.ranker_settings import RankerConfig
from reland_jax.rankers.arms import ARMS, OWN, Arm, arm_texts, find_arm
from reland_jax.rankers.from_events import field_schema, named_columns
from reland_jax.rankers.ranker import NETWORKS, TASKS, Ranker, create_ranker, table_index
from reland_jax.rankers.row_optimizers import RowOptimizer, RowState, lazy_adam, row_wise_adagrad
from reland_jax.rankers.scenarios.controls import CONTROLS, Control, controlled, find_control, standardised
from reland_jax.rankers.scenarios.meta import meta_bytes
from reland_jax.rankers.scenarios.ranker import BACKBONES, ScenarioRanker, create_scenario_ranker
from reland_jax.rankers.schema import Batch, Field, FieldSchema, check_batch
from reland_jax.rankers.scores import Scores, reached_labels, scores
from reland_jax.rankers.step import (
    Parameters,
    RankerState,
    init_params,
    init_state,
    loss_of,
    parameter_counts,
    predict,
    train_step,
    warm_started,
)
from reland_jax.rankers.text_fields import Texts
from reland_jax.rankers.training import (
    Order,
    Program,
    RankerData,
    ReadBatch,
    TrainedRanker,
    fresh_state,
    predict_rows,
    step_bytes,
    train_ranker,
)

__all__ = [
    "ARMS",
    "BACKBONES",
    "CONTROLS",
    "NETWORKS",
    "OWN",
    "TASKS",
    "Arm",
    "Batch",
    "Control",
    "Field",
    "Order",
    "Parameters",
    "Program",
    "Ranker",
    "RankerConfig",
    "RankerData",
    "RankerState",
    "ReadBatch",
    "RowOptimizer",
    "RowState",
    "ScenarioRanker",
    "FieldSchema",
    "Scores",
    "Texts",
    "TrainedRanker",
    "arm_texts",
    "check_batch",
    "controlled",
    "create_ranker",
    "create_scenario_ranker",
    "field_schema",
    "find_arm",
    "find_control",
    "fresh_state",
    "init_params",
    "init_state",
    "lazy_adam",
    "loss_of",
    "meta_bytes",
    "named_columns",
    "parameter_counts",
    "predict",
    "predict_rows",
    "reached_labels",
    "row_wise_adagrad",
    "scores",
    "standardised",
    "step_bytes",
    "table_index",
    "train_ranker",
    "train_step",
    "warm_started",
]
