"""Settings: what is refused and how it is said, and that nothing is lost on the way to a file and back."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from experiments.configs.reland import get_config
from experiments.harness.settings import parse_setting, setting_of, settings_help
from reland_jax.artefacts import fingerprint
from reland_jax.config import (
    BACKBONES,
    DOMAINS,
    ENCODERS,
    POOL_SOURCES,
    PROVIDERS,
    SOURCES,
    Config,
    nearest_name,
)
from reland_jax.data.finding import SOURCES as LOADING_SOURCES
from reland_jax.fields import may_be_none
from reland_jax.pool import DOMAINS as POOL_DOMAINS
from reland_jax.pool import PROVIDERS as POOL_PROVIDERS
from reland_jax.types import RelandError


def nested(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` of "a.b"."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("train.learning_rat", "learning_rate"),
        ("encoder.train.max_epoch", "max_epochs"),
        ("modle", "model"),
        ("fusion.drop_out", "dropout"),
        ("data.maxlength", "max_length"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: str, near: str) -> None:
    with pytest.raises(RelandError, match=f"config.{path} is not a setting; did you mean '{near}'"):
        Config.from_dict(nested(path, 1))


def test_an_unknown_key_that_is_like_none_lists_them_all() -> None:
    with pytest.raises(RelandError, match="fusion.zzz is not a setting; known are item_scale, .*neighbours"):
        Config.from_dict({"fusion": {"zzz": 1}})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.protocol", "leave_one", "did you mean 'leave_one_out'"),
        ("pool.provider", "heuristics", "did you mean 'heuristic'"),
        ("pool.provider", "hf", "is no longer there: a local model is asked by 'openai'.* OPENAI_BASE_URL"),
        ("retrieval.engine", "faiss", "known are exact, scann"),
        ("model.backbone", "lightgnc", "did you mean 'lightgcn'"),
        ("train.objective", "prefixes", "did you mean 'prefix'"),
        ("variants", ("id", "f_items"), "did you mean 'f_item'"),
        ("train.batch_size", 0, "at least 1"),
        ("train.max_epochs", 0, "at least 1"),
        ("train.eval_every", 0, "at least 1"),
        ("train.patience", 0, "at least 1"),
        ("train.negatives", 0, "at least 1"),
        ("train.steps_per_dispatch", 0, "at least 1"),
        ("encoder.train.batch_size", -3, "at least 1"),
        ("model.dropout", 1.0, "at most 0.99"),
        ("model.dropout", -0.1, "at least 0"),
        ("fusion.dropout", 1.5, "at most 0.99"),
        ("fusion.withheld", 1.0, "at most 0.99"),
        ("fusion.neighbours", 0, "at least 1"),
        ("fusion.gain", -0.5, "more than 0, or None, which means: it is learned"),
        ("fusion.gain", 0, "more than 0, or None, which means: it is learned"),
        ("fusion.gain", 0.5, "use shared, or a gain of None"),
        ("model.dim", 0, "at least 1"),
        ("model.heads", 0, "at least 1"),
        ("encoder.model.layers", -1, "at least"),
        ("model.hidden", 0, "at least 1"),
        ("model.tower", (), "at least one"),
        ("model.tower", (32, 0), "at least 1"),
        ("encoder.model.tower", (-1, 8), "at least 1"),
        ("model.contrast", -0.1, "at least 0"),
        ("model.temperature", 0.0, "at least 1e-06"),
        ("encoder.model.temperature", -1.0, "at least 1e-06"),
        ("train.view_length", 0, "at least 1"),
        ("encoder.train.view_length", 0, "at least 1"),
        ("encoder.text_weight", -0.5, "at least 0"),
        ("seeds.fraction", 0.0, "more than 0"),
        ("seeds.fraction", 1.1, "at most 1"),
        ("data.max_length", 1, "at least 2"),
        ("retrieval.neighbours", 0, "at least 1"),
        ("retrieval.cold_mismatch", 1.5, "at most 1"),
        ("fusion.item_scale", -1.0, "more than 0"),
        ("pool.prompt", "step", "did you mean 'steps'"),
        ("pool.cleaning", "rules", "did you mean 'rule'"),
        ("pool.scrub", ("emails",), "did you mean 'email'"),
        ("llm.concurrency", 0, "at least 1"),
        ("llm.attempts", 0, "at least 1"),
        ("llm.breaker_failures", 0, "at least 1"),
        ("llm.requests_per_minute", 0, "at least 1, or None, which means: no limit"),
        ("llm.budget", -0.5, "more than 0, or None"),
        ("llm.timeout_seconds", 0.0, "at least 0.001"),
        ("eval.cutoffs", (5, 20), "10"),
        ("eval.cutoffs", (0, 10), "at least 1"),
        ("seeds_of_training", (), "at least one"),
        ("variants", (), "at least one"),
        ("variants", ("id", "id"), "names 'id' twice"),
        ("variants", "id", r"must be a list, such as \('a', 'b'\)"),
        ("seeds_of_training", (0, 0), "names 0 twice"),
        ("seeds_of_training", (-1,), "at least 0"),
        ("eval.cutoffs", (10, 10), "names 10 twice"),
        ("data.domain", "moveis", "did you mean 'movies'"),
        ("data.source", "tabel", "did you mean 'table'"),
        ("data.name", "", "must not be empty"),
        ("data.name", "a\0b", "must not hold the character NUL"),
        ("data.max_length", 2.5, "must be a whole number, not a number"),
        ("data.min_interactions", -1, "at least 0"),
        ("data.demo_users", 0, "at least 1"),
        ("data.text_fields", ("title", "title"), "names 'title' twice"),
        ("data.text_fields", ("title", 5.5), "must be a text"),
        ("train.learning_rate", -1.0, "more than 0"),
        ("train.learning_rate", 1e6, "at most 10"),
        ("train.learning_rate", True, "must be a number, not True or False"),
        ("train.max_epochs", 2.5, "must be a whole number"),
        ("train.max_epochs", True, "must be a whole number"),
        ("train.max_epochs", None, "must be a whole number, not a NoneType"),
        ("train.checkpoint_seconds", "never", "must be a number, not a text"),
        ("train.checkpoint_seconds", -1, "at least 0"),
        ("train.weight_decay", -0.1, "at least 0"),
        ("train.seed", 2**70, "at most"),
        ("train.candidates", 0, "at least 1, or None, which means: all"),
        ("encoder.train.together", 2, "the behaviour encoder is trained with one seed"),
        ("encoder.train.learning_rate", 1e6, "at most 10"),
        ("encoder.text_directions", 0, "at least 1, or None, which means: all"),
        ("mesh.data", 0, "at least 1, or None, which means: all devices"),
        ("seeds.clusters", 0, "at least 1, or None, which means: half the number of seed users"),
        ("train.projection_learning_rate", 0.0, "more than 0 .*or None, which means: the same as"),
        ("data.root", "", r"must not be empty, or None, which means: \$RELAND_DATA"),
        ("seeds.seed", -1, "at least 0"),
        ("seeds.seed", 2**70, "at most"),
        ("seeds.iterations", 0, "at least 1"),
        ("seeds.rounds", 0, "at least 1"),
        ("pool.history", 0, "at least 1"),
        ("pool.history", -100, "at least 1"),
        ("pool.held_out", -1, "at least 0"),
        ("pool.max_tokens", 0, "at least 1"),
        ("pool.temperature", -0.1, "at least 0"),
        ("pool.model", 5, "must be a text"),
        ("llm.upload", 1, "must be True or False"),
        ("llm.upload", "yes", "must be True or False"),
        ("text.batch_size", 0, "at least 1"),
        ("text.whiten_items", 0, "at least 1, or None, which means: the raw vectors"),
        ("retrieval.tile", 0, "at least 1"),
        ("eval.tile_bytes", 0, "at least 1"),
        ("eval.mask_history", "true", "must be True or False"),
        ("report_users", (1.5,), "must be a text"),
    ],
)
def test_a_value_that_cannot_work_is_refused(path: str, value: Any, message: str) -> None:
    """The message names the setting, and what would be allowed."""
    with pytest.raises(RelandError, match=f"config.{path}.*{message}"):
        Config.from_dict(nested(path, value))


def leaves(config: Config) -> dict[str, Any]:
    """Every setting by its dotted name."""

    def walk(section: Any, where: str) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(section):
            value, name = getattr(section, field.name), f"{where}{field.name}"
            if dataclasses.is_dataclass(value):
                yield from walk(value, f"{name}.")
            else:
                yield name, value

    return dict(walk(config, ""))


@pytest.mark.parametrize("path", leaves(Config()))
def test_no_setting_takes_what_is_no_value_of_it(path: str) -> None:
    """Not a number, infinity, a dictionary, an object or bytes, alone or in a list; whatever its type."""
    for value in (float("nan"), float("inf"), -float("inf"), {"a": 1}, object(), b"x"):
        for given in (value, (value,), [value, value]):
            with pytest.raises(RelandError, match=f"config.{path}"):
                Config.from_dict(nested(path, given))


@pytest.mark.parametrize(
    "path", [name for name, value in leaves(Config()).items() if isinstance(value, int | float)]
)
def test_no_number_is_without_bounds(path: str) -> None:
    """What nobody can mean is refused in one short line before any work, however many digits it has."""
    is_bool = isinstance(leaves(Config())[path], bool)
    for given in (10**16, -(10**16), 10**400, -(10**400), 10**5000, 1e300):
        with pytest.raises(RelandError, match=f"config.{path}") as caught:
            Config.from_dict(nested(path, given))
        assert len(str(caught.value)) < 600
        assert is_bool or "must be" in str(caught.value)


def test_a_long_value_is_reported_by_its_beginning() -> None:
    with pytest.raises(RelandError, match=r"config.model.backbone='xxx.* \.\.\. is not known") as caught:
        Config.from_dict(nested("model.backbone", "x" * 100_000))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("path", "default"), leaves(Config()).items())
def test_every_setting_tells_what_it_means_and_takes_its_default(path: str, default: Any) -> None:
    *sections, name = path.split(".")
    owner: Any = Config()
    for section in sections:
        owner = getattr(owner, section)
    (field,) = (each for each in dataclasses.fields(owner) if each.name == name)
    assert len(field.metadata["help"]) > 5
    assert setting_of(Config.from_dict(nested(path, default)), path) == default


def test_numbers_of_libraries_and_flags_become_plain_ones() -> None:
    """A whole number for a number, NumPy's types, and a number that a flag made of an id."""
    values = {
        "train": {"learning_rate": 1, "max_epochs": np.int64(3), "weight_decay": np.float32(0.5)},
        "report_users": [5, "007"],
        "model": {"tower": [np.int32(4)]},
    }
    config = Config.from_dict(values)
    found = [config.train.learning_rate, config.train.max_epochs, config.train.weight_decay]
    assert [*map(type, found)] == [float, int, float] and found == [1.0, 3, 0.5]
    assert config.report_users == ("5", "007")
    assert [*map(type, config.model.tower)] == [int]


