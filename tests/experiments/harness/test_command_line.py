"""Every command ends with one line: mistakes, errors of the system, Ctrl-C; paths know the home folder."""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags

from experiments.configs.reland import get_config
from experiments.harness import command_line
from experiments.harness.command_line import INTERRUPTED, define_path, status_of
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[3]
COMMANDS = sorted(
    f"{folder}.{path.stem}"
    for folder in ("experiments", "launch")
    for path in (REPOSITORY / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
STARTS = {"command_line.run(", "common.run(", "leave(main(", "run_with_operands("}
"""What the last line of a command may be; `launch.common.run` calls `run_with_operands`."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_goes_through_the_harness(name: str) -> None:
    path = REPOSITORY / f"{name.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8")
    block = ast.parse(text).body[-1]
    assert isinstance(block, ast.If)
    assert any(ast.unparse(block.body[-1]).startswith(start) for start in STARTS), ast.unparse(block)
    assert "sys.exit(" not in text.replace("sys.exit(128 + number)", ""), "the harness decides how it ends"
    assert "app.UsageError" not in text and "unexpected arguments" not in text


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("demo,sasrec", "experiments/configs/reland.py:demo,sasrec"),
        (
            "tfds:movielens/100k-ratings,ease",
            "experiments/configs/reland.py:tfds:movielens/100k-ratings,ease",
        ),
        ("experiments/configs/reland.py:demo,sasrec", "experiments/configs/reland.py:demo,sasrec"),
        ("mine.py", "mine.py"),
        ("../mine.py:a", "../mine.py:a"),
    ],
)
def test_settings_are_a_file_or_the_argument_of_the_presets(
    given: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a folder that has no presets: an installed package brings its own."""
    monkeypatch.chdir(REPOSITORY)
    assert command_line.config_word(f"--config={given}") == f"--config={file}"
    monkeypatch.chdir(tmp_path)
    elsewhere = str(REPOSITORY / file) if file.startswith("experiments") else file
    assert command_line.config_word(f"--config={given}") == f"--config={elsewhere}"


RUN_ALL = """
import contextlib, io, json, os, runpy, sys, tempfile
import jax, jax.numpy, flax, optax
found = {}
for name in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 2)
            os.dup2(said.fileno(), 1)
            sys.argv = [name, "--nosuch=1"]
            status = 0
            try:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                status = end.code
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 99)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        found[name] = [status, said.read().decode()]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_command_tells_an_unknown_flag_in_one_line() -> None:
    command = [sys.executable, "-W", "ignore", "-c", RUN_ALL, json.dumps(COMMANDS)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(COMMANDS)
    for name, (status, said) in found.items():
        if name == "experiments.pool":  # needs a command first, and says which there are
            assert status == 1 and "Traceback" not in said
            continue
        assert status == 1 and said.startswith("error: Unknown command line flag 'nosuch'"), (name, said)
        assert said.count("\n") == 1, (name, said)


def raises(error: BaseException) -> Callable[[], int]:
    """Work that ends with an error."""

    def work() -> int:
        raise error

    return work


def deep() -> int:
    """Work that nests too deeply."""
    return deep() + 1


def wrapped(cause: BaseException) -> Callable[[], int]:
    """Work that ends with a library's last words, behind which the reason lies."""

    def work() -> int:
        try:
            raise cause
        finally:
            raise ValueError("handle is closed")

    return work


def caused(error: BaseException, cause: BaseException) -> Callable[[], int]:
    """Work that ends with an error that names its cause."""

    def work() -> int:
        raise error from cause

    return work


MISSING = FileNotFoundError(errno.ENOENT, "No such file", "/a/b")
FULL = OSError(errno.ENOSPC, "No space left on device")
ORBAX = ValueError('RESOURCE_EXHAUSTED: Error writing "/a/b": No space left on device [OS error 28]')
MOVED = FileNotFoundError(errno.ENOENT, "No such file", "/a", None, "/b")
XLA = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (raises(RelandError("a.csv:3: what is wrong; do this")), "a.csv:3: what is wrong; do this"),
        (raises(FULL), "no space left on the disk; make room there and run the same command again"),
        (raises(OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x")), "/data/x: no space left"),
        (wrapped(FULL), "no space left on the disk"),
        (wrapped(MISSING), "ValueError: handle is closed (at "),
        (caused(ValueError("x"), MISSING), "/a/b: there is no such file or folder"),
        (caused(ValueError("x"), RelandError("what; do this")), "what; do this"),
        (raises(ORBAX), "no space left on the disk"),
        (raises(ExceptionGroup("several", [ValueError("x"), FULL])), "no space left on the disk"),
        (raises(PermissionError(errno.EACCES, "Permission denied", "/a/b")), "/a/b: permission denied"),
        (raises(OSError(errno.EROFS, "Read-only file system", "/a")), "/a: the file system is read-only"),
        (raises(NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b")), "/a/b: a file is in"),
        (raises(FileExistsError(errno.EEXIST, "File exists", __file__)), f"{__file__}: a file"),
        (raises(IsADirectoryError(errno.EISDIR, "Is a directory", "/a")), "/a: a folder is in the place"),
        (raises(MOVED), "/a -> /b: there is no such"),
        (raises(OSError(errno.EMFILE, "Too many open files", b"/a")), "/a: too many files are open"),
        (raises(OSError(errno.EXDEV, "Invalid cross-device link", "/a")), "/a: Invalid cross-device link"),
        (raises(MemoryError()), "out of memory (at "),
        (raises(MemoryError("Unable to allocate 9. TiB")), "out of memory (Unable to allocate 9. TiB)"),
        (raises(XLA), "out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.)"),
        (raises(OSError(errno.ENOMEM, "Cannot allocate memory")), "out of memory"),
        (deep, "something in the input is nested too deeply"),
        (raises(ModuleNotFoundError("No module named 'optuna'")), "No module named 'optuna'; install"),
        (raises(KeyError("a\nb")), "KeyError: 'a\\nb'"),
        (raises(AssertionError()), "AssertionError (at "),
        (raises(ValueError("two\nlines")), "ValueError: two lines (at "),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(
    work: Callable[[], int], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(work) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and expected in said and said.count("\n") == 1


def test_an_unknown_setting_is_reported_by_its_name() -> None:
    config = get_config("demo,sasrec")
    for section, name, message in (
        (config.eval, "ks", "--config: 'ks' is not a setting"),
        (config.data, "nmae", "--config: 'nmae' is not a setting; did you mean 'name'?"),
    ):
        with pytest.raises((AttributeError, KeyError)) as caught:
            section[name]
        assert command_line.describe_mistake(caught.value) == message


def test_the_traceback_is_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raises(MemoryError("big")), debug=True) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Traceback") and said[-1].startswith("error: out of memory (big)")


def test_ctrl_c_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raises(KeyboardInterrupt())) == INTERRUPTED == 130
    assert capsys.readouterr().err.startswith("error: stopped by Ctrl-C; finished work is kept")


def test_the_status_of_the_work_is_that_of_the_command() -> None:
    assert [status_of(lambda: 3), status_of(lambda: None), status_of(lambda: 0)] == [3, 0, 0]
    with pytest.raises(SystemExit):
        status_of(raises(SystemExit(4)))


def in_threads() -> None:
    """A thread and a library that fail on their own."""
    thread = threading.Thread(target=raises(OSError(errno.ENOSPC, "No space left")))
    thread.start()
    thread.join()
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("some.library").exception("a save\nfailed")
    sys.excepthook(RuntimeError, RuntimeError("Event loop is closed"), None)


def test_what_threads_say_does_not_hide_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook

    def work() -> None:
        in_threads()
        raise RelandError("the reason")

    assert status_of(work) == 1
    assert capsys.readouterr().err == "error: the reason\n"
    assert hooks == (sys.excepthook, sys.unraisablehook, threading.excepthook)


def test_what_threads_say_is_not_lost_where_all_ends_well(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert status_of(in_threads) == 0
    said = capsys.readouterr().err
    assert "warning: in a thread: OSError: [Errno 28] No space left" in said
    assert "warning: some.library: a save failed" in said and "Event loop is closed" in said
    assert "Traceback" not in said + caplog.text


def command(text: str, *words: str, **options: object) -> subprocess.Popen[str]:
    """A command made of a few lines, as a process of its own."""
    program = f"from experiments.harness.command_line import *\nimport os, sys, time\n{text}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_command_that_is_interrupted() -> None:
    process = command("def main():\n    print('ready', flush=True)\n    time.sleep(60)\nrun(main)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said.startswith("error: stopped by Ctrl-C") and said.count("\n") == 1


def test_a_command_with_operands_and_debug() -> None:
    text = "def main():\n    raise MemoryError('big')\nrun(main)"
    out, said = command(text, "word").communicate(timeout=30)
    assert said == "error: unexpected arguments: word; flags are written --name=value\n"
    out, said = command(text, "--debug").communicate(timeout=30)
    assert said.startswith("Traceback") and "error: out of memory (big)" in said.splitlines()[-1]


def test_nobody_reads_what_is_printed() -> None:
    text = "def main():\n    for n in range(10**6):\n        print('line', n)\nrun(main)"
    process = command(text)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None and process.stderr.read() == "" and process.wait(30) == 141


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The device that is always full stands for a disk; the folder that was given is named."""
    text = (
        "define_path('workdir', None, 'x')\n"
        "def main():\n    with open('/dev/full', 'w') as file:\n        file.write('x')\nrun(main)"
    )
    out, said = command(text, f"--workdir={tmp_path}").communicate(timeout=30)
    assert "no space left on the disk; make room there" in said and said.count("\n") == 1
    assert said.startswith((f"error: --workdir={tmp_path} (", "error: /"))


def test_an_output_that_cannot_be_written() -> None:
    text = "def main():\n    print('x')\nrun(main)"
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from experiments.harness.command_line import *\n{text}"], cwd=REPOSITORY,
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "no space left" in said.splitlines()[0]


def test_paths_know_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(command_line, "_paths", [])
    values = flags.FlagValues()
    define_path("workdir", None, "x", values)
    define_path("out", "~/default", "x", values)
    values(["p", "--workdir=~/a b"])
    assert (values.workdir, values.out) == (f"{tmp_path}/a b", f"{tmp_path}/default")
    assert command_line.path_flags() == {"workdir": f"{tmp_path}/a b", "out": f"{tmp_path}/default"}
    values(["p", "--workdir=a/~", "--out="])
    assert (values.workdir, values.out) == ("a/~", "")
    with pytest.raises(flags.Error, match="there is no home folder of a user 'nobody-at-all'"):
        values(["p", "--workdir=~nobody-at-all/x"])


PATH_WORDS = ("folder", "file", "where ")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("experiments.")])
def test_flags_that_are_paths_are_defined_as_paths(name: str) -> None:
    """A flag whose help speaks of a folder or a file is no plain string."""
    text = (REPOSITORY / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("DEFINE_string"):
            said = ast.literal_eval(node.args[2]).lower()
            assert not said.startswith(PATH_WORDS) and " folder" not in said, ast.unparse(node)


SLOW_DEVICE = """
import sys, time
from experiments.harness import command_line

def main():
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, PartitionSpec as P

    def late(index):
        time.sleep(0.0 if int(index) else 4.0)
        return np.float32(1)

    def exchange(x):
        factor = jax.pure_callback(late, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.axis_index("x"))
        return jax.lax.ppermute(x * factor, "x", [(0, 1), (1, 0)])

    mesh = Mesh(np.array(jax.devices()), ("x",))
    both = jax.shard_map(exchange, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False)
    print(jax.jit(both)(jnp.arange(2.0)).tolist())

if sys.argv[1:]:
    allowed = command_line.patient
    command_line.patient = lambda flags: allowed(flags).replace("=86400", "=1")
    sys.argv = sys.argv[:1]
command_line.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("words", "status"), [([], 0), (["impatient"], -signal.SIGABRT)])
def test_virtual_devices_wait_for_a_late_one(repository: Path, words: list[str], status: int) -> None:
    """XLA obeys what the harness tells it: allowed a second only, it ends the process."""
    flags = "--xla_force_host_platform_device_count=2 --xla_cpu_collective_call_warn_stuck_timeout_seconds=1"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", SLOW_DEVICE, *words],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == status, done.stderr[-2000:]
    assert status or done.stdout == "[1.0, 0.0]\n"


def test_only_virtual_devices_wait_longer() -> None:
    virtual, patience = (f"--xla_{name}=" for name in (
        "force_host_platform_device_count", "cpu_collective_call_terminate_timeout_seconds"
    ))  # fmt: skip
    assert command_line.patient(f"{virtual}8") == f"{virtual}8 {patience}86400"
    for kept in ("", "--xla_dump_to=/tmp/x", f"{virtual}8 {patience}5"):
        assert command_line.patient(kept) == kept


@pytest.mark.parametrize("given", ["", " "])
def test_a_path_that_is_needed_is_not_empty(given: str) -> None:
    """As an unset variable of a shell makes it; it would be the current folder."""
    values = flags.FlagValues()
    command_line.required_path("out", "Where to.", values)
    define_path("cache", "x", "Where else.", values)
    with pytest.raises(RelandError, match="--out=.*it is empty; use a path"):
        command_line.parsed(values, ["name", f"--out={given}"])
    command_line.parsed(values, ["name", "--out=.", "--cache="])
    assert (values.out, values.cache) == (".", "")


def test_all_flags_that_must_be_given_are_named_in_one_line() -> None:
    values = flags.FlagValues()
    command_line.required_path("workdir", "", values)
    flags.DEFINE_string("image", None, "", values, required=True)
    with pytest.raises(RelandError) as caught:
        command_line.parsed(values, ["name"])
    assert str(caught.value) == "--workdir and --image must be given; see --help"


def test_a_command_without_stdout_does_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none where it was closed, as by ``>&-``."""
    monkeypatch.setattr(sys, "stdout", None)
    assert status_of(lambda: None) == 0
    assert status_of(lambda: print("said to nobody")) == 0


def test_a_broken_pipe_is_reported_without_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", None)
    assert status_of(work) == 1
    assert "Broken pipe" in capsys.readouterr().err
