"""Settings: what is refused and how it is said, and that nothing is lost on the way to a file and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from experiments.configs.reland import get_config
from reland_jax.config import BACKBONES, ENCODERS, Config, nearest_name
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
        ("fusion.gain", -0.5, "at least 0"),
        ("fusion.gain", 0.5, "use shared, or a gain of 0"),
        ("model.dim", 0, "at least 1"),
        ("model.heads", 0, "at least 1"),
        ("encoder.model.layers", -1, "at least"),
        ("model.hidden", 0, "at least 1"),
        ("model.tower", (), "at least 1"),
        ("model.tower", (32, 0), "at least 1"),
        ("encoder.model.tower", (-1, 8), "at least 1"),
        ("model.contrast", -0.1, "at least 0"),
        ("model.temperature", 0.0, "at least 1e-06"),
        ("encoder.model.temperature", -1.0, "at least 1e-06"),
        ("train.view_length", 0, "at least 1"),
        ("encoder.train.view_length", 0, "at least 1"),
        ("encoder.text_weight", -0.5, "at least 0"),
        ("seeds.fraction", 0.0, "at least"),
        ("seeds.fraction", 1.1, "at most 1"),
        ("data.max_length", 1, "at least 2"),
        ("retrieval.neighbours", 0, "at least 1"),
        ("retrieval.cold_mismatch", 1.5, "at most 1"),
        ("fusion.item_scale", -1.0, "at least 0"),
        ("pool.prompt", "step", "did you mean 'steps'"),
        ("pool.cleaning", "rules", "did you mean 'rule'"),
        ("pool.scrub", ("emails",), "did you mean 'email'"),
        ("llm.concurrency", 0, "at least 1"),
        ("llm.attempts", 0, "at least 1"),
        ("llm.breaker_failures", 0, "at least 1"),
        ("llm.requests_per_minute", -1, "at least 0"),
        ("llm.budget", -0.5, "at least 0"),
        ("llm.timeout_seconds", 0.0, "at least 0.001"),
        ("eval.cutoffs", (5, 20), "10"),
        ("eval.cutoffs", (0, 10), "at least 1"),
        ("seeds_of_training", (), "at least one"),
        ("variants", (), "at least one"),
    ],
)
def test_a_value_that_cannot_work_is_refused(path: str, value: Any, message: str) -> None:
    """The message names the setting, and what would be allowed."""
    with pytest.raises(RelandError, match=f"config.{path}.*{message}"):
        Config.from_dict(nested(path, value))


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


def test_every_setting_has_a_help_text() -> None:
    def settings(cls: type) -> list[str]:
        found = []
        for field in dataclasses.fields(cls):
            default = getattr(cls(), field.name)
            if dataclasses.is_dataclass(default):
                found += [f"{field.name}.{name}" for name in settings(type(default))]
            elif not field.metadata.get("help"):
                found.append(field.name)
        return found

    assert settings(Config) == []


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