@pytest.mark.parametrize("written", ["id,f_item", "(id, f_item)", "['id','f_item']", "id, f_item,"])
def test_names_are_split_however_a_command_line_writes_them(written: str) -> None:
    config = Config.from_dict({"variants": (written,), "report_users": ("a,b",)})
    assert config.variants == ("id", "f_item") and config.report_users == ("a,b",)
    fields = {"data": {"text_fields": ("title,brand",)}, "model": {"entities": ["brand,shop"]}}
    config = Config.from_dict(fields | {"pool": {"scrub": ("email,names",)}})
    assert config.data.text_fields == ("title", "brand") and config.model.entities == ("brand", "shop")
    assert config.pool.scrub == ("email", "names")
    assert Config.from_dict({"data": {"text_fields": ("",)}}).data.text_fields == ()


def test_a_section_is_no_value() -> None:
    with pytest.raises(RelandError, match="config.train=3 is a section of settings; name one of objective"):
        Config.from_dict({"train": 3})


def test_the_known_names_are_those_of_the_code() -> None:
    assert set(SOURCES) == {"auto", *LOADING_SOURCES}
    assert set(DOMAINS) == set(POOL_DOMAINS)
    assert set(PROVIDERS) == {*POOL_PROVIDERS, *POOL_SOURCES}


