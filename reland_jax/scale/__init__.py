"""Assignment of a hundred million users: Parquet shards in and out, on one machine or with Ray.

This is its door: what other packages use is named here.
"""

from reland_jax.scale.ivf import IvfIndex
from reland_jax.scale.outputs import Outputs
from reland_jax.scale.ray_job import attach_on_ray
from reland_jax.scale.scann_index import ScannIndex
from reland_jax.scale.shards import (
    ShardReader,
    batches,
    columns_of,
    list_shards,
    name_of,
    plain_ids,
    rows_of,
    write_shard,
)
from reland_jax.scale.stream import AttachJob, Progress, StreamAssigner, attach_all, tuning_sample
from reland_jax.scale.tuning import wanted_share

__all__ = [
    "AttachJob",
    "StreamAssigner",
    "IvfIndex",
    "Outputs",
    "Progress",
    "ShardReader",
    "ScannIndex",
    "attach_all",
    "attach_on_ray",
    "batches",
    "columns_of",
    "list_shards",
    "name_of",
    "plain_ids",
    "rows_of",
    "tuning_sample",
    "wanted_share",
    "write_shard",
]
