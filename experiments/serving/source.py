"""The recommender that a command is given: a bundle, or a workdir with the settings of its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags
from ml_collections import config_flags

from experiments.harness.command_line import define_path
from experiments.harness.logs import log_to_console
from experiments.harness.programs import keep_programs_of
from reland_jax.config import Config
from reland_jax.files import checksum
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from reland_jax import Reland


def define_source_flags() -> None:
    """Registers --bundle, and --config, --workdir, --variant and --seed, which take its place."""
    define_path("bundle", None, "Folder of a bundle; or give --config and --workdir.")
    config_flags.DEFINE_config_file(
        "config", None, "Settings of the run, as experiments.run takes them: DATASET,BACKBONE.",
        lock_config=True,
    )  # fmt: skip
    define_path("workdir", None, "Workdir of the run; what is missing in it is made first.")
    flags.DEFINE_string("variant", "reland", "With --config: variant to take.")
    flags.DEFINE_integer("seed", 0, "With --config: training seed to take.")


class Source(NamedTuple):
    """A recommender, and what tells it from any other.

    Attributes:
        model: the recommender.
        made_from: a hash.
    """

    model: Reland
    made_from: str


def given_source() -> Source:
    """The recommender that the flags name; with --config it is trained if it is not yet.

    Raises:
        RelandError: neither or both are given, or what they name cannot be used.
    """
    given = flags.FLAGS
    log_to_console()
    if bool(given.bundle) == bool(given["config"].present):
        raise RelandError("give either --bundle=DIR, or --config=DATASET,BACKBONE with --workdir=DIR")
    from reland_jax import Reland
    from reland_jax.bundle import MANIFEST_FILE

    if given.bundle:
        return Source(Reland.load(given.bundle), checksum(Path(given.bundle) / MANIFEST_FILE))
    if not given.workdir:
        raise RelandError("--workdir is missing; with --config it names the folder of artefacts")
    config = Config.from_dict(given.config.to_dict())
    keep_programs_of([config], Path(given.workdir))
    model = Reland(config, variant=given.variant, seed=given.seed, workdir=given.workdir).fit()
    return Source(model, model.origin)