def test_settings_of_the_machine_are_no_part_of_a_fingerprint() -> None:
    """They change how the work is done, and never what comes out."""
    machine = {
        "train": {"checkpoint_seconds": 1.0}, "encoder": {"train": {"checkpoint_seconds": 1.0}},
        "text": {"batch_size": 3}, "retrieval": {"tile": 5}, "eval": {"tile_bytes": 7},
    }  # fmt: skip
    assert fingerprint(Config.from_dict(machine)) == fingerprint(Config())
    for changes in ({"train": {"patience": 3}}, {"encoder": {"train": {"seed": 1}}}, {"variants": ["id"]}):
        assert fingerprint(Config.from_dict(changes)) != fingerprint(Config())


def test_the_width_must_fit_the_heads() -> None:
    with pytest.raises(RelandError, match="config.model.dim=10 is not a multiple of heads=4"):
        Config.from_dict({"model": {"dim": 10, "heads": 4}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "ngcf"}, "ngcf is not trained on sampled neighbours, only lightgcn and gat are"),
        ({"layers": 3}, "a number of at least 1 for each of the model.layers=3"),
        ({"fanout": (5, 0)}, r"fanout=\(5, 0\) must have a number of at least 1"),
    ],
)
def test_a_fanout_must_fit(settings: dict[str, Any], message: str) -> None:
    fitting = {"backbone": "lightgcn", "layers": 2, "fanout": (5, 5)}
    assert Config.from_dict({"model": fitting}).model.fanout == (5, 5)
    with pytest.raises(RelandError, match=message):
        Config.from_dict({"model": fitting | settings})


