"""Common parts of all commands: how they start, flags for paths, and the error line when they fail.

A command ends with one line that says what is wrong, where, and what to do: for mistakes on the command line,
for `RelandError`, for what the system refuses (no space, no permission, no memory), and for Ctrl-C. The
traceback is shown with ``--debug`` only.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging

from experiments.harness.asides import Asides
from experiments.harness.failures import REPOSITORY, one_line
from reland_jax.files import expanded
from reland_jax.types import RelandError

flags.disclaim_key_flags()  # so that --help lists the flags defined here as those of the command

MISTAKES = (flags.Error, RelandError, AttributeError, KeyError)
"""What parsing raises for a mistake: absl, this project, and ml_collections for an unknown setting."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

_VIRTUAL = "--xla_force_host_platform_device_count"
_PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds"

_BROKEN_PIPE = 141
_CONFIG_FILE = re.compile(r"(--?config=)(.+)", re.DOTALL)
_PYTHON_FILE = re.compile(r".*\.py(:|$)", re.DOTALL)
_PRESETS = "experiments/configs/reland.py"
_MISSING = re.compile(r"Flag (--\w+) must have a value other than None")
_paths: list[tuple[flags.FlagValues, str]] = []


def run(main: Callable[[], int | None], define_flags: Callable[[], None] | None = None) -> None:
    """The main program of a command without operands.

    Args:
        main: the work, once the flags are parsed; returns the exit status, None for 0.
        define_flags: registers the flags that are not registered at import.
    """

    def without_operands(operands: Sequence[str]) -> int | None:
        if operands:
            raise RelandError(f"unexpected arguments: {' '.join(operands)}; flags are written --name=value")
        # Imported here, so that launchers, which come by `run_with_operands`, do without.
        from reland_jax import pool_store

        pool_store.register()  # so that config.pool.provider may name a store
        return main()

    run_with_operands(without_operands, define_flags)


def run_with_operands(
    main: Callable[[Sequence[str]], int | None],
    define_flags: Callable[[], None] | None = None,
    hint: str = "",
) -> None:
    """The main program of a command whose `main` is given the words that are not flags.

    Args:
        main: as of `run`.
        define_flags: as of `run`.
        hint: said of an unknown flag, beyond that it is unknown.
    """
    if define_flags:
        define_flags()
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

    def start(words: Sequence[str]) -> NoReturn:
        if "XLA_FLAGS" in os.environ:
            os.environ["XLA_FLAGS"] = patient(os.environ["XLA_FLAGS"])
        if not flags.FLAGS["verbosity"].present:
            absl_logging.set_verbosity(absl_logging.WARNING)  # of libraries only what is worth a warning
        leave(status_of(lambda: main(words[1:]), flags.FLAGS.debug))

    app.run(start, flags_parser=partial(parse_flags, hint=hint))


def patient(xla_flags: str) -> str:
    """XLA_FLAGS under which the virtual devices of a CPU wait for each other as long as it takes.

    They are threads that share the cores. On a busy machine one of them may come to an exchange a minute
    after the others, and XLA by itself ends the process after 40 seconds.
    """
    if _VIRTUAL not in xla_flags or _PATIENCE in xla_flags:
        return xla_flags
    return f"{xla_flags} {_PATIENCE}={24 * 3600}"


