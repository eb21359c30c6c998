"""KuaiRand (Kuaishou, CC BY-SA 4.0): the publisher's CSV files, or the same as atomic files.

Left out: what is measured of the outcome (seconds watched, on the profile, in the comments), and the
publisher's statistics of videos, which are averages over the whole month and so over the days to be judged.
The logs under random exposure are read where they are asked for, alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reland_jax.config import DataConfig
from reland_jax.data.sources import parts, recbole, table
from reland_jax.data.sources.columns import Frame
from reland_jax.events.build import Tables, build
from reland_jax.events.contract import ITEM_ID, Events, Feature, Label, Schema
from reland_jax.events.days import Days
from reland_jax.events.reading import as_tables
from reland_jax.types import RelandError

UTC_OFFSET_HOURS = 8.0
"""Its column of dates is by the clock of Beijing."""
ENGAGEMENTS = ("long_view", "like", "follow", "comment", "forward", "hate", "profile_enter")
"""What may come after a click; each can be the conversion."""
DAYS = Days(("", "2022-05-04"), ("2022-05-05", "2022-05-06"), ("2022-05-07", "2022-05-08"))
"""The split of the atomic form, of the last two weeks; the publisher's log begins on 8 April 2022."""

_CATEGORICAL_OF_USERS = (
    "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
    "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)  # fmt: skip
_NUMERIC_OF_USERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_CATEGORICAL_OF_ITEMS = ("author_id", "video_type", "upload_dt", "upload_type", "music_id", "music_type")
_HISTORY = {"watched": "watch_seq", "watched_long": "long_watch_seq", "liked": "like_seq"}
"""Lists in the atomic form of what each user watched before the log begins."""

_LOGS = {False: "log_standard_*.csv*", True: "log_random_*.csv*"}
_BESIDE = {"users": "user_features_*.csv*", "items": "video_features_basic_*.csv*"}


def read(place: Path, *, conversion: str = "long_view", random_exposure: bool = False) -> Events:
    """Reads KuaiRand.

    Args:
        place: the publisher's folder with its CSV files, or the folder of ``NAME.inter``, named NAME.
        conversion: the label after the click, one of `ENGAGEMENTS`.
        random_exposure: whether the impressions that were drawn at random are read, and not the usual ones;
            the publisher's files alone have them.

    Raises:
        RelandError: files are missing, or a value cannot be read.
    """
    if conversion not in ENGAGEMENTS:
        raise RelandError(f"conversion={conversion!r} is not one of {', '.join(ENGAGEMENTS)}")
    atomic = place / f"{place.name}.inter"
    if not atomic.is_file():
        schema = _schema(conversion)
        return build(_published(place, random_exposure), schema)
    if random_exposure:
        raise RelandError(
            f"{atomic}: has no impressions under random exposure; the publisher's files have them"
        )
    tables = as_tables(recbole.frames(str(atomic), DataConfig()))
    history = place / f"{place.name}.history"
    if history.is_file():
        tables = tables._replace(users=[*tables.users, recbole.atomic(history, DataConfig())])
    return build(tables, _schema_of_atomic(conversion, history.is_file()))


def _features(duration: str, separator: str) -> list[Feature]:
    """Features of users and videos, by the publisher's names."""
    return [
        *(Feature(name, "categorical", "user") for name in _CATEGORICAL_OF_USERS),
        *(Feature(name, "numeric", "user", log=True) for name in _NUMERIC_OF_USERS),
        *(Feature(name, "categorical", "item") for name in _CATEGORICAL_OF_ITEMS),
        Feature("video_duration", "numeric", "item", duration, log=True),
        Feature("tag", "multi", "item", separator=separator),
        Feature("duration_ms", "numeric", "context", log=True),
    ]


def _schema(conversion: str) -> Schema:
    """The schema of the publisher's files."""
    column = conversion if conversion == "long_view" else f"is_{conversion}"
    return Schema(
        "user_id", "video_id", "time_ms",
        (Label("click", "is_click"), Label(conversion, column, given="click")),
        tuple(_features("video_duration", ",")), "tab", "milliseconds", UTC_OFFSET_HOURS,
    )  # fmt: skip


def _schema_of_atomic(conversion: str, with_history: bool) -> Schema:
    """The schema of the same data as atomic files."""
    lists = [Feature(name, "multi", "user", column, shares=ITEM_ID) for name, column in _HISTORY.items()]
    features = (*_features("video_duration_ms", " "), *(lists if with_history else ()))
    labels = (Label("click"), Label(conversion, given="click"))
    published = _schema(conversion)
    return replace(published, item="item_id", time="timestamp_ms", labels=labels, features=features)


def _published(folder: Path, random_exposure: bool) -> Tables:
    """The tables of the publisher's folder; a log in several files is one."""
    config = DataConfig()
    log = _combined(folder, _LOGS[random_exposure], config)
    users, items = (_combined(folder, pattern, config) for pattern in _BESIDE.values())
    note = "averages of the whole month per video are left out: they know the future"
    return Tables(log, [users], [items], [note])


def _combined(folder: Path, pattern: str, config: DataConfig) -> Frame:
    """The files of a pattern, in this folder or in the folder ``data`` in it, as one table."""
    found = sorted(folder.glob(pattern)) or sorted((folder / "data").glob(pattern))
    if not found:
        raise RelandError(f"{folder}: no file {pattern} in this folder or in data/ in it; see kuairand.com")
    return parts.combined([table.of_file(path, config) for path in found], str(folder))
