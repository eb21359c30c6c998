"""A purge and those who ask exclude each other, and nothing about the removed is sent or kept meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.pool import main
from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.chat import ChatError, Trouble
from reland_jax.pool.asking.engine import ask_all
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import REMOVED, request_record
from reland_jax.pool.asking.replies import Asked as Answers
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.providers.batch import AwaitingResponses, BatchProvider
from reland_jax.pool_store.asked import ASKING_FOLDER, Asked, note_asked, read_asked
from reland_jax.pool_store.asking_lock import Guard, asking, asking_stopped
from reland_jax.pool_store.purging import verify
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError
from tests.pool_store.toys import CHANGE, content

CONFIG, LLM = PoolConfig(max_tokens=20), LLMConfig(concurrency=2)
USERS = ("user-1", "user-2", "user-3")


def prompt_of(user: str) -> str:
    return f"{user} bought a kettle"


@pytest.fixture
def store(tmp_path: Path) -> PoolStore:
    """A version, an empty journal, and the notes of three prompts."""
    store = PoolStore(tmp_path / "store")
    with Journal(store.folder / "asking" / "journal.sqlite"):
        pass
    with store.locked():
        store.publish(content(), CHANGE)
        note_asked(store.folder, [Asked(user, prompt_hash(prompt_of(user)), "asking/journal.sqlite")
                                  for user in USERS])  # fmt: skip
    return store


def remove(store: PoolStore, *users: str) -> None:
    with store.locked():
        store.remember(users=users)


class Scripted:
    """A service that answers, and does something at a certain request first or last."""

    def __init__(self, before: Callable[[str], None] | None = None) -> None:
        self.asked: list[str] = []
        self._before = before

    async def ask(self, messages: list[dict[str, str]], max_tokens: int) -> str:
        prompt = messages[0]["content"]
        self.asked.append(prompt)
        if self._before:
            self._before(prompt)
        text = f"Step 1: {prompt} and likes tea.\nStep 2: Recommend a teapot to {prompt.split()[0]}."
        usage = {"prompt_tokens": 7, "completion_tokens": 9}
        return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage, "model": "m"})


def ask(store: PoolStore, chat: Scripted, users: tuple[str, ...] = USERS) -> tuple[Answers, int]:
    """What `ask_all` says of the prompts of users, and what was paid."""
    folder = store.folder / ASKING_FOLDER
    with Journal(folder / "journal.sqlite", may_ask=Guard(store).may_ask) as journal:
        records = [request_record(prompt_of(user), CONFIG) for user in users]
        answers = asyncio.run(ask_all(records, chat, journal, CONFIG, LLM))
        return answers, sum(sum(usage[1:]) for usage in journal.usage().values())


def test_the_guard_knows_who_is_removed_also_when_the_notes_are_purged(store: PoolStore) -> None:
    may_ask = Guard(store).may_ask
    assert [may_ask(prompt_of(user)) for user in USERS] == [True] * 3
    assert main(["pool", "remove", f"--store={store.folder}", "--user=user-1", "--why=x", "--purge"]) == 0
    assert USERS[0] not in {note.user_id for note in read_asked(store.folder)}
    assert [may_ask(prompt_of(user)) for user in USERS] == [False, True, True]
    with store.locked():
        store.forget(users=["user-1"])
    assert [may_ask(prompt_of(user)) for user in USERS] == [True] * 3
    (store.folder / "removed.json").unlink()
    with pytest.raises(RelandError, match="removed.json: missing"):
        may_ask(prompt_of("user-2"))


def test_who_is_removed_before_the_request_is_not_asked_about(store: PoolStore) -> None:
    chat = Scripted()
    remove(store, "user-1")
    found, _ = ask(store, chat)
    assert sorted(chat.asked) == [prompt_of("user-2"), prompt_of("user-3")] and len(found.answers) == 2
    assert list(found.problems.values()) == [REMOVED] and len(found.closed) == 1


def test_an_answer_that_comes_after_the_removal_is_paid_and_not_kept(store: PoolStore) -> None:
    def removed_meanwhile(prompt: str) -> None:
        if prompt == prompt_of("user-1"):
            remove(store, "user-1")

    found, paid = ask(store, Scripted(removed_meanwhile))
    assert len(found.answers) == 2 and list(found.problems.values()) == [REMOVED] and paid == 3 * 16
    assert b"teapot to user-1" not in b"".join(
        path.read_bytes() for path in (store.folder / ASKING_FOLDER).iterdir() if path.is_file()
    )


def test_a_purge_waits_for_those_who_ask_and_stops_them(store: PoolStore) -> None:
    with asking(store), asking(store):
        with pytest.raises(RelandError, match="not purged: another process asks in this store"):
            with asking_stopped(store, 0):
                pass
    waited = []
    with asking_stopped(store, 0, lambda: waited.append(1)):
        with pytest.raises(RelandError, match="a purge is in progress"):
            asking(store).__enter__()
        chat = Scripted()
        with pytest.raises(RelandError, match="asking stops"):
            ask(store, chat)
        assert chat.asked == []
    with asking(store):
        assert not waited


def test_a_purge_that_could_not_be_done_is_not_forgotten(
    store: PoolStore, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pool", "remove", f"--store={store.folder}", "--user=user-1", "--why=x"]
    with asking(store):
        assert main([*command, "--purge", "--wait=0"]) == 1
        assert "not purged: another process asks" in capsys.readouterr().err
        assert verify(store) == ["a purge was interrupted or failed: run the command again"]
        assert main(["pool", "cap", f"--store={store.folder}", "--seeds=3", "--why=x"]) == 0
        assert "cannot be finished yet" in capsys.readouterr().err and store.unfinished_purge()
    (store.folder / "CURRENT").write_text("1\n")  # the old version, which still has the user
    assert main(["pool", "cap", f"--store={store.folder}", "--seeds=2", "--why=x"]) == 0
    assert "finishing an interrupted purge first" in capsys.readouterr().out
    assert verify(store) == [] and not store.unfinished_purge()
    assert len(store.numbers()) == 2 and "user-1" not in {note.user_id for note in read_asked(store.folder)}


BUILDER = """
    import sys, time
    sys.path.insert(0, {repository!r})
    from pathlib import Path
    from reland_jax.pool_store.asking_lock import asking
    from reland_jax.pool_store.store import PoolStore
    from reland_jax.types import RelandError
    from tests.pool_store import test_asking_lock as toys

    def slowly(prompt):
        with open({log!r}, "a") as file:
            print(time.time(), prompt.split()[0], file=file, flush=True)
        time.sleep(0.05)

    store = PoolStore({folder!r})
    users = tuple("user-" + str(row) for row in range(12))
    try:
        with asking(store):
            with store.locked():
                prompts = [(user, toys.prompt_of(user) + str(turn)) for user in users for turn in range(20)]
                toys.note_asked(store.folder, [
                    toys.Asked(user, toys.prompt_hash(prompt), "asking/journal.sqlite")
                    for user, prompt in prompts
                ])
            toys.prompt_of = lambda user, known=toys.prompt_of: known(user[:-3]) + str(int(user[-2:]))
            everyone = tuple(f"{{user}}-{{turn:02d}}" for turn in range(20) for user in users)
            answers, _ = toys.ask(store, toys.Scripted(slowly), everyone)
            print(len(answers.answers))
    except RelandError as error:
        print("stopped:", error)
