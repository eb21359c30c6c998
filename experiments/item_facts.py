r"""What an LLM knows of every item, as a table of items: the factual half of KAR.

    python -m experiments.item_facts --config=experiments/configs/reland.py:DATASET,BACKBONE --workdir=DIR \
        --out=ITEMS.csv --config.pool.provider=openai [--config.llm.budget=5] [--dry_run]

Every item with a text is asked about once; requests and answers are in the journal of the workdir, so that a
job that was stopped goes on. ITEMS.csv has the item's id, the text fields that the data had, and `facts`:

    python -m experiments.run --config=...:DATASET,BACKBONE --config.data.item_table=ITEMS.csv \
        --config.data.text_fields=title,brand,facts --config.text.max_tokens=256

With --dry_run it prints what asking would cost, and sends nothing.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path
from reland_jax.config import Config
from reland_jax.files import write_text
from reland_jax.types import RelandError

FACTS_FIELD = "facts"


def run(config: Config, workdir: Path, out: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """Asks, and writes the table of items.

    Args:
        config: data, provider, limits and budget.
        workdir: folder of artefacts and of the journal.
        out: CSV file to write; one that is there is replaced if it is such a table.
        dry_run: only print what it would cost.

    Returns:
        The ledger, with how many items are without an answer; {} for a dry run.

    Raises:
        BudgetReached: the budget is used up; answers so far are in the journal.
        RelandError: bad data or settings, a file that is something else, or what the provider raises.
    """
    from experiments.pool_commands.asking import print_estimate
    from reland_jax import flow
    from reland_jax.plain import text_columns
    from reland_jax.pool.asking.money import estimate
    from reland_jax.pool.item_facts import fact_requests, tell_items
    from reland_jax.stages import FLOW, LOAD

    _check(out)
    interactions = flow.run(FLOW, config, workdir, until=LOAD.name)[LOAD]
    requests = fact_requests(interactions, config.pool, config.data)
    if dry_run:
        print_estimate(estimate(requests, config.pool, config.llm, ()), config, "items")
        return {}
    found = tell_items(requests, interactions, config.pool, config.llm, workdir)
    columns = text_columns(interactions.item_features, config.data.text_fields)
    named = {config.data.item_field or "item_id": interactions.ids.items, **columns, FACTS_FIELD: found.texts}
    rows = zip(*(values.tolist() for values in named.values()), strict=True)
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(named)
    table.writerows(list(rows)[1:])
    write_text(out, written.getvalue())
    answered = len(requests) - found.unanswered
    print(f"{answered:,} items with facts, {found.unanswered:,} without an answer: {out}")
    return {**found.ledger, "unanswered": found.unanswered}


def _check(out: Path) -> None:
    """Refuses to replace another file than a table of items with facts."""
    if not out.exists():
        return
    with out.open(encoding="utf-8", errors="replace") as file:
        head = file.readline().strip()
    if not head.endswith(f",{FACTS_FIELD}"):
        raise RelandError(
            f"{out}: this file was not made by this program, so it is not replaced; move it away"
        )


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    config_flags.DEFINE_config_file(
        "config",
        "experiments/configs/reland.py:demo,sasrec",
        "Settings; :DATASET,BACKBONE follows the file.",
        lock_config=True,
    )
    required_path("workdir", "Folder of artefacts and of the journal.")
    required_path("out", "CSV file of the items.")
    flags.DEFINE_bool("dry_run", False, "Only print what it would cost.")


def main() -> None:
    """Runs the command."""
    given = flags.FLAGS
    run(Config.from_dict(given.config.to_dict()), Path(given.workdir), Path(given.out), dry_run=given.dry_run)


if __name__ == "__main__":
    command_line.run(main, define_flags)
