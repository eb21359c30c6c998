r"""Exports a trained recommender.

    python -m experiments.export bundle --config=DATASET,BACKBONE --workdir=DIR --out=BUNDLE
    python -m experiments.export vectors --bundle=BUNDLE --out=FOLDER [--format=numpy]
    python -m experiments.export functions --bundle=BUNDLE --out=FOLDER
    python -m experiments.export behaviour --workdir=DIR --out=FOLDER
    python -m experiments.export chats --config=DATASET,BACKBONE --workdir=DIR --out=FOLDER

    bundle     one folder that needs neither the raw data nor the workdir, for `reland_jax.Reland.load`,
               `experiments.recommend` and `experiments.serve`
    vectors    vectors of users, items and rationales, as Parquet or NumPy files, for a ranker of one's own
    functions  functions in StableHLO that give lists of up to --k items; JAX alone calls them, on CPU, GPU
               and TPU
    behaviour  behaviour vectors of users and seed users in Parquet shards of --rows users, for
               `experiments.attach`; reads what the stages up to `build_pool` left in the workdir
    chats      prompts and answers of the pool as chats in JSON lines, to train a small LLM to write
               rationales as the large one does: train.jsonl, valid.jsonl, and what the writer was shown

With --config the recommender is the one that `experiments.run` trained in the workdir; it is trained first if
it is missing. FOLDER must not exist yet, or be empty; a bundle replaces a bundle, and functions functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from experiments.harness.command_line import required_path, run_with_operands
from experiments.harness.logs import log_to_console
from experiments.serving.source import define_source_flags, given_source
from experiments.serving.vectors import FORMATS, check_free, export_vectors
from reland_jax.config import Config, nearest_name
from reland_jax.types import RelandError


def main(operands: Sequence[str]) -> None:
    """Exports and says what there is."""
    from reland_jax import pool_store

    pool_store.register()
    if len(operands) != 1 or operands[0] not in KINDS:
        given = " ".join(operands)
        hint = nearest_name(given, list(KINDS)) if given else f"name one of {', '.join(KINDS)}"
        raise RelandError(f"export {given}: what is to be exported? {hint}")
    KINDS[operands[0]](Path(flags.FLAGS.out))


def _bundle(out: Path) -> None:
    given = flags.FLAGS
    told = provenance_of(given.provenance)
    given_source().model.save(out, licence=given.licence, provenance=told)
    print(f"bundle: {out}")


def _vectors(out: Path) -> None:
    check_free(out)  # before anything is trained
    found = export_vectors(given_source().model.vectors(), out, flags.FLAGS.format)
    print(f"{', '.join(f'{count:,} {name}' for name, count in found.items())} in {out}")


def _functions(out: Path) -> None:
    given_source().model.export(out, flags.FLAGS.k)
    print(f"functions: {out}")


def _behaviour(out: Path) -> None:
    from experiments.serving.behaviour import export_behaviour

    given = flags.FLAGS
    if not given.workdir:
        raise RelandError("--workdir is missing; behaviour vectors are in the workdir of a run")
    users, seeds = export_behaviour(Path(given.workdir), out, given.rows)
    print(f"{users:,} users in {out}/users, {seeds:,} seed users in {out}/seeds.parquet")


def _chats(out: Path) -> None:
    from experiments.serving.chats import export_chats

    given = flags.FLAGS
    if not given.workdir or not given["config"].present:
        raise RelandError("chats are made of a pool: give --config=DATASET,BACKBONE and --workdir=DIR")
    log_to_console()
    told = export_chats(Config.from_dict(given.config.to_dict()), Path(given.workdir), out, given.valid_share)
    counts = ", ".join(f"{count:,} in {name}" for name, count in told["pairs"].items())
    print(f"{counts}, {told['left_out']:,} left out; what their writer was given: {told['writer_was_given']}")


KINDS: dict[str, Callable[[Path], None]] = {
    "bundle": _bundle, "vectors": _vectors, "functions": _functions, "behaviour": _behaviour,
    "chats": _chats,
}  # fmt: skip
"""What can be exported, and how."""


def provenance_of(words: Sequence[str]) -> dict[str, str]:
    """Names and remarks of "name=remark".

    Raises:
        RelandError: a word has no "=".
    """
    for word in words:
        if "=" not in word:
            raise RelandError(f"--provenance={word}: expected NAME=REMARK, such as shop=Bern")
    return {name: remark for name, _, remark in (word.partition("=") for word in words)}


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    define_source_flags()
    required_path("out", "Folder of the outputs.")
    flags.DEFINE_string("licence", "", "bundle: under which data and texts may be used, in words.")
    flags.DEFINE_multi_string("provenance", [], "bundle: NAME=REMARK on where it comes from; repeatable.")
    flags.DEFINE_enum("format", "parquet", FORMATS, "vectors: kind of the files.")
    flags.DEFINE_integer("k", 100, "functions: length of the lists.", lower_bound=1)
    flags.DEFINE_float("valid_share", 0.1, "chats: share of the prompts for validation.")
    flags.DEFINE_integer("rows", 1_000_000, "behaviour: users of a shard.", lower_bound=1)


if __name__ == "__main__":
    run_with_operands(main, define_flags)