def status_of(work: Callable[[], int | None], debug: bool = False) -> int:
    """Runs a command and prints errors as one line on stderr.

    Args:
        work: returns the exit status, None for 0. `SystemExit` passes through.
        debug: whether the traceback is shown as well.

    Returns:
        The exit status: that of the work, 1 after an error, `INTERRUPTED` after Ctrl-C.
    """
    asides = Asides()
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # names of files need not be text
                stream.reconfigure(errors="backslashreplace")
        with contextlib.nullcontext() if debug else asides:
            status = work() or 0
        if sys.stdout is not None:  # closed by whoever started this, as ">&-" does
            sys.stdout.flush()
        asides.show()
        return status
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return _BROKEN_PIPE
        with contextlib.suppress(OSError):
            if debug:
                traceback.print_exception(error)
            print(f"error: {one_line(error, path_flags())}", file=sys.stderr, flush=True)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def leave(status: int) -> NoReturn:
    """Ends this process; with an error at once, if there are other processes of the same job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C from here on needs no further words
    mesh = sys.modules.get("reland_jax.mesh")  # where it is not loaded, no others were joined
    if status and mesh is not None:
        mesh.leave(status)
    sys.exit(status)


def _nobody_reads() -> bool:
    """Whether the reader of stdout is gone, as in ``... | head``; then nothing more is written there."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # no file, as in tests, or closed
        return False
    poll = select.poll()
    poll.register(number, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def parse_flags(arguments: list[str], hint: str = "") -> list[str]:
    """Parses the flags, for `app.run(main, flags_parser=parse_flags)`; a mistake ends the command."""
    left: list[str] = []
    try:
        status = status_of(lambda: left.extend(parsed(flags.FLAGS, arguments, hint)), "--debug" in arguments)
    except SystemExit:  # absl has shown the help, which does not know the settings
        if "config" in flags.FLAGS:
            from experiments.harness.settings import settings_help

            status_of(lambda: print(f"\n{settings_help()}"))
        raise
    if status:
        sys.exit(status)
    return left


def parsed(values: flags.FlagValues, arguments: Sequence[str], hint: str = "") -> list[str]:
    """Parses flags.

    Args:
        values: where the flags are defined, and get their values.
        arguments: name of the program, flags and operands.
        hint: said of an unknown flag, beyond that it is unknown.

    Returns:
        The name of the program and the operands.

    Raises:
        RelandError: a mistake, described in one line.
    """
    words = [config_word(word) for word in arguments]
    try:
        operands = values(words)
        if "config" in values:  # where its file cannot be read, ml_collections says so on first use
            hasattr(values["config"].value, "to_dict")
    except MISTAKES as error:
        more = f". {hint}" if hint and isinstance(error, flags.UnrecognizedFlagError) else ""
        raise RelandError(describe_mistake(error) + more) from error
    except TypeError as error:  # ml_collections went on into a value
        raise RelandError(f"--config: a setting has no settings below it ({error})") from error
    except OSError as error:
        raise RelandError(f"--config: {' '.join(str(error).rpartition('] ')[2].split())}") from error
    return operands


def config_word(word: str) -> str:
    """A word of the command line, made whole where it is the value of --config (`config_file`)."""
    return _CONFIG_FILE.sub(lambda found: found[1] + config_file(expanded(found[2])), word)


def config_file(value: str) -> str:
    """FILE.py:ARGUMENT as ml_collections reads it.

    DATASET,BACKBONE alone is the argument of the presets. Where the working folder is not the repository,
    their file is the one that is installed.
    """
    value = value if _PYTHON_FILE.match(value) else f"{_PRESETS}:{value}"
    if value.startswith(_PRESETS) and not os.path.exists(_PRESETS):
        return str(REPOSITORY / value)
    return value


def describe_mistake(mistake: Exception) -> str:
    """One of `MISTAKES` in one line."""
    if isinstance(mistake, (AttributeError, KeyError)):
        # ml_collections knows the nearest name: ... Did you mean "known" instead of "given"?
        near = re.search('mean "(.+)" instead of "(.+)"', str(mistake))
        unknown = str(mistake).strip("\"'")
        unknown_name = unknown if " " in unknown else f"{unknown!r} is not a setting"  # a bare name
        hint = f"{near[2]!r} is not a setting; did you mean {near[1]!r}?" if near else unknown_name
        return f"--config: {hint}"
    if missing := _MISSING.findall(str(mistake)):
        return f"{' and '.join(missing)} must be given; see --help"
    # An error of the config file arrives inside the flag's, behind its traceback.
    return str(mistake).rpartition("RelandError: ")[-1].strip()


class _PathParser(flags.ArgumentParser[str]):
    """Reads the value of a flag that is a path."""

    syntactic_help = "a path; ~ is the home folder"

    def __init__(self, required: bool = False) -> None:
        """Whether it must be given: "", as an unset variable of a shell leaves it, is the current folder."""
        self._required = required

    def parse(self, argument: str) -> str:
        """The path with ``~`` replaced."""
        if self._required and not argument.strip():
            raise ValueError("it is empty; use a path, or . for the current folder")
        return expanded(argument)

    def flag_type(self) -> str:
        """The kind of value, for --help."""
        return "path"


def define_path(
    name: str, default: str | None, help_text: str, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder[str | None]:
    """A flag whose value is a path: ``~`` in it is the home folder, whatever the shell makes of it."""
    _paths.append((flag_values, name))
    return flags.DEFINE(_PathParser(), name, default, help_text, flag_values)


def required_path(
    name: str, help_text: str, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder[str]:
    """The same for a path that must be given."""
    _paths.append((flag_values, name))
    return flags.DEFINE(_PathParser(required=True), name, None, help_text, flag_values, required=True)


def define_job(default: str, follows: str) -> None:
    """Registers --config and --workdir of a command whose settings are in a file of experiments/configs.

    Args:
        default: the file, with what follows it.
        follows: what may follow it, in words.
    """
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", default, f"Settings; {follows}", lock_config=True)
    required_path("workdir", "Folder of artefacts and results.")


def path_flags() -> dict[str, str]:
    """The paths that this command was given, by flag."""
    return {
        name: path
        for values, name in _paths
        if values.is_parsed() and name in values and (path := values[name].value)
    }
