"""The command that writes lists: equal to the Python API, restartable, and strict about what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.recommend import filter_of, ids_of, write_lists
from experiments.serving.source import Source
from reland_jax import Reland, RelandError
from tests.serve.toys import model_of, toy_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Reland:
    return model_of(toy_bundle(tmp_path_factory.mktemp("ease"), "ease"))


class Stopped(Exception):
    """What ends a job in the middle."""


def test_it_writes_the_lists_of_the_api_and_goes_on_after_a_stop(
    model: Reland, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists(Source(model, "m"), None, tmp_path / "a.parquet", 1, {"k": 3})
    assert pq.read_table(tmp_path / "a.parquet") == model.recommend(k=3)
    recommend, asked = Reland.recommend, list[list[str]]()

    def until_the_third(self: Reland, users: list[str], **options: Any) -> pa.Table:
        asked.append(users)
        if len(asked) == 3:
            raise Stopped
        return recommend(self, users, **options)

    monkeypatch.setattr(Reland, "recommend", until_the_third)
    with pytest.raises(Stopped):
        write_lists(Source(model, "m"), None, tmp_path / "b.parquet", 1, {"k": 3})
    write_lists(Source(model, "m"), None, tmp_path / "b.parquet", 1, {"k": 3})
    assert [users for [users] in asked] == [*model.user_ids[:3], *model.user_ids[2:]]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert "going on: 2 of 4 users are finished" in capsys.readouterr().err


def test_an_unknown_user_is_told_before_any_work(model: Reland, tmp_path: Path) -> None:
    users = [*model.user_ids, "u99"]
    with pytest.raises(RelandError, match="'u99' is not one of the 4 users"):
        write_lists(Source(model, "m"), users, tmp_path / "a.csv", 1, {})
    assert not list(tmp_path.iterdir())


def test_ids_and_filters_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("u1\n\nu 2\n", encoding="utf-8")
    assert ids_of(str(tmp_path / "ids.txt"), ["u3"]) == ["u1", "u 2", "u3"]
    assert ids_of(None, []) is None
    assert filter_of(["brand=A", "brand=B=C", "size="]) == {"brand": ["A", "B=C"], "size": [""]}
    with pytest.raises(RelandError, match="--filter=brand: expected FIELD=VALUE"):
        filter_of(["brand"])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(RelandError, match="no id in this file"):
        ids_of(str(tmp_path / "empty.txt"), [])
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RelandError, match="not a text in UTF-8"):
        ids_of(str(tmp_path / "binary.txt"), [])
