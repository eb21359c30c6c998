"""Stage `load`: raw files to interactions."""

from __future__ import annotations

import logging

from reland_jax.artefacts import Artefact
from reland_jax.data import data_fingerprint, load_interactions, raw_state, report_line, report_text
from reland_jax.flow import Codec, Job, Stage
from reland_jax.report.choice import users_to_show
from reland_jax.storage import load_interactions as load_stored_interactions
from reland_jax.storage import save_interactions
from reland_jax.types import Interactions

_log = logging.getLogger(__name__)


def _check(job: Job, made: Artefact) -> None:
    interactions: Interactions = made.value
    if (report := interactions.report) is not None:
        _log.info("%s", report_text(report) if made.fresh else report_line(report))
    users_to_show(job.config.report_users, interactions.ids.users)  # reports a wrong id early


LOAD: Stage[Interactions] = Stage(
    "load",
    reads=(),
    settings=lambda config: [config.data, raw_state(config.data)],
    run=lambda job: load_interactions(job.config.data),
    codec=lambda job: Codec(save_interactions, load_stored_interactions),
    # A hash of the content: files that were copied or touched are only read again.
    identify=data_fingerprint,
    exact=True,
    check=_check,
)
