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
    show      versions, seed users, and what a user gets (--user)
    stats     figures of a version, as JSON
    diff      what is different between two versions: diff A B
    export    write a version as a pool file
    verify    check every version, the lists and the audit log
    seal      accept the lists and the audit log as they are, where something was lost for good

What changes a pool makes a new version, matches the users who lost their seed user to the nearest of the
others, and writes a line into the audit log: it needs --why, records --who (the user of the operating
system unless given), and with --dry_run only says what would change. docs/pool.md tells more;
`python -m experiments.pool SUB --help` lists the flags of one command.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from experiments.harness.command_line import config_word, define_path, leave, parsed, status_of
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
        run: does it, and returns the exit status.
        flags: defines its flags beyond --store.
        changes: whether it changes the store, and so takes --why, --who and --dry_run.
        operands: names of what follows the command's own name.
    """

    run: Callable[[Flags, list[str]], int]
    flags: Callable[[Flags], None]
    changes: bool = False
    operands: tuple[str, ...] = ()


def _request(given: Flags, action: str) -> ChangeRequest:
    if not given.why and not given.dry_run:
        raise RelandError(f"{action}: --why is missing; the audit log keeps why a pool was changed")
    store = PoolStore(given.store)
    if action != "seal":  # which is for a mark that is damaged, too
        check_store(store.folder)  # both before a build trains anything
        read_lists(store.folder)
    return ChangeRequest(store, action, given.who or getpass.getuser(), given.why, given.dry_run)


def _asking_flags(values: Flags) -> None:
    config_flags.DEFINE_config_file(
        "config", None, "Settings, as experiments.run takes them; :DATASET,BACKBONE follows the file.",
        lock_config=True, flag_values=values, sys_argv=_ARGUMENTS,
    )  # fmt: skip
    define_path("workdir", None, "Folder of the stages before the pool.", values)


def _refresh_flags(values: Flags) -> None:
    _asking_flags(values)
    flags.DEFINE_string(
        "older_than", None, "Also ask about rationales older than this: 90d, 12h, 6w or a date.",
        flag_values=values,
    )  # fmt: skip


def _add_flags(values: Flags) -> None:
    define_path("file", None, "Pool file (.jsonl) with the rationales to add.", values)
    flags.DEFINE_integer(
        "held_out", 2, "Last items of a user that the writer of the file left out.", 0, flag_values=values
    )


def _remove_flags(values: Flags) -> None:
    flags.DEFINE_multi_string("user", [], "External id; may be given again.", flag_values=values)
    flags.DEFINE_string(
        "match", None, "Regular expression, searched for in the rationales; case does not count.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "purge", False, "Also delete the older versions, and the removed prompts from the journal.",
        flag_values=values,
    )  # fmt: skip

    flags.DEFINE_float(
        "wait", changes.PURGE_WAIT_SECONDS,
        "Seconds that a purge waits for processes that ask in this store; they are told to stop.", 0,
        flag_values=values,
    )  # fmt: skip


def _expire_flags(values: Flags) -> None:
    flags.DEFINE_string("older_than", None, "Bound: 90d, 12h, 6w or a date.", flag_values=values)


def _block_flags(values: Flags) -> None:
    flags.DEFINE_multi_string(
        "pattern", [], "Regular expression, searched for in the rationales; may be given again.",
        flag_values=values,
    )  # fmt: skip


def _readmit_flags(values: Flags) -> None:
    flags.DEFINE_multi_string("user", [], "External id; may be given again.", flag_values=values)


def _unblock_flags(values: Flags) -> None:
    flags.DEFINE_multi_string(
        "pattern", [], "Regular expression as it was blocked; may be given again.", flag_values=values
    )


def _cap_flags(values: Flags) -> None:
    flags.DEFINE_integer("seeds", None, "Most seed users.", 1, flag_values=values)
    flags.DEFINE_integer("tokens", None, "Most tokens of prompts and answers.", 1, flag_values=values)


def _version_flag(values: Flags) -> None:
    flags.DEFINE_integer("version", None, "Another version than the current one.", 1, flag_values=values)


def _show_flags(values: Flags) -> None:
    _version_flag(values)
    flags.DEFINE_multi_string("user", [], "Show what this user gets; may be given again.", flag_values=values)
    flags.DEFINE_integer("limit", 10, "Most seed users to list.", 0, flag_values=values)


def _export_flags(values: Flags) -> None:
    _version_flag(values)
    define_path("file", None, "Where to write it (.jsonl).", values)


def _no_flags(values: Flags) -> None:
    pass


def _need(given: Flags, action: str, *names: str) -> None:
    """Raises `RelandError` unless one of the flags was given."""
    if not any(getattr(given, name) for name in names):
        raise RelandError(f"{action}: {' or '.join(f'--{name}' for name in names)} is missing")


def _build(given: Flags, _: list[str]) -> int:
    _need(given, "build", "config")
    _need(given, "build", "workdir")
    return asking.build(_request(given, "build"), given.config.to_dict(), given.workdir)


def _refresh(given: Flags, _: list[str]) -> int:
    _need(given, "refresh", "config")
    _need(given, "refresh", "workdir")
    request = _request(given, "refresh")
    return asking.refresh(request, given.config.to_dict(), given.workdir, given.older_than)


def _add(given: Flags, _: list[str]) -> int:
    _need(given, "add", "file")
    return changes.add(_request(given, "add"), given.file, given.held_out)


def _remove(given: Flags, _: list[str]) -> int:
    _need(given, "remove", "user", "match")
    request = _request(given, "remove")._replace(wait=given.wait)
    return changes.remove(request, given.user, given.match, given.purge)


def _expire(given: Flags, _: list[str]) -> int:
    _need(given, "expire", "older_than")
    return changes.expire(_request(given, "expire"), given.older_than)


def _block(given: Flags, _: list[str]) -> int:
    _need(given, "block", "pattern")
    return changes.block(_request(given, "block"), given.pattern)


def _unblock(given: Flags, _: list[str]) -> int:
    _need(given, "unblock", "pattern")
    return changes.unblock(_request(given, "unblock"), given.pattern)


def _readmit(given: Flags, _: list[str]) -> int:
    _need(given, "readmit", "user")
    return changes.readmit(_request(given, "readmit"), given.user)


def _cap(given: Flags, _: list[str]) -> int:
    _need(given, "cap", "seeds", "tokens")
    return changes.cap(_request(given, "cap"), given.seeds, given.tokens)


def _show(given: Flags, _: list[str]) -> int:
    return views.show(PoolStore(given.store), given.version, given.user, given.limit)


def _stats(given: Flags, _: list[str]) -> int:
    return views.show_stats(PoolStore(given.store), given.version)


def _diff(given: Flags, operands: list[str]) -> int:
    return views.show_difference(PoolStore(given.store), *operands)


def _export(given: Flags, _: list[str]) -> int:
    _need(given, "export", "file")
    return views.export(PoolStore(given.store), given.version, given.file)


def _verify(given: Flags, _: list[str]) -> int:
    return views.show_problems(PoolStore(given.store))


def _seal(given: Flags, _: list[str]) -> int:
    return changes.seal(_request(given, "seal"))


COMMANDS: Mapping[str, Command] = {
    "build": Command(_build, _asking_flags, True),
    "refresh": Command(_refresh, _refresh_flags, True),
    "add": Command(_add, _add_flags, True),
    "remove": Command(_remove, _remove_flags, True),
    "expire": Command(_expire, _expire_flags, True),
    "block": Command(_block, _block_flags, True),
    "unblock": Command(_unblock, _unblock_flags, True),
    "readmit": Command(_readmit, _readmit_flags, True),
    "cap": Command(_cap, _cap_flags, True),
    "show": Command(_show, _show_flags),
    "stats": Command(_stats, _version_flag),
    "diff": Command(_diff, _no_flags, operands=("A", "B")),
    "export": Command(_export, _export_flags),
    "verify": Command(_verify, _no_flags),
    "seal": Command(_seal, _no_flags, True),
}

_ARGUMENTS: list[str] = []
"""What `main` was given: overrides of a config file are looked for in it."""


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
    return command.run(values, operands)


def _define(command: Command, values: Flags) -> None:
    define_path("store", None, "Folder of the pool store.", values)
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.", flag_values=values)
    command.flags(values)
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
    leave(main(sys.argv))
