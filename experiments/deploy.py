r"""A deployment, day by day (paper, Figure 4): pool, vectors, tables, rankers, and what they are worth.

    python -m experiments.deploy --config=experiments/configs/deploy.py:shop --workdir=DIR --days=5-14

For every day, from behaviour before it alone: each week seed users and their rationales, each day the
vectors of all users, their seed users and the table that rankers read; each day the rankers of all arms are
trained further on the day that is over and judged on the new one. Writes DIR/deploy.json and DIR/deploy.html,
and the artefacts of every day; run again, it does only what is missing, with the same numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from absl import flags

from experiments.harness import command_line
from experiments.harness.logs import log_to_console
from experiments.harness.written import check_own
from reland_jax.deploy_settings import DeployJob
from reland_jax.types import RelandError


def define_flags() -> None:
    """Registers the flags."""
    command_line.define_job("experiments/configs/deploy.py:shop", ":LOG follows the file.")
    flags.DEFINE_string("days", "", "Days that are judged, such as 8-14, counted from 1; all if empty.")


def main() -> None:
    """Plays the days through and prints what came of them."""
    log_to_console()
    given = flags.FLAGS
    run(DeployJob.from_dict(given.config.to_dict()), Path(given.workdir), days_asked(given.days))


def days_asked(text: str) -> tuple[int, int] | None:
    """First and last day of ``8-14`` or ``8``; None for "".

    Raises:
        RelandError: it is neither.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found:
        raise RelandError(f"--days={text!r}: expected two numbers such as 8-14, or one")
    return int(found[1]), int(found[2] or found[1])


def run(job: DeployJob, workdir: Path, days: tuple[int, int] | None = None) -> dict[str, Any]:
    """Plays the days through.

    Args:
        job: all settings.
        workdir: folder of artefacts and results.
        days: first and last day that is judged, from 1; None for all.

    Returns:
        The content of deploy.json.

    Raises:
        RelandError: bad data, settings or days.
    """
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from experiments.deployment.features import stage_settings
    from experiments.deployment.plan import plan_of
    from experiments.deployment.summary import summarise
    from experiments.deployment.view import write_view
    from reland_jax import flow
    from reland_jax.device import PROGRAMS, keep_programs

    check_own(workdir, "deploy.json", "deploy.html")
    config = stage_settings(job)
    if job.keep_programs:
        keep_programs(workdir / PROGRAMS)
    plan = plan_of(job, days)
    made = flow.run(plan.flow, config, workdir)
    results = summarise(job, plan, made)
    return write_view(workdir, results)


if __name__ == "__main__":
    command_line.run(main, define_flags)
