r"""Writes recommendations for users to one file: Parquet, CSV or JSON lines.

    python -m experiments.recommend --bundle=DIR --out=recommendations.csv
    python -m experiments.recommend --config=DATASET,BACKBONE --workdir=DIR --out=recommendations.parquet

Columns: user, rank (from 1), item, score, title, explanation (of `reland`: the user's tastes where the
rationale is its own, else what an LLM recommends to a similar user). Users are all of them, or those of
--users (a file with an id on each line) and --user. With --config the recommender is the one that
`experiments.run` trained in the workdir; it is trained first if it is missing. The file is written in parts
beside it: a job that was stopped goes on with the next part when the same command is given again, to the
same bytes.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path, required_path
from experiments.serving.parts import PartedFile, format_of
from experiments.serving.source import define_source_flags, given_source
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from experiments.serving.source import Source
    from reland_jax import Reland

_SILENT_SECONDS = 1.0
"""Least time between two lines of progress."""


def main() -> None:
    """Recommends, and says where the file is."""
    given = flags.FLAGS
    out = Path(given.out)
    format_of(out)
    if out.exists() and not given.overwrite:
        raise RelandError(f"--out={out}: this file is there already; --overwrite replaces it")
    listed, wanted = ids_of(given.users, given.user), filter_of(given.filter)
    items = lines_of(given.items) if given.items else None
    options = {
        "k": given.k, "exclude_seen": given.exclude_seen, "items": items, "filter": wanted,
        "as_measured": given.as_measured,
    }  # fmt: skip
    write_lists(given_source(), listed, out, given.rows, options)
    print(f"recommendations: {out}")


def write_lists(
    source: Source, users: Sequence[str] | None, out: Path, rows: int, options: Mapping[str, Any]
) -> None:
    """Writes the lists of users.

    Args:
        source: the recommender.
        users: external ids; None takes all.
        out: the file; its ending says the format.
        rows: users of a part.
        options: further arguments of `Reland.recommend`.

    Raises:
        RelandError: an unknown user, item or field, or another process writes the same file.
    """
    users = known_users(source.model, users)
    told = hashlib.sha256("\0".join(users).encode("utf-8", "surrogatepass")).hexdigest()
    made_from = {"model": source.made_from, "users": told, "rows": rows, "options": dict(options)}
    begins = range(0, max(len(users), 1), rows)
    file = PartedFile(out, len(begins), made_from)
    with file.begun() as missing:
        progress = Progress(len(users), rows * (len(begins) - len(missing)))
        for number in missing:
            some = users[begins[number] : begins[number] + rows]
            file.write(number, source.model.recommend(some, **options))
            progress.tell(len(some))
        file.join()


def known_users(model: Reland, users: Sequence[str] | None) -> list[str]:
    """The users, looked for before any work is done; all of the recommender for None.

    Raises:
        RelandError: one is unknown.
    """
    known = model.user_ids
    if users is None:
        return known
    there = set(known)
    for user in users:
        if user not in there:
            model.recommend(user, 1)  # says what is wrong, and which id is near
    return list(users)


class Progress:
    """Lines on stderr with rate and remaining time."""

    def __init__(self, total: int, kept: int) -> None:
        """Of `total` users, `kept` were finished by an earlier start."""
        self._total, self._done, self._new = total, min(kept, total), 0
        self._begun = self._told = time.monotonic()
        if kept:
            print(f"going on: {self._done:,} of {total:,} users are finished", file=sys.stderr)

    def tell(self, users: int) -> None:
        """Counts more users, and prints a line now and then."""
        self._done, self._new = min(self._done + users, self._total), self._new + users
        now = time.monotonic()
        if now - self._told < _SILENT_SECONDS and self._done < self._total:
            return
        self._told, rate = now, self._new / max(now - self._begun, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / rate))
        line = f"{self._done:,} of {self._total:,} users, {rate:,.0f} users/s, {left} to go"
        print(line, file=sys.stderr, flush=True)


def ids_of(path: str | None, ids: Sequence[str]) -> list[str] | None:
    """The ids of a file and those of a flag together; None where neither is given."""
    if not path and not ids:
        return None
    return [*(lines_of(path) if path else []), *ids]


def lines_of(path: str) -> list[str]:
    """The ids of a text file, one on each line; empty lines are passed over.

    Raises:
        RelandError: it is not text, or has no line.
    """
    try:
        found = [line for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise RelandError(f"{path}: not a text in UTF-8 ({error}); put one id on each line") from error
    if not found:
        raise RelandError(f"{path}: there is no id in this file; put one on each line")
    return found


def filter_of(words: Sequence[str]) -> dict[str, list[str]] | None:
    """Field -> values of "field=value"; a field may be repeated.

    Raises:
        RelandError: a word has no "=".
    """
    found: dict[str, list[str]] = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals:
            raise RelandError(f"--filter={word}: expected FIELD=VALUE, such as brand=Quellin")
        found.setdefault(field, []).append(value)
    return found or None


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    define_source_flags()
    required_path("out", "File to write; .parquet, .csv or .jsonl.")
    define_path("users", None, "Text file with a user id on each line; all users without it and --user.")
    flags.DEFINE_multi_string("user", [], "Id of a user; can be repeated.")
    flags.DEFINE_integer("k", 10, "Length of a list.", lower_bound=1)
    flags.DEFINE_bool("exclude_seen", True, "Leave out what a user had.")
    flags.DEFINE_bool("as_measured", False, "Users as the test metrics saw them, before their test items.")
    define_path("items", None, "Text file of the item ids that lists are made of; all if not given.")
    flags.DEFINE_multi_string("filter", [], "FIELD=VALUE that items must have; can be repeated.")
    flags.DEFINE_integer("rows", 10_000, "Users of a part.", lower_bound=1)
    flags.DEFINE_bool("overwrite", False, "Replace the file if it is there.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
