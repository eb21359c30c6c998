r"""How many seed users to ask an LLM about, before it is paid.

    python -m experiments.seed_count --config=experiments/configs/reland.py:DATASET,BACKBONE --workdir=DIR \
        [--config.section.key=value ...] [--fractions=0.01,0.02,...] [--repeats=3] [--out=FILE.json] \
        [--validate --seeds=N --test]

Runs the stages up to `encode_users`, samples seed users at every fraction, and prints what each would cost in
tokens and money, how much of the user mass it would cover, and the number of seed users that each rule
recommends, with the band over repetitions of the sampling. Writes DIR/seed_count.json and
DIR/seed_count.svg (or FILE.json and FILE.svg). Nothing is asked.

With --validate it also trains `f_item` once and `reland` at every fraction, with the rationales that
config.pool says (provider file, restricted to the seed users sampled at that fraction, or heuristic), and
puts the gain in validation NDCG@10 and HR@10 beside the coverage (the paper's Figure 6).
config.fusion.neighbours is meant for config.seeds.fraction and grows with the pool, so that a text is seen
with as many users at every fraction. Give the same command again after a stop: nothing that is finished is
done twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path, required_path
from experiments.harness.programs import keep_programs_of
from experiments.seed_counts.options import FRACTIONS, Options
from reland_jax.config import Config
from reland_jax.files import write_json
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from experiments.seed_counts.curve import Encoded, Prompts

RULE = "reuse"
"""The rule that is followed; docs/pool.md compares it with the others."""


def run(config: Config, workdir: Path, options: Options, out: Path | None = None) -> dict[str, Any]:
    """Measures the curve, recommends, and trains if asked to.

    Args:
        config: all settings.
        workdir: folder of artefacts.
        options: what to do.
        out: where the result goes, and beside it the plot; DIR/seed_count.json where None.

    Returns:
        What was written.

    Raises:
        RelandError: bad data, settings or options.
    """
    from experiments.seed_counts.curve import encode, prompts
    from experiments.seed_counts.training import check, train
    from experiments.seed_counts.view import plot, table

    _check(options)
    workdir.mkdir(parents=True, exist_ok=True)
    out = out or workdir / "seed_count.json"
    encoded = encode(config, workdir)
    if options.validate:
        check(config, encoded)
    asked = prompts(encoded, config, workdir, options.answer_tokens)
    result = _measured(config, workdir, options, encoded, asked)
    write_json(out, result)
    print(table(result), flush=True)
    plot(result, out.with_suffix(".svg"))
    if options.validate:
        for validation in train(config, workdir, options, encoded, asked):
            result["validation"] = validation
            write_json(out, result)
        print(table(result))
        plot(result, out.with_suffix(".svg"))
    print(f"\nfigures: {out}\nplot:    {out.with_suffix('.svg')}")
    return result


def _check(options: Options) -> None:
    if len(options.fractions) < 3 or not all(0 < fraction <= 1 for fraction in options.fractions):
        raise RelandError(f"--fractions={options.fractions}: at least three shares in (0, 1] are needed")


def _measured(
    config: Config, workdir: Path, options: Options, encoded: Encoded, asked: Prompts
) -> dict[str, Any]:
    """The points of every repetition, and what each rule makes of them."""
    from experiments.seed_counts.curve import curve, point, sampled
    from reland_jax.seeds.coverage import RULES, marginal_gain, recommend

    weight = encoded.splits.train.lengths() if options.by_activity else None
    repeats: list[list[dict[str, Any]]] = []
    for repeat in range(options.repeats):
        points = []
        for fraction in sorted(set(options.fractions)):
            found = sampled(encoded, config, workdir, fraction, repeat)
            points.append({"fraction": fraction, **point(encoded, asked, found, weight)})
            covered, seeds = points[-1]["covered"], points[-1]["seeds"]
            print(f"sampling {repeat}, {fraction:.2%}: {seeds:,} seed users cover {covered:.4f}", flush=True)
        repeats.append(points)
    curves = [curve(points) for points in repeats]
    return {
        "data": Path(config.data.name).name,
        "users": encoded.splits.num_users,
        "weight": "activity" if options.by_activity else "users",
        "model": config.pool.model,
        "currency": config.llm.currency,
        "answer_tokens": asked.answer,
        "exact": asked.exact,
        "rule": RULE,
        "recommended": {rule: recommend(curves, rule)._asdict() for rule in RULES},
        "marginal_gain": [marginal_gain(each).tolist() for each in curves],
        "repeats": repeats,
    }


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    defaults = Options()
    config_flags.DEFINE_config_file(
        "config",
        "experiments/configs/reland.py:demo,lightgcn",
        "Settings; :DATASET,BACKBONE follows the file.",
        lock_config=True,
    )
    required_path("workdir", "Folder of artefacts.")
    define_path("out", "", "JSON file of the result; the plot goes beside it.")
    flags.DEFINE_list("fractions", list(map(str, FRACTIONS)), "Seed users as shares of all users.")
    flags.DEFINE_integer("repeats", defaults.repeats, "Samplings at each fraction.", lower_bound=1)
    flags.DEFINE_float("answer_tokens", defaults.answer_tokens, "Expected of an answer; 0: measured, or 172.")
    flags.DEFINE_bool("by_activity", defaults.by_activity, "Users count as their training interactions.")
    flags.DEFINE_bool("validate", defaults.validate, "Train at every fraction.")
    flags.DEFINE_integer("seeds", defaults.seeds, "Training seeds 0, 1, ...", lower_bound=1)
    flags.DEFINE_bool("test", defaults.test, "Tell test metrics too.")


def main() -> None:
    """Runs the command."""
    given = flags.FLAGS
    values: dict[str, Any] = {name: given[name].value for name in Options._fields}
    values["fractions"] = tuple(map(_share, given.fractions))
    config = Config.from_dict(given.config.to_dict())
    keep_programs_of([config], Path(given.workdir))
    run(config, Path(given.workdir), Options(**values), Path(given.out) if given.out else None)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RelandError(f"--fractions: {text!r} is not a number; use shares such as 0.01,0.1,1") from None


if __name__ == "__main__":
    command_line.run(main, define_flags)
