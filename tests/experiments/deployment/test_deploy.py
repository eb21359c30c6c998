"""A whole deployment: the same numbers after kills, and nothing of a day depends on it or on later ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.deploy import get_config
from experiments.deploy import days_asked, run
from experiments.deployment import days as days_module
from experiments.deployment.days import whole_log
from experiments.deployment.rankers import padded
from experiments.deployment.trial import slate_log
from reland_jax import events
from reland_jax.artefacts import load_arrays
from reland_jax.deploy_settings import DeployJob, RhythmConfig, TrialConfig
from reland_jax.events import trial
from reland_jax.events.parts import catalogue_of
from reland_jax.ranker_settings import LogConfig, RankerConfig, RankerTextsConfig, RankerTrainConfig
from reland_jax.types import RelandError
from tests.toys import quick_programs, quick_programs_environment

SMALL = RankerConfig(
    network="dnn", task="esmm", labels=("click", "conversion"), layers=(16,), width=4
)  # fmt: skip


def job(encoder: str = "lightgcn") -> DeployJob:
    return DeployJob(
        log=LogConfig(shop_users=60, shop_rows=2800),
        rhythm=RhythmConfig(warm_days=2, pool_days=2, encoder_days=28, encoder=encoder, max_length=10),
        texts=RankerTextsConfig(fraction=0.2, encoder_epochs=2),
        ranker=SMALL,
        train=RankerTrainConfig(batch_size=64, max_epochs=1),
        trial=TrialConfig(days=2, candidates=4, shown=2),
        arms=("f_item", "reland", "seed_id"),
        draws=20,
    )


def without_times(plain: dict[str, Any]) -> dict[str, Any]:
    return plain | {"costs": [{**each, "seconds": sorted(each["seconds"])} for each in plain["costs"]]}


def test_days_on_the_command_line() -> None:
    assert [days_asked(text) for text in ("", "8", "8-14")] == [None, (8, 8), (8, 14)]
    for text in ("8-", "-3", "a", "3-4-5"):
        with pytest.raises(RelandError, match="expected two numbers such as 8-14"):
            days_asked(text)


def test_settings_of_each_log() -> None:
    for name, second in (("shop", "conversion"), ("kuairand-pure", "long_view")):
        found = DeployJob.from_dict(get_config(name).to_dict())
        assert found.log.name == name and found.ranker.labels == ("click", second)
    with pytest.raises(RelandError, match="did you mean .rhythm"):
        DeployJob.from_dict({"rythm": {"warm_days": 2}})


def test_rows_that_fill_up_change_no_batch() -> None:
    log = whole_log(LogConfig(shop_users=20, shop_rows=400)).events.take(np.arange(100))
    encoded = events.encode(events.fit(log, np.arange(100)), log)
    longer = padded(encoded)
    assert len(longer.user) == len(longer.sides[2].numeric) == 128
    first, second = (events.gather(each, np.arange(100), None) for each in (encoded, longer))
    np.testing.assert_array_equal(first.categorical, second.categorical)
    np.testing.assert_array_equal(first.numeric, second.numeric)


def test_candidates_are_rows_of_the_log() -> None:
    shop = whole_log(LogConfig(shop_users=20, shop_rows=400)).shop
    assert shop is not None
    slates = trial.draw_slates(shop.world, trial.TrialSettings(days=2, candidates=3, shown=1))
    log = slate_log(catalogue_of(shop.events), slates, 1000)
    encoding = events.fit(shop.events, np.arange(400), min_count=1)
    batch = events.gather(events.encode(encoding, log), np.arange(log.num_rows), None)
    names = encoding.names("categorical")
    codes = batch.categorical[:, names.index("category")]
    known = encoding.known["category"].tolist()
    row = 4
    item = slates.item[row // 3, row % 3]
    assert (log.user[row], log.item[row]) == (slates.user[row // 3], item)
    assert known[codes[row] - 2] == events.shop.CATEGORIES[shop.world.category[item]]
    assert log.scenario.code[row] == slates.scenario[row // 3]


@pytest.mark.slow
def test_a_deployment_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    with quick_programs(tmp_path / "programs"):
        whole = run(job(), tmp_path / "whole")
        run(job(), tmp_path / "parts", (4, 6))
        parts = run(job(), tmp_path / "parts")
    assert without_times(whole) == without_times(parts)
    assert [each["day"] for each in whole["costs"] if each["seed_users"]] == [
        f"2024-01-{day:02d}" for day in range(3, 16, 2)
    ]
    encoders = [each["day"] for each in whole["costs"] if "encoder" in each["seconds"]]
    assert encoders == ["2024-01-03"]  # no other day or user needs a training of it
    assert {each["arm"] for each in whole["days"]} == {"f_item", "reland", "seed_id"}
    assert (tmp_path / "whole" / "deploy.html").read_text().count("<table") >= 6
    assert all(0 <= each["matched"] <= 1 for each in whole["costs"])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["sasrec", "lightgcn"])
def test_nothing_of_a_day_depends_on_it_or_on_later_ones(tmp_path: Path, encoder: str) -> None:
    """With other rows from day 7 on, everything that is made for day 7 is equal bit by bit."""
    with quick_programs(tmp_path / "programs"):
        run(job(encoder), tmp_path / "one", (6, 8))
        log = whole_log(job().log)
        later = log.events.day() >= log.events.day()[0] + 6
        item = np.where(later, 1 + log.events.item * 7 % log.events.num_items, log.events.item)
        click = np.where(later, 1 - log.events.labels["click"], log.events.labels["click"])
        other = log._replace(
            events=log.events._replace(
                item=item.astype(np.int32), labels=log.events.labels | {"click": click.astype(np.int8)}
            )
        )
        with pytest.MonkeyPatch.context() as patch:
            for place in ("days", "features", "plan", "trial", "summary"):
                patch.setattr(f"experiments.deployment.{place}.whole_log", lambda config: other)
            run(job(encoder), tmp_path / "two", (6, 8))
    same = ("vectors", "pool", "table", "ranker/reland", "ranker/seed_id")
    for stage, day in [(stage, day) for stage in same for day in ("2024-01-06", "2024-01-07")]:
        if stage == "pool" and day == "2024-01-06":
            continue
        ours, theirs = (load_arrays(tmp_path / each / stage / day) for each in ("one", "two"))
        assert list(ours) == list(theirs)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=f"{stage}/{day}/{name}")
    for stage in ("vectors", "ranker/reland"):  # and day 8 knows of day 7
        ours, theirs = (load_arrays(tmp_path / each / stage / "2024-01-08") for each in ("one", "two"))
        assert any((array != theirs[name]).any() for name, array in ours.items())


_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.experiments.deployment.test_deploy import job
from experiments.deploy import run
run(job(), Path(sys.argv[1]), (4, 7))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    environment = os.environ | quick_programs_environment(tmp_path / "programs")
    root = str(Path(days_module.__file__).parents[2])

    def start(workdir: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _RUN, str(workdir), root]
        return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    kills, rng = 0, np.random.default_rng(0)
    while True:
        process = start(tmp_path / "killed")
        before = _finished(tmp_path / "killed")
        while process.poll() is None and _finished(tmp_path / "killed") < before + 9:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.4))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 3
    first, second = (
        json.loads((tmp_path / name / "deploy.json").read_text()) for name in ("whole", "killed")
    )
    assert without_times(first) == without_times(second)


def _finished(workdir: Path) -> int:
    return len(list(workdir.rglob("stamp.json")))