def test_gat_on_several_devices_must_sample() -> None:
    encoder = {"model": {"backbone": "gat", "layers": 2}}
    with pytest.raises(RelandError, match=r"config.mesh: .* set encoder.model.fanout, such as \(5, 5\)"):
        Config.from_dict({"encoder": encoder, "mesh": {"model": 2}})
    encoder["model"]["fanout"] = (5, 5)
    assert Config.from_dict({"encoder": encoder, "mesh": {"model": 2}}).mesh.model == 2


@pytest.mark.parametrize("backbone", ENCODERS)
def test_every_setting_survives_a_file(backbone: str) -> None:
    """Through `to_dict`, JSON and the flags' own dictionary; tuples come back as tuples."""
    values = get_config(f"some/folder,{backbone}").to_dict()
    config = Config.from_dict(values)
    assert config.data.name == "some/folder" and config.model.backbone == backbone
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)
    assert again.eval.cutoffs == (5, 10, 20) and again.model.tower == (16, 8)


def test_what_is_kept_counts_personal_names() -> None:
    pool = dataclasses.replace(Config().pool, scrub=("names",), names=("Ada Example", "names.txt"))
    kept = dataclasses.replace(Config(), pool=pool).to_keep()
    assert kept["pool"]["names"] == ("2 entries",) and "Ada" not in json.dumps(kept)
    assert Config().to_keep() == Config().to_dict()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("demo", "expected DATASET,BACKBONE"),
        ("demo,sasrek", "backbone 'sasrek': did you mean 'sasrec'"),
    ],
)
def test_the_argument_of_the_config_file(argument: str, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        get_config(argument)


def test_what_the_config_file_sets() -> None:
    lastfm, movies, path = (get_config(f"{name},lightgcn") for name in ("lastfm", "ml-1m", "a,b.csv"))
    assert (lastfm.data.protocol, lastfm.data.domain) == ("fixed", "music")
    assert (movies.data.protocol, movies.data.domain, movies.train.objective) == ("ratio", "movies", "bpr")
    assert (path.data.name, path.data.domain) == ("a,b.csv", "products")
    for backbone in BACKBONES:
        config = get_config(f"demo,{backbone}")
        found = config.data.protocol, config.eval.mask_history, config.train.objective == "bpr"
        of_sequences = backbone in ("gru4rec", "sasrec", "duorec")
        assert found == (("leave_one_out", False, False) if of_sequences else ("ratio", True, True))


def test_nearest_name() -> None:
    assert nearest_name("sasrce", BACKBONES) == "did you mean 'sasrec'?"
    assert nearest_name("bert", BACKBONES) == f"known are {', '.join(BACKBONES)}"


@pytest.mark.parametrize(
    ("flag", "path", "value"),
    [
        ("--config.train.projection_learning_rate=None", "train.projection_learning_rate", None),
        ("--config.train.projection_learning_rate=0.25", "train.projection_learning_rate", 0.25),
        ("--config.text.whiten_rationales=none", "text.whiten_rationales", None),
        ("--config.text.whiten_items=32", "text.whiten_items", 32),
        ("--config.mesh.data=null", "mesh.data", None),
        ("--config.data.user_field=None", "data.user_field", None),
        ("--config.data.user_field=7", "data.user_field", "7"),
    ],
)
def test_none_on_a_command_line(flag: str, path: str, value: Any) -> None:
    """As a flag, in --set, and as JSON writes it."""
    values, words = flags.FlagValues(), ["program", "--config=experiments/configs/reland.py", flag]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words, lock_config=True)
    values(words)
    assert setting_of(Config.from_dict(values.config.to_dict()), path) == value
    name, equals, written = flag.removeprefix("--config.").partition("=")
    assert parse_setting(name + equals + written, Config()) == (path, value)
    assert setting_of(Config.from_dict(json.loads(json.dumps(nested(path, value)))), path) == value


