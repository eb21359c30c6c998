"""`python -m experiments.pool` on the demo data: all commands, mistakes, a removal that leaves no trace."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.pool import COMMANDS, main
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool_store.asked import read_asked
from reland_jax.pool_store.rematch import read_version
from reland_jax.pool_store.source import register
from reland_jax.pool_store.store import PoolStore
from reland_jax.stages import ASSIGN, BUILD_POOL, FLOW
from tests.e2e.conftest import merged
from tests.e2e.test_run import flags_of
from tests.pool_store.toys import check_valid, same

DEMO = "--config=experiments/configs/reland.py:demo,lightgcn"


class Asked:
    """A store that was built with the batch provider, answered by hand.

    Attributes:
        folder: everything.
        store: the store.
        settings: changes to the demo's settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.store = PoolStore(folder / "store")

    def run(self, *arguments: str) -> int:
        """One command on the store."""
        command, *rest = arguments
        if command in ("build", "refresh"):
            start = [DEMO, f"--workdir={self.folder / 'work'}", *flags_of(self.settings)]
            rest = [*start, "--config.pool.provider=batch", *rest]
        return main(["pool", command, f"--store={self.store.folder}", *rest])

    def answer(self, word: str, created: int = 1_760_000_000) -> int:
        """Answers all waiting prompts, each with words of its own, and says how many there were."""
        asking = self.store.folder / "asking"
        lines = [json.loads(line) for line in (asking / "batch_requests.jsonl").read_text().splitlines()]
        with (asking / "batch_responses.jsonl").open("a") as file:
            for line in lines:
                own = f"{word}{line['custom_id'][7:19]}"
                content = f"Step 1: Likes {own}.\nStep 2: Recommend {own} too."
                body = {
                    "choices": [{"message": {"content": content}}],
                    "usage": {"prompt_tokens": 50, "completion_tokens": 10}, "created": created, "model": "m",
                }  # fmt: skip
                response = {"status_code": 200, "body": body}
                file.write(json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n")
        return len(lines)

    def seeds(self, number: int | None = None) -> dict[str, str]:
        """External id -> step 1 of every seed user."""
        found = self.store.read_as_written(number)
        users = found.population.user_ids[found.pool.seeds.user].tolist()
        return {user: each.step1 for user, each in zip(users, found.pool.rationales, strict=True)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, settings: Callable[..., dict[str, Any]]) -> Asked:
    asked = Asked(tmp_path_factory.mktemp("pool"), settings(seeds={"fraction": 0.1}))
    assert asked.run("build", "--why=first pool", "--who=ann") == 1, "the prompts wait for answers"
    assert asked.store.current() is None
    assert asked.answer("First") == 6
    assert asked.run("build", "--why=first pool", "--who=ann") == 0
    return asked


@pytest.fixture
def asked(built: Asked, tmp_path: Path) -> Asked:
    """A copy of the built store."""
    shutil.copytree(built.folder, tmp_path / "copy")
    return Asked(tmp_path / "copy", built.settings)


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file with its content as text: bytes as they are, and decoded where they are compressed."""
    import pyarrow.parquet as pq

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            rows = pq.read_table(path, use_threads=False).to_pylist()
            yield str(path), json.dumps(rows, ensure_ascii=False)
        if path.suffix == ".npy":
            yield str(path), " ".join(map(str, np.load(path).ravel().tolist()))
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                values = (value for name in arrays for value in arrays[name].ravel().tolist())
                yield str(path), " ".join(map(str, values))
        yield str(path), content.decode("utf-8", "replace")
        yield str(path), content.decode("utf-16-le", "replace").replace("\0", "")


def traces(folder: Path, *words: str) -> list[str]:
    return sorted({name for name, text in texts_in(folder) for word in words if word in text})


def test_build_publishes_everybody(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked.store.read_as_written()
    check_valid(found)
    assert len(found.population.user_ids) == 60 and len(found.pool.rationales) == 6
    (line,) = asked.store.audit()
    assert (line["who"], line["why"], line["action"]) == ("ann", "first pool", "build")
    assert (line["seeds_added"], line["users_touched"]) == (6, 60)
    assert asked.run("verify") == 0 and "no faults found" in capsys.readouterr().out


def test_a_removed_user_leaves_no_trace(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    user, text = next(iter(asked.seeds().items()))
    word = text.split()[1].rstrip(".")
    assert traces(asked.store.path_of(), user, word), "the search finds what is there"
    before = asked.store.read_as_written()
    touched = int((before.assignment.seed == 0).any(axis=1).sum())
    assert asked.run("remove", f"--user={user}", "--why=request 12") == 0
    said = capsys.readouterr().out
    assert f"1 removed, 0 added, 0 changed, 5 in the pool; {touched} of 60 users affected" in said
    assert "--purge deletes it there too" in said
    check_valid(asked.store.read_as_written())
    behaviour = asked.store.folder / "behaviour" / json.loads(
        (asked.store.path_of() / "version.json").read_text())["behaviour"]["name"]  # fmt: skip
    assert traces(asked.store.path_of(), user, word) == [] and traces(behaviour.parent, user) != []
    assert user not in "".join(text for name, text in texts_in(behaviour.parent) if name == str(behaviour))
    for name in ("audit.jsonl", "removed.json"):
        assert user not in (asked.store.folder / name).read_text()

    values = merged(get_config("demo,lightgcn").to_dict(), asked.settings)
    values["pool"] |= {"provider": "store", "path": str(asked.store.folder)}
    register()
    made = flow.run(FLOW, Config.from_dict(values), asked.folder / "run")
    assert len(made[BUILD_POOL].pool.rationales) == 5 and len(made[ASSIGN].seed) == 60
    assert traces(asked.folder / "run", word) == []
    assert traces(asked.folder / "run" / "build_pool", user) == []

    assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12") == 0
    assert "purged: 2 older versions, 1 prompts of the journal" in capsys.readouterr().out
    assert traces(asked.store.folder, user, word) == []
    assert asked.store.numbers() == [3] and len(asked.store.audit()) == 3 and asked.run("verify") == 0

    assert asked.run("build", "--why=again") == 0, "nothing is asked: all others are in the journal"
    assert user not in asked.seeds() and traces(asked.store.folder, user, word) == []
    assert len(asked.seeds()) == 5 and user not in asked.store.read_as_written().population.user_ids


def test_a_purge_that_was_killed_is_finished(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user, text = next(iter(asked.seeds().items()))
    word = text.split()[1].rstrip(".")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("experiments.pool_commands.changes.purge", killed)
        assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12") == 130
    assert traces(asked.store.folder, user, word)
    assert asked.run("cap", "--seeds=3", "--why=smaller") == 0
    assert "finishing an interrupted purge first" in capsys.readouterr().out
    assert traces(asked.store.folder, user, word) == []


def test_removal_by_match_and_block_are_remembered(asked: Asked) -> None:
    (first, one), (second, two) = list(asked.seeds().items())[:2]
    words = [text.split()[1].rstrip(".") for text in (one, two)]
    assert asked.run("remove", f"--match={words[0]}", "--why=wrong", "--purge") == 0
    assert traces(asked.store.folder, words[0]) == []
    assert first in asked.store.read_as_written().population.user_ids
    assert asked.run("block", f"--pattern={words[1].lower()}", "--why=policy") == 0
    assert {first, second}.isdisjoint(asked.seeds())
    file = asked.folder / "more.jsonl"
    lines = [{"user_id": first, "step2": "harmless"}, {"user_id": second, "step2": f"no {words[1]}"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert asked.run("add", f"--file={file}", "--held_out=99", "--why=more") == 0
    assert asked.run("build", "--why=again") == 0
    assert {first, second}.isdisjoint(asked.seeds()) and len(asked.seeds()) == 4


def test_what_was_removed_and_blocked_may_come_back_when_it_is_off_the_lists(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    (user, _), (other, text) = list(asked.seeds().items())[:2]
    word = text.split()[1].rstrip(".")
    assert asked.run("remove", f"--user={user}", "--why=request 12") == 0
    assert asked.run("block", f"--pattern={word}", "--why=policy") == 0
    assert asked.run("readmit", f"--user={user}x", "--why=mistake") == 1
    assert asked.run("unblock", f"--pattern={word}x", "--why=mistake") == 1
    said = capsys.readouterr().err
    assert "not on the removal list" in said and f"did you mean '{word}'?" in said
    before = asked.store.read_as_written()
    assert asked.run("readmit", f"--user={user}", "--why=came back", "--dry_run") == 0
    assert asked.run("build", "--why=again") == 0 and {user, other}.isdisjoint(asked.seeds())

    assert asked.run("readmit", f"--user={user}", "--why=came back") == 0
    assert asked.run("unblock", f"--pattern={word}", "--why=policy 8", "--who=bo") == 0
    assert same(asked.store.read_as_written(), before), "nothing comes back by itself"
    lines = asked.store.audit()[-2:]
    assert [line["action"] for line in lines] == ["readmit", "unblock"] and lines[1]["who"] == "bo"
    assert user not in json.dumps(lines) and lines[1]["arguments"] == {"pattern": [word]}
    assert asked.run("build", "--why=again") == 0
    assert {user, other} <= set(asked.seeds()) and user in asked.store.read_as_written().population.user_ids


def test_a_purge_says_which_journal_it_did_not_find(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    user, text = next(iter(asked.seeds().items()))
    word = text.split()[1].rstrip(".")
    journal, away = asked.store.folder / "asking" / "journal.sqlite", asked.folder / "away.sqlite"
    journal.rename(away)
    assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12") == 1
    said = capsys.readouterr().err
    assert f"not purged: {journal}: this journal is missing" in said and "restore it" in said
    assert asked.run("verify") == 1 and str(journal) in capsys.readouterr().out
    away.rename(journal)
    assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12") == 0
    assert traces(asked.store.folder, user, word) == [] and asked.run("verify") == 0


def test_the_lists_hold_for_every_version_also_after_a_rollback(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing shows, exports, publishes or trains on who was removed and what was blocked."""
    (user, one), (_, two) = list(asked.seeds().items())[:2]
    words = [text.split()[1].rstrip(".") for text in (one, two)]
    assert asked.run("remove", f"--user={user}", "--why=request 12") == 0
    assert asked.run("block", f"--pattern={words[1]}", "--why=policy") == 0
    (asked.store.folder / "CURRENT").write_text("1\n")
    capsys.readouterr()
    assert asked.run("show", f"--user={user}") == 1
    assert "does not have this user" in capsys.readouterr().err
    file = asked.folder / "out.jsonl"
    for command in (["show"], ["show", "--version=1"], ["stats"], ["diff", "1", "2"],
                    ["export", f"--file={file}"], ["cap", "--seeds=4", "--why=x", "--dry_run"]):  # fmt: skip
        assert asked.run(*command) == 0
        said = capsys.readouterr().out
        assert user not in said and not [word for word in words if word in said], command
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_text().splitlines()) == 4
    assert user not in file.read_text() and words[1] not in file.read_text()
    found = read_version(asked.store)
    check_valid(found)
    assert user not in found.population.user_ids.tolist() and len(found.pool.rationales) == 4

    changes = ["cap", "--seeds=3"], ["expire", "--older_than=2020-01-01"], ["block", "--pattern=nowhere"]
    for change in changes:
        (asked.store.folder / "CURRENT").write_text("1\n")
        assert asked.run(*change, "--why=x") == 0
        number = asked.store.current()
        assert number == 1 or traces(asked.store.path_of(), user, *words) == [], change
        assert number == 1 or asked.run("verify") == 0, change
    assert asked.store.current() == 5