"""


def test_a_purge_beside_a_running_builder_leaves_nothing(
    store: PoolStore, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process asks 240 prompts of 12 users; one is removed and purged in the middle of it."""
    log = tmp_path / "log"
    program = textwrap.dedent(BUILDER).format(
        repository=str(repository), folder=str(store.folder), log=str(log)
    )
    builder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not (log.exists() and len(log.read_text().splitlines()) >= 30):
            assert builder.poll() is None and time.monotonic() < end, builder.communicate()
            time.sleep(0.05)
        command = ["pool", "remove", f"--store={store.folder}", "--user=user-3", "--why=x", "--purge"]
        assert main(command) == 0, capsys.readouterr()
        purged = time.time()
        said, _ = builder.communicate(timeout=60)
    finally:
        builder.kill()
    assert said.startswith("stopped:") and "asking stops" in said
    lines = [line.split() for line in log.read_text().splitlines()]
    assert any(user == "user-3" for _, user in lines) and len(lines) < 240
    assert not [user for when, user in lines if user == "user-3" and float(when) > purged]
    kept = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert b"user-3" not in kept and b"user-2 bought" in kept
    assert verify(store) == []


def test_asking_that_waits_for_another_try_is_stopped_too(store: PoolStore) -> None:
    class Limited(Scripted):
        async def ask(self, messages: list[dict[str, str]], max_tokens: int) -> str:
            held.enter_context(asking_stopped(store, 0))
            raise ChatError(Trouble.LIMITED, "too many requests", 60.0)

    began = time.monotonic()
    with contextlib.ExitStack() as held, pytest.raises(RelandError, match="asking stops"):
        ask(store, Limited(), USERS[:1])
    assert time.monotonic() - began < 30


def test_request_files_have_nobody_who_was_removed(store: PoolStore) -> None:
    remove(store, "user-2")
    requests = [RationaleRequest(user, prompt_of(user)) for user in USERS]
    provider = BatchProvider(CONFIG, LLM, store.folder / ASKING_FOLDER, Guard(store).may_ask)
    with pytest.raises(AwaitingResponses) as raised:
        provider.rationales(requests)
    text = raised.value.request_path.read_text()
    assert raised.value.num_requests == 2 and "user-2" not in text and "user-3 bought" in text
