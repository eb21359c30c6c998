r"""The reasoning pool under control: its versions, and what may be done to them.

    python -m experiments.pool SUB --store=DIR [flags]

    build     ask about the seed users of a data set, and publish the pool
    refresh   ask again about old rationales and changed histories
    add       add rationales from a file
    remove    take out users (--user), or seed users by what their rationale says (--match)
    expire    take out rationales older than a bound
    block     take out rationales by a pattern, and keep such ones out from now on
    unblock   take patterns off the moderation list
    readmit   take users off the removal list
    cap       keep the seed users who stand for the most users (--seeds, --tokens)
    rollback  make an earlier version the current one again (--version)
    show      versions, seed users, and what a user gets (--user)
    stats     figures of a version, as JSON
    diff      what is different between two versions, with the texts: diff A B
    export    write a version as a pool file
    verify    check every version, the lists and the audit log
    seal      accept the present lists and audit log after a permanent loss

What changes a pool makes a new version, matches the users who lost their seed user to the nearest of the
others, and writes a line into the audit log: it needs --why, records --who (the user of the operating
system unless given), and with --dry_run only says what would change. docs/pool.md tells more;
`python -m experiments.pool SUB --help` lists the flags of one command.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from experiments.harness.command_line import (
    config_word,
    define_path,
    leave,
    parsed,
    status_of,
)
from experiments.harness.logs import log_to_console
from experiments.harness.settings import settings_help
from experiments.pool_commands import asking, changes, views
from experiments.pool_commands.changes import ChangeRequest
from reland_jax.config import nearest_name
from reland_jax.pool_store import PoolStore, check_store, read_lists
from reland_jax.types import RelandError

Flags = flags.FlagValues


class Command(NamedTuple):
    """One sub-command.

    Attributes:
        run: does it, and returns the exit status; it is given the change that is asked for, or the store
            where nothing changes, the flags and the operands.
        flags: what defines its flags beyond --store.
        changes: whether it changes the store, and so takes --why, --who and --dry_run.
        needs: groups of flags, one of each of which must be given.
        operands: names of what follows the command's own name.
    """

    run: Callable[..., int]
    flags: tuple[Callable[..., object], ...] = ()
    changes: bool = False
    needs: tuple[tuple[str, ...], ...] = ()
    operands: tuple[str, ...] = ()


def _request(given: Flags, action: str) -> ChangeRequest:
    if not given.why and not given.dry_run:
        raise RelandError(f"{action}: --why is missing; it is recorded in the audit log")
    store = PoolStore(given.store)
    if action != "seal":  # which is for a mark that is damaged, too
        check_store(store.folder)  # both before a build trains anything
        read_lists(store.folder)
    return ChangeRequest(store, action, given.who or getpass.getuser(), given.why, given.dry_run)


_ARGUMENTS: list[str] = []
"""What `main` was given: overrides of a config file are looked for in it."""

_CONFIG = (
    partial(
        config_flags.DEFINE_config_file,
        "config",
        None,
        lock_config=True,
        sys_argv=_ARGUMENTS,
        help_string="Settings, as experiments.run takes them: DATASET,BACKBONE.",
    ),
    partial(define_path, "workdir", None, "Folder of the stages before the pool."),
)
_OLDER = partial(
    flags.DEFINE_string,
    "older_than",
    None,
    "Also ask about rationales older than this: 90d, 12h, 6w or a date.",
)
_BOUND = partial(flags.DEFINE_string, "older_than", None, "Bound: 90d, 12h, 6w or a date.")
_ADDED = partial(define_path, "file", None, "Pool file (.jsonl) with the rationales to add.")
_HELD_OUT = partial(
    flags.DEFINE_integer, "held_out", 2, "Last items of a user that the writer of the file left out.", 0
)
_USER = partial(flags.DEFINE_multi_string, "user", [], "External id; can be repeated.")
_MATCH = partial(
    flags.DEFINE_string,
    "match",
    None,
    "Regular expression, searched for in the rationales; case does not count.",
)
_PURGE = partial(
    flags.DEFINE_bool,
    "purge",
    False,
    "Also delete the older versions, and the removed prompts from the journal.",
)
_WAIT = partial(
    flags.DEFINE_float,
    "wait",
    changes.PURGE_WAIT_SECONDS,
    "Seconds that a purge waits for processes that ask in this store to stop.",
    0,
)
_PATTERN = partial(
    flags.DEFINE_multi_string,
    "pattern",
    [],
    "Regular expression, searched for in the rationales; can be repeated.",
)
_BLOCKED = partial(
    flags.DEFINE_multi_string, "pattern", [], "Regular expression as it was blocked; can be repeated."
)
_SEEDS = partial(flags.DEFINE_integer, "seeds", None, "Most seed users.", 1)
_TOKENS = partial(flags.DEFINE_integer, "tokens", None, "Most tokens of prompts and answers.", 1)
_VERSION = partial(flags.DEFINE_integer, "version", None, "Another version than the current one.", 1)
_SHOWN_USER = partial(flags.DEFINE_multi_string, "user", [], "Show what this user gets; can be repeated.")
_LIMIT = partial(flags.DEFINE_integer, "limit", 10, "Most seed users to list.", 0)
_DIFFERENT = partial(flags.DEFINE_integer, "limit", 20, "Most seed users of a kind to show texts of.", 0)
_EARLIER = partial(flags.DEFINE_integer, "version", None, "The version to go back to.", 1)
_WRITTEN = partial(define_path, "file", None, "Where to write it (.jsonl).")
_OVERWRITE = partial(flags.DEFINE_bool, "overwrite", False, "Replace a file that is there.")


def _asking(run: Callable[..., int], *names: str) -> Callable[[ChangeRequest, Flags], int]:
    """What asks an LLM: takes the settings and the workdir, and the flags of these names."""
    return lambda request, given: run(
        request, given.config.to_dict(), given.workdir, *(given[name].value for name in names)
    )


def _with(run: Callable[..., int], *names: str) -> Callable[[Any, Flags], int]:
    """What takes the flags of these names."""
    return lambda target, given, *operands: run(target, *(given[name].value for name in names), *operands)


def _remove(request: ChangeRequest, given: Flags) -> int:
    return changes.remove(request._replace(wait=given.wait), given.user, given.match, given.purge)


_SETTINGS = (("config",), ("workdir",))

COMMANDS: Mapping[str, Command] = {
    "build": Command(_asking(asking.build), _CONFIG, True, _SETTINGS),
    "refresh": Command(_asking(asking.refresh, "older_than"), (*_CONFIG, _OLDER), True, _SETTINGS),
    "add": Command(_with(changes.add, "file", "held_out"), (_ADDED, _HELD_OUT), True, (("file",),)),
    "remove": Command(_remove, (_USER, _MATCH, _PURGE, _WAIT), True, (("user", "match"),)),
    "expire": Command(_with(changes.expire, "older_than"), (_BOUND,), True, (("older_than",),)),
    "block": Command(_with(changes.block, "pattern"), (_PATTERN,), True, (("pattern",),)),
    "unblock": Command(_with(changes.unblock, "pattern"), (_BLOCKED,), True, (("pattern",),)),
    "readmit": Command(_with(changes.readmit, "user"), (_USER,), True, (("user",),)),
    "cap": Command(_with(changes.cap, "seeds", "tokens"), (_SEEDS, _TOKENS), True, (("seeds", "tokens"),)),
    "rollback": Command(_with(changes.rollback, "version"), (_EARLIER,), True, (("version",),)),
    "show": Command(_with(views.show, "version", "user", "limit"), (_VERSION, _SHOWN_USER, _LIMIT)),
    "stats": Command(_with(views.show_stats, "version"), (_VERSION,)),
    "diff": Command(_with(views.show_difference, "limit"), (_DIFFERENT,), operands=("A", "B")),
    "export": Command(
        _with(views.export, "version", "file", "overwrite"),
        (_VERSION, _WRITTEN, _OVERWRITE),
        needs=(("file",),),
    ),
    "verify": Command(_with(views.show_problems)),
    "seal": Command(_with(changes.seal), changes=True),
}


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Args:
        arguments: name of the program, of the command, flags and operands.

    Returns:
        The exit status: 0, 1 for a mistake or a failure told in one line, or what the command found.
    """
    return status_of(lambda: _run(list(arguments)), "--debug" in arguments)


