r"""From one row of a table to another, step by step: what each changed setting gains, on validation only.

    python -m experiments.ablate --dataset=amazon-beauty --backbone=lightgcn --variant=f_item --workdir=DIR \
        --step="train.objective=softmax train.candidates=2048" --step="score.text_kernel=10.0"

The first row has the settings of the configuration (with those of `--set`); every step adds its own to all
before it. Nothing is ranked for the test part. Writes DIR/ablation.json and prints the table; finished
trainings are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.configs.reland import get_config
from experiments.harness import command_line
from experiments.harness.programs import keep_programs_of
from experiments.harness.settings import parse_setting, with_settings
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.files import write_json
from reland_jax.report.tables import Table, to_markdown
from reland_jax.stages import FLOW, training
from reland_jax.types import NDCG, RelandError
from reland_jax.variants import F_ITEM, find_variant

Step = tuple[str, Config]
"""What is changed, in words, and all settings after the change."""


def steps_of(config: Config, changes: Sequence[str]) -> list[Step]:
    """The rows of the table, the first without a change.

    Args:
        config: of the first row.
        changes: of every step: settings such as ``a.b=1 c.d=2``, with blanks between them.

    Raises:
        RelandError: a step without a setting, an unknown setting or a value out of range.
    """
    rows: list[Step] = [("", config)]
    for change in changes:
        if not change.split():
            raise RelandError("--step: it has no setting; give one, such as --step=train.objective=softmax")
        config = with_settings(config, dict(parse_setting(each, config) for each in change.split()))
        rows.append((change, config))
    return rows


def run(steps: Sequence[Step], variant: str, workdir: Path) -> list[dict[str, Any]]:
    """Trains every row, and what validation says of it.

    Args:
        steps: of `steps_of`.
        variant: of `reland_jax.variants.BY_NAME`.
        workdir: of the artefacts.

    Returns:
        For each row "change", "valid" (NDCG@10 by training seed), "best_epoch" and "seconds" of an epoch, the
        last two as medians.

    Raises:
        RelandError: bad data or settings, or a training failed.
    """
    rows, known = [], None
    for number, (change, config) in enumerate(steps):
        config = dataclasses.replace(config, variants=(variant,))
        known = made = flow.run(FLOW, config, workdir, known=known)
        stages = (
            training(made, variant, seed, f"train/step{number}", parts=("valid",))
            for seed in config.seeds_of_training
        )
        found = [made.make(stage).summary for stage in stages]
        rows.append({
            "change": change,
            "valid": [each.valid[NDCG] for each in found],
            "best_epoch": float(np.median([each.best_epoch for each in found])),
            "seconds": float(np.median([each.seconds_per_epoch for each in found])),
        })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows with the gain of each over the one before it."""
    means = [float(np.mean(row["valid"])) for row in rows]
    lines = []
    for row, before, mean in zip(rows, [means[0], *means], means, strict=False):
        gain = f"{mean / before - 1:+.1%}" if row["change"] and before else ""
        epoch, seconds = f"{row['best_epoch']:g}", f"{row['seconds']:.1f}"
        lines.append((row["change"] or "as configured", f"{mean:.4f}", gain, epoch, seconds))
    seeds = len(rows[0]["valid"])
    caption = f"Validation NDCG@10, mean of {seeds} training seeds; each row adds to the last one's settings."
    return Table(caption, ("step", "NDCG@10", "gain", "best epoch", "s/epoch"), lines)


def define_flags() -> None:
    """Registers the flags; not at import, since other jobs have some of the same names."""
    flags.DEFINE_string("dataset", "demo", "Data set: a known name or a path.")
    flags.DEFINE_string("backbone", "lightgcn", "Backbone.")
    flags.DEFINE_string("variant", F_ITEM.name, "Variant, or ablation of reland.")
    flags.DEFINE_multi_string("step", [], "Settings of the next step, with blanks between; can be repeated.")
    flags.DEFINE_multi_string("set", [], "section.key=value, for every row; can be repeated.")
    command_line.required_path("workdir", "Folder of artefacts.")


def main() -> None:
    """Trains the rows, prints the table and writes the file."""
    given = flags.FLAGS
    find_variant(given.variant, "--variant")
    config = Config.from_dict(get_config(f"{given.dataset},{given.backbone}").to_dict())
    workdir = Path(given.workdir)
    config = with_settings(config, dict(parse_setting(each, config) for each in given.set))
    keep_programs_of([config], workdir)
    rows = run(steps_of(config, given.step), given.variant, workdir)
    print(to_markdown(table(rows)))
    write_json(workdir / "ablation.json", {"variant": given.variant, "rows": rows})


if __name__ == "__main__":
    command_line.run(main, define_flags)
