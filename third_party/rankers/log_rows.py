"""Writes a log as rankers read it, so that other libraries can be given the same rows, features and codes.

    python third_party/rankers/log_rows.py --log=kuairand-pure --out=workdir-rows/kuairand.npz

The file has a column for every feature, the label, the rows of training, validation and testing, and, as
JSON, what each feature is.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.configs.ranker import get_config  # noqa: E402  # after the path of this project
from experiments.ranking.arms import encoded_log  # noqa: E402
from experiments.ranking.logs import read_log  # noqa: E402
from reland_jax import events  # noqa: E402
from reland_jax.files import write_bytes  # noqa: E402
from reland_jax.ranker_settings import RankerJob  # noqa: E402
from reland_jax.rankers import named_columns  # noqa: E402


def main() -> None:
    """Reads, encodes and writes the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", default="kuairand-pure", help="as in experiments/configs/ranker.py")
    parser.add_argument("--label", default="click")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    job = RankerJob.from_dict(get_config(f"{given.log},dnn").to_dict())
    found = encoded_log(read_log(job.log), job.log)
    rows = np.arange(found.log.events.num_rows, dtype=np.int32)
    batch = events.gather(found.encoded, rows, np.ones(len(rows), np.float32))
    columns = named_columns(found.schema, batch)
    features = [dataclasses.asdict(each) for each in found.schema.features]
    parts = found.log.parts
    given.out.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    np.savez(
        file, features=json.dumps(features), label=np.asarray(columns[given.label]),
        train=parts.train, valid=parts.valid, test=parts.test,
        **{f"column.{each['name']}": np.asarray(columns[each["name"]]) for each in features},
    )  # fmt: skip
    write_bytes(given.out, file.getvalue())
    print(f"{given.out}: {len(rows):,} rows, {len(features)} features")


if __name__ == "__main__":
    main()