def _run(arguments: list[str]) -> int:
    names = [each for each in arguments[1:] if not each.startswith("-")]
    helps = {"--help", "-h", "--helpfull", "-help"} & set(arguments)
    name = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else ""
    if name not in COMMANDS:
        if helps or not names:
            print(__doc__)
            return 0 if helps else 1
        raise RelandError(f"{name or names[0]!r} is not a command; {nearest_name(name, list(COMMANDS))}")
    command = COMMANDS[name]
    _ARGUMENTS[:] = map(config_word, arguments[1:])
    values = Flags()
    _define(command, values)
    if helps:
        print(_help(name, command, values))
        return 0
    operands = parsed(values, _ARGUMENTS)[1:]
    if len(operands) != len(command.operands):
        wanted = " ".join(command.operands) or "none"
        raise RelandError(f"{name}: operands {' '.join(operands) or 'none'}; expected {wanted}")
    if not values.store:
        raise RelandError(f"{name}: --store is missing; it names the folder of the pool store")
    for group in command.needs:
        if not any(values[each].value for each in group):
            raise RelandError(f"{name}: {' or '.join(f'--{each}' for each in group)} is missing")
    target = _request(values, name) if command.changes else PoolStore(values.store)
    return command.run(target, values, *operands)


def _define(command: Command, values: Flags) -> None:
    define_path("store", None, "Folder of the pool store.", values)
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.", flag_values=values)
    for define in command.flags:
        define(flag_values=values)
    if command.changes:
        flags.DEFINE_string("why", "", "Reason, for the audit log; no user ids.", flag_values=values)
        flags.DEFINE_string(
            "who", "", "Who decided it; the user of the operating system unless given.", flag_values=values
        )
        flags.DEFINE_bool("dry_run", False, "Only say what would change.", flag_values=values)


def _help(name: str, command: Command, values: Flags) -> str:
    purpose = next(line.strip() for line in (__doc__ or "").split("\n") if line.startswith(f"    {name} "))
    lines = [f"python -m experiments.pool {' '.join((name, *command.operands))} [flags]", "", purpose, ""]
    for flag in sorted({values[each] for each in values}, key=lambda flag: flag.name):
        default = "" if flag.default in (None, "", [], False) else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    if "config" in values:
        lines += ["", settings_help()]
    return "\n".join(lines)


if __name__ == "__main__":
    log_to_console()
    leave(main(sys.argv))