@pytest.mark.parametrize(("path", "default"), leaves(Config()).items())
def test_none_means_something_where_it_is_allowed(path: str, default: Any) -> None:
    *sections, name = path.split(".")
    owner: Any = functools.reduce(getattr, sections, Config())
    (field,) = (each for each in dataclasses.fields(owner) if each.name == name)
    assert bool(field.metadata["none"]) == may_be_none(owner, name)
    assert default is not None or may_be_none(owner, name)


def test_the_help_has_every_setting() -> None:
    said = " ".join(settings_help().split())
    for name in leaves(Config()):
        assert f" --config.{name}: " in said
    assert (
        "--config.train.projection_learning_rate: step size of item projections, attention and NeuMF's tower "
        "(number, more than 0, at most 10; or None: the same as learning_rate; default: None)" in said
    )
    tower = "NeuMF: widths of the MLP's hidden layers (list, each entry: whole number, at least 1;"
    assert f"--config.model.tower: {tower} default: (16, 8))" in said
    machine = "(whole number, at least 1; default: 64; a setting of the machine, which changes no result)"
    assert f"--config.llm.concurrency: concurrent requests {machine}" in said


def test_the_response_file_of_a_batch_is_no_pool() -> None:
    with pytest.raises(RelandError, match="config.pool.path='a.jsonl' names a pool.*config.llm.responses"):
        Config.from_dict({"pool": {"provider": "batch", "path": "a.jsonl"}})