def test_a_purge_after_a_rollback_leaves_nothing(asked: Asked) -> None:
    user, text = next(iter(asked.seeds().items()))
    word = text.split()[1].rstrip(".")
    assert asked.run("remove", f"--user={user}", "--why=request 12") == 0
    (asked.store.folder / "CURRENT").write_text("1\n")
    assert asked.run("remove", f"--user={user}", "--why=request 12", "--purge") == 0
    assert traces(asked.store.folder, user, word) == [] and asked.run("verify") == 0


def test_a_dry_run_of_a_purge_says_what_goes(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    user = next(iter(asked.seeds()))
    assert asked.run("cap", "--seeds=5", "--why=x") == 0
    before = {str(path): path.read_bytes() for path in asked.store.folder.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12", "--dry_run") == 0
    said = capsys.readouterr().out
    journal = asked.store.folder / "asking" / "journal.sqlite"
    assert "2 versions would be deleted, all but the new one: 1, 2" in said
    assert f"1 prompts with all their answers would be deleted from {journal}" in said
    assert "batch_responses.jsonl would be deleted" in said and "dry run: nothing was changed" in said
    after = {str(path): path.read_bytes() for path in asked.store.folder.rglob("*.*") if path.is_file()}
    assert {name for name in before if after[name] != before[name]} <= {str(journal)}
    assert asked.run("remove", f"--user={user}", "--purge", "--why=request 12") == 0
    assert "purged: 2 older versions, 1 prompts of the journal, 1 files" in capsys.readouterr().out


def test_a_pattern_that_never_ends_is_refused_and_can_be_unblocked(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reland_jax.pool_store.patterns.SECONDS", 0.3)
    endless = r"(\w+\s?)+!"
    assert asked.run("add", f"--file={_long_texts(asked)}", "--held_out=99", "--why=longer") == 0
    for command in ([f"--match={endless}", "remove"], [f"--pattern={endless}", "block"]):
        assert asked.run(command[1], command[0], "--why=x") == 1
        assert "takes longer than" in capsys.readouterr().err
    with asked.store.locked() as store:
        store.remember(patterns=[endless])  # by an earlier version of this program
    assert asked.run("cap", "--seeds=2", "--why=x") == 1 and "unblock it" in capsys.readouterr().err
    assert asked.run("unblock", f"--pattern={endless}", "--why=x") == 0
    assert asked.run("cap", "--seeds=2", "--why=x") == 0


def _long_texts(asked: Asked) -> Path:
    file = asked.folder / "long.jsonl"
    texts = {"step1": "one thing and another " * 9, "step2": "two"}
    lines = [{"user_id": user, **texts} for user in asked.seeds()]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_prompts_are_made_once(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    from reland_jax.pool.prompting import requests as module

    made, scrubber = [], module.scrubber
    monkeypatch.setattr(module, "scrubber", lambda *rest: made.append(rest) or scrubber(*rest))
    assert asked.run("build", "--why=again") == 0
    assert len(made) == 1


def test_add_replaces_adds_and_guards(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked.store.read_as_written()
    ids = found.population.user_ids
    old = str(ids[found.pool.seeds.user[0]])
    others = np.setdiff1d(np.arange(60), found.pool.seeds.user)
    new, leaked = (str(ids[user]) for user in others[:2])
    file = asked.folder / "more.jsonl"
    file.write_text("\n".join(json.dumps({"user_id": u, "step1": "one", "step2": "two"}) for u in (old, new)))
    before = asked.store.read_as_written()
    assert asked.run("add", f"--file={file}", "--held_out=99", "--why=better texts") == 0
    after = asked.store.read_as_written()
    check_valid(after)
    assert list(after.pool.rationales[1:6]) == list(before.pool.rationales[1:])
    assert asked.seeds()[old] == asked.seeds()[new] == "one" and len(asked.seeds()) == 7
    file.write_text(json.dumps({"user_id": leaked, "step1": "one", "step2": "two"}))
    assert asked.run("add", f"--file={file}", "--held_out=0", "--why=leaks") == 0
    said = capsys.readouterr().out
    assert "held-out items were shown to its writer" in said and "no change" in said
    assert leaked not in asked.seeds() and asked.store.current() == 2


def test_refresh_asks_about_what_is_out_of_date(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing changed: nobody. Shorter prompts, or old rationales: everybody whom that concerns."""
    assert asked.run("refresh", "--why=daily", "--dry_run") == 0
    assert "0 of 6 seed users will be asked about" in capsys.readouterr().out
    assert asked.run("refresh", "--why=daily") == 0 and asked.store.current() == 1
    assert asked.run("refresh", "--why=daily", "--dry_run", "--config.pool.history=2") == 0
    assert "6 of 6 seed users will be asked about" in capsys.readouterr().out
    before = asked.store.read_as_written()
    assert asked.run("refresh", "--why=old", "--older_than=1d") == 1, "the prompts wait for answers"
    assert asked.answer("Second", created=4_000_000_000) == 6
    assert asked.run("refresh", "--why=old", "--older_than=1d") == 0
    after = asked.store.read_as_written()
    assert all("Second" in each.step1 for each in after.pool.rationales) and asked.store.current() == 2
    np.testing.assert_array_equal(after.assignment.seed, before.assignment.seed)
    assert "First" in asked.seeds(1).popitem()[1], "the old version is what it was"


def test_refresh_keeps_the_others_to_the_byte(asked: Asked) -> None:
    """One rationale is made old by hand: it alone is asked about, the others keep every byte."""
    found = asked.store.read_as_written()
    old = found.pool.rationales[2]._replace(created="2020-01-01T00:00:00+00:00", prompt_hash="0" * 64)
    texts = [*found.pool.rationales[:2], old, *found.pool.rationales[3:]]
    with asked.store.locked() as store:
        store.publish(found._replace(pool=found.pool._replace(rationales=texts)), {
            "who": "ann", "why": "a test", "action": "add", "arguments": {}, "seeds_removed": 0,
            "seeds_added": 0, "seeds_changed": 1, "users_touched": 0,
        })  # fmt: skip
    assert asked.run("refresh", "--why=daily") == 0, "its present prompt is answered in the journal"
    assert list(asked.store.read_as_written().pool.rationales) == list(found.pool.rationales)


def test_cap_and_expire(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked.run("expire", "--older_than=2020-01-01", "--why=old") == 0
    assert "no change" in capsys.readouterr().out and asked.store.current() == 1
    assert asked.run("cap", "--seeds=4", "--tokens=200", "--why=cost") == 0
    check_valid(asked.store.read_as_written())
    assert len(asked.seeds()) == 3, "60 tokens each"
    assert asked.run("expire", "--older_than=1h", "--why=old") == 1
    assert "the bound would remove all 3 seed users" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("build",),
        ("refresh", "--older_than=1d"),
        ("remove", "--match=First", "--purge"),
        ("cap", "--seeds=2"),
        ("block", "--pattern=Likes First[0-7]"),
    ],
)
def test_a_dry_run_changes_nothing(asked: Asked, arguments: tuple[str, ...]) -> None:
    def state() -> dict[str, bytes]:
        folder = asked.store.folder
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = state()
    asked.run(*arguments, "--dry_run")
    assert {name: found for name, found in state().items() if "journal" not in name} == {
        name: found for name, found in before.items() if "journal" not in name
    }


def test_dry_runs_say_what_it_takes(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked.run("build", "--dry_run") == 0
    assert "seed users: 6; prompts: 6, of which 6 are answered" in capsys.readouterr().out
    assert asked.run("build", "--dry_run", "--config.pool.model=gpt-4o-mini") == 0
    said = capsys.readouterr().out
    assert "of which 0 are answered" in said and "at most 2,400 of answers; price: at most 0.00" in said
    assert asked.run("cap", "--seeds=2", "--dry_run") == 0
    assert "4 removed, 0 added, 0 changed, 2 in the pool" in capsys.readouterr().out


def test_looking(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    user, text = list(asked.seeds().items())[1]
    asked.run("cap", "--seeds=5", "--why=one less")
    capsys.readouterr()
    assert asked.run("show", "--limit=2") == 0
    said = capsys.readouterr().out
    assert "000001         " in said and "000002 current " in said and "one less" in said
    assert "5 seed users for 60 users" in said
    assert asked.run("show", f"--user={user}", "--version=1") == 0
    assert text in capsys.readouterr().out
    assert asked.run("stats") == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == 5
    assert asked.run("diff", "1", "2") == 0
    said = capsys.readouterr().out
    (gone,) = asked.seeds(1).keys() - asked.seeds(2).keys()
    assert f"seed users removed: 1\n  {gone}\n    - step1: {asked.seeds(1)[gone]}\n" in said
    assert asked.run("diff", "2", "1", "--limit=0") == 0
    assert "seed users added: 1\n  ... 1 more; see --limit" in capsys.readouterr().out


def test_a_rollback_is_a_version_of_its_own(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    user = next(iter(asked.seeds()))
    assert asked.run("cap", "--seeds=3", "--why=smaller") == 0
    assert asked.run("rollback", "--version=1", "--why=too small", "--dry_run") == 0
    assert "3 added" in capsys.readouterr().out and asked.store.current() == 2
    assert asked.run("rollback", "--version=1", "--why=too small") == 0
    assert asked.store.current() == 3
    assert same(asked.store.read_as_written(3), asked.store.read_as_written(1))
    assert asked.store.audit()[-1]["arguments"] == {"version": 1}
    assert asked.run("rollback", "--version=9", "--why=x") == 1
    assert "version 9 does not exist; existing versions: 1, 2, 3" in capsys.readouterr().err
    assert asked.run("remove", f"--user={user}", "--why=request 12") == 0
    assert asked.run("rollback", "--version=1", "--why=again") == 0
    assert user not in asked.seeds(), "the removal list holds for it too"


def test_what_asking_took_is_told_at_the_end(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked.run("build", "--why=again") == 0
    said = capsys.readouterr().out
    assert "6 answered requests, 300 tokens read, 60 tokens written; price: 0.0002 USD" in said
    assert said.endswith("could not be read or used: 0; still without an answer: 0\n")


def test_an_export_is_a_pool_file(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    file = asked.folder / "out.jsonl"
    assert asked.run("export", f"--file={file}") == 0
    assert asked.run("export", f"--file={file}") == 1 and "--overwrite" in capsys.readouterr().err
    assert asked.run("export", f"--file={file}", "--overwrite") == 0
    before = asked.store.read_as_written()
    assert asked.run("cap", "--seeds=1", "--why=to one") == 0
    # The lines say what their writers were shown, so nothing has to be said of what was left out.
    assert asked.run("add", f"--file={file}", "--held_out=0", "--why=back") == 0
    users = sorted(asked.seeds(1))
    assert sorted(asked.seeds()) == users
    texts = {each.response: each for each in asked.store.read_as_written().pool.rationales}
    assert all(texts[each.response] == each for each in before.pool.rationales)


def test_an_exported_text_may_be_corrected_but_not_what_was_shown(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    file = asked.folder / "out.jsonl"
    assert asked.run("export", f"--file={file}") == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["step2"] = "corrected by hand"
    lines[1] |= {"step2": "of other data", "shown_code": "0" * 16}
    file.write_text("\n".join(map(json.dumps, lines)))
    assert asked.run("add", f"--file={file}", "--held_out=99", "--why=corrected") == 0
    assert "which are not the" in capsys.readouterr().out
    found = asked.store.read_as_written()
    texts = [each.step2 for each in found.pool.rationales]
    assert texts[0] == "corrected by hand" and "Recommend First" in texts[1]
    lines[0]["shown_code"] = "x"
    file.write_text(json.dumps(lines[0]))
    assert asked.run("add", f"--file={file}", "--why=x") == 1
    assert "must be a number and 16 hexadecimal digits" in capsys.readouterr().err


def test_verify_finds_what_is_wrong(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    whole = asked.store.read_as_written()
    with asked.store.locked() as store:
        store.remember(patterns=["First"])
    assert asked.run("verify") == 1
    assert "has 6 seed users or texts that were removed or blocked" in capsys.readouterr().out
    (asked.store.folder / "blocked.json").unlink()
    assert asked.run("verify") == 1 and "blocked.json: missing" in capsys.readouterr().out
    assert asked.run("build", "--why=x") == 1 and "blocked.json: missing" in capsys.readouterr().err
    audit = asked.store.folder / "audit.jsonl"
    audit.write_text(audit.read_text().replace("first pool", "other pool"))
    assert asked.run("verify") == 1 and "edited or lost" in capsys.readouterr().out
    (asked.store.path_of() / "pool.parquet").write_bytes(b"")
    assert asked.run("verify") == 1 and "pool.parquet: truncated or edited" in capsys.readouterr().out
    assert asked.run("cap", "--seeds=2", "--why=x") == 1, "no change of a damaged store"
    assert asked.run("seal", "--why=no copy", "--dry_run") == 0 and asked.run("build", "--why=x") == 1
    assert asked.run("seal", "--why=no copy") == 0 and "0 blocked patterns" in capsys.readouterr().out
    assert asked.run("cap", "--seeds=2", "--why=x") == 1, "no change of a damaged version"
    assert asked.run("build", "--why=damage") == 0, "only a new pool instead of it"
    assert same(asked.store.read_as_written(), whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remov"], "'remov' is not a command; did you mean 'remove'?"),
        (["cap", "--seed=3"], "Did you mean: seeds ?"),
        (["cap", "--why=x"], "cap: --seeds or --tokens is missing"),
        (["cap", "--seeds=2"], "cap: --why is missing"),
        (["remove", "--user=user", "--why=x"], "the store does not have this user"),
        (["remove", "--user=U7", "--why=U7 asked for it"], "--why names user U7"),
        (["remove", "--match=(", "--why=x"], "is not a regular expression"),
        (["expire", "--older_than=soon", "--why=x"], "expected a span such as 12h, 90d or 6w"),
        (["expire", "--older_than=99999999999d", "--why=x"], "before the first date that can be represented"),
        (["expire", "--older_than=99999999w", "--why=x"], "before the first date that can be represented"),
        (["diff", "1"], "diff: operands 1; expected A B"),
        (["diff", "1", "x"], "'x' is not the number of a version"),
        (["show", "--version=9"], "version 9 does not exist; existing versions: 1"),
        (["build", "--why=x", "--config.pool.providr=file"], "did you mean 'provider'"),
        (["build", "--why=x", "--config.pool.provider=store"], "reads a store and cannot write a pool"),
        (["refresh", "--why=x", "--config.pool.provider=file"], "'file' cannot be asked again"),
        (["add", "--why=x", "--file=nowhere.jsonl"], "cannot be read"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    asked: Asked, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert asked.run(*arguments) == 1
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and "Traceback" not in said
    assert asked.store.current() == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in COMMANDS)
    for name in COMMANDS:
        assert main(["pool", name, "--help"]) == 0
        assert "--store: Folder of the pool store." in capsys.readouterr().out
    assert main(["pool"]) == 1 and main(["pool", "show"]) == 1
    assert "--store is missing" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "thesis.txt").write_text("mine")
    for command in (["build", DEMO, f"--workdir={tmp_path / 'work'}"], ["cap", "--seeds=2"]):
        assert main(["pool", *command, f"--store={tmp_path}", "--why=x"]) == 1
        assert "not a pool store, and not empty: it has versions" in capsys.readouterr().err
    assert main(["pool", "seal", f"--store={tmp_path}", "--why=x"]) == 1
    assert "not a pool store" in capsys.readouterr().err
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["versions/thesis.txt"]


def test_as_a_program(built: Asked, repository: Path) -> None:
    command = [sys.executable, "-m", "experiments.pool", "verify", f"--store={built.store.folder}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "version 1 is current: no faults found" in done.stdout, done.stderr


def test_what_was_paid_is_never_asked_again_unawares(
    asked: Asked, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The journal is gone, emptied, or another one, and the notes say that prompts were sent."""
    journal = asked.store.folder / "asking" / "journal.sqlite"
    content = journal.read_bytes()
    notes = len(read_asked(asked.store.folder))
    journal.unlink()
    capsys.readouterr()
    assert asked.run("build", "--why=again") == 1
    said = capsys.readouterr().err
    assert f"lists {notes} prompts that were sent with it" in said and not journal.exists()
    journal.write_bytes(b"")
    assert asked.run("build", "--why=again") == 1
    assert "the journal is empty (0 bytes)" in capsys.readouterr().err and journal.read_bytes() == b""
    journal.unlink()
    Journal(journal).close()
    (asked.store.folder / "asking" / "batch_responses.jsonl").unlink(missing_ok=True)
    asked.run("build", "--why=again")
    assert "the journal has no answer" in capsys.readouterr().err
    journal.write_bytes(content)
    assert asked.run("build", "--why=again") == 0
    assert "the journal" not in capsys.readouterr().err
