"""`remove --purge` killed before many of its steps: the store is sound, and the same command finishes it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# One fork per kill, from a process that has loaded everything and computed nothing yet.
PROGRAM = """
    import json, os, shutil, signal, sqlite3, sys, tempfile
    sys.path.insert(0, {repository!r})
    from pathlib import Path
    import reland_jax.pool_store.rematch
    from experiments.pool import main
    from reland_jax.pool.asking.journal import Journal
    from reland_jax.pool.asking.records import ACCEPTED, Reception, request_record
    from reland_jax.config import PoolConfig
    from reland_jax.pool_store.asked import Asked, note_asked
    from reland_jax.pool_store.purging import verify
    from reland_jax.pool_store.store import PoolStore
    from reland_jax.pool.prompting.prompts import prompt_hash
    from reland_jax.pool.reading.answers import Answer
    from tests.pool_store.toys import CHANGE, check_valid, content

    USER = "user-7"
    os.fsync = lambda descriptor: None  # a kill loses nothing that the system was given

    def make(folder):
        store = PoolStore(folder)
        with store.locked():
            for seed in range(3):
                store.publish(content(users=12, seeds=5, seed=seed), CHANGE)
        with Journal(store.folder / "asking" / "journal.sqlite") as journal:
            for user in ("user-3", USER):
                prompt = f"{{user}} bought soap"
                record = request_record(prompt, PoolConfig())
                journal.record([Reception(record, ACCEPTED, Answer(f"about {{user}}", "m", 1, 1, ""), user)])
                with store.locked():
                    note_asked(store.folder, [Asked(user, prompt_hash(prompt), "asking/journal.sqlite")])
        (store.folder / "asking" / "batch_responses.jsonl").write_text(f"about {{USER}}")

    def watch(kill_at):
        left = [kill_at]
        def counted(function):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)
            return call
        for name in ("replace", "unlink", "rmdir", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        for name in ("write_bytes", "write_text", "mkdir"):
            setattr(Path, name, counted(getattr(Path, name)))
        for name in ("purge", "close"):
            setattr(Journal, name, counted(getattr(Journal, name)))

    def in_a_fork(work):
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(work())
        status = os.waitpid(child, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

    def everything(folder):
        return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())

    moment, killed = 0, 0
    while True:
        folder = tempfile.mkdtemp(dir={folder!r})
        shutil.rmtree(folder)
        make(folder)
        store = PoolStore(folder)
        command = ["pool", "remove", f"--store={{folder}}", f"--user={{USER}}", "--purge", "--why=x"]

        def interrupted():
            watch(moment)
            return main(command)

        status = in_a_fork(interrupted)
        assert status in (0, -signal.SIGKILL), (moment, status)
        check_valid(store.read_as_written())
        assert in_a_fork(lambda: main(command)) == 0, moment
        assert USER.encode() not in everything(folder), moment
        assert b"user-3 bought soap" in everything(folder), moment
        assert verify(store) == [] and not store.unfinished_purge(), (moment, verify(store))
        assert not [path for path in Path(folder).rglob("*tmp-*")], moment
        shutil.rmtree(folder)
        if status == 0:
            break
        killed += 1
        moment += {step}
    print(killed)
"""


@pytest.mark.slow
def test_a_removal_for_good_that_is_killed_anywhere(tmp_path: Path, repository: Path) -> None:
    program = textwrap.dedent(PROGRAM).format(repository=str(repository), folder=str(tmp_path), step=3)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) >= 20
