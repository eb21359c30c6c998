"""Finding a data set and its reader, and noticing that its files have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reland_jax.config import DataConfig
from reland_jax.data.finding import Place, locate, raw_state
from reland_jax.types import RelandError


def test_formats_are_found_by_their_files(tmp_path: Path) -> None:
    tables = ("a.csv", "b.parquet", "c.TSV", "d.csv.gz")
    for name in (*tables, "ratings.dat", "reviews_Toys_5.json.gz", "x.inter"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"")
    sources = {"a": "table", "b": "table", "c": "table", "d": "table"}
    sources |= {"ratings": "movielens", "reviews_Toys_5": "amazon", "x": "recbole"}
    for name, source in sources.items():
        found = locate(DataConfig(name=name, root=str(tmp_path)))
        # Tables may lie in several files, so that it is the folder that is read.
        folder = Path(found.place) if source == "table" else Path(found.place).parent
        assert found.source == source and folder == tmp_path / name
        assert locate(DataConfig(name=found.place)) == found
    assert locate(DataConfig(name="tfds:movielens/100k-ratings")) == Place("tfds", "movielens/100k-ratings")
    assert locate(DataConfig(name="demo")) == Place("demo", "")


def test_the_environment_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "ml-1m.inter").write_text("")
    monkeypatch.setenv("RELAND_DATA", str(tmp_path))
    assert Path(locate(DataConfig(name="ml-1m")).place) == tmp_path / "ml-1m" / "ml-1m.inter"
    with pytest.raises(RelandError, match="was not found"):
        locate(DataConfig(name="ml-1m", root=str(tmp_path / "elsewhere")))


def test_a_missing_data_set_says_where_it_looked_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=r"looked for .*amazon-beauty.*third_party/datasets/README\.md"):
        locate(DataConfig(name="amazon-beauty", root=str(tmp_path)))
    with pytest.raises(RelandError, match=r"did you mean 'amazon-beauty'"):
        locate(DataConfig(name="amazon-beaty", root=str(tmp_path)))


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=r"no interaction file .*expected \*\.inter \(recbole\)"):
        locate(DataConfig(name=str(tmp_path)))
    (tmp_path / "notes.doc").write_text("x")
    with pytest.raises(RelandError, match=r"notes\.doc: no reader for such a file name"):
        locate(DataConfig(name=str(tmp_path / "notes.doc")))
    for name in ("a.inter", "b.inter"):
        (tmp_path / name).write_text("x")
    with pytest.raises(RelandError, match=r"several files to choose from \(a\.inter, b\.inter\)"):
        locate(DataConfig(name=str(tmp_path)))
    with pytest.raises(RelandError, match=r"expected ratings\.dat or u\.data \(movielens\)"):
        locate(DataConfig(name=str(tmp_path), source="movielens"))
    with pytest.raises(RelandError, match=r"source='recbol' is not known; did you mean 'recbole'"):
        locate(DataConfig(name=str(tmp_path), source="recbol"))


def test_several_files_are_given_one_by_one_or_by_a_star(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("")
    both = f"{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}"
    assert locate(DataConfig(name=both)) == Place("table", both)
    assert locate(DataConfig(name=str(tmp_path / "*.csv"))) == Place("table", both)
    assert locate(DataConfig(name="a.csv,b.csv", root=str(tmp_path))) == Place("table", both)
    with pytest.raises(RelandError, match=r"c\.csv was not found"):
        locate(DataConfig(name=f"{tmp_path / 'a.csv'},c.csv"))
    (tmp_path / "x.inter").write_text("")
    with pytest.raises(RelandError, match=r"only tables .* can be read together"):
        locate(DataConfig(name=f"{tmp_path / 'a.csv'},x.inter"))


def test_settings_of_text_files_are_refused_for_others(tmp_path: Path) -> None:
    for setting in ("encoding", "delimiter", "item_table", "user_table"):
        with pytest.raises(RelandError, match=rf"config.data.{setting}='utf-8' has no use .*read as demo"):
            locate(DataConfig(**{setting: "utf-8"}))


def test_the_content_of_every_file_that_is_read_decides(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("shop.inter", "shop.item", "shop.user", "notes.txt"):
        (folder / name).write_text("abc")
    config = DataConfig(name=str(folder))
    before = raw_state(config)
    assert [name for name, _, _ in before] == ["shop.inter", "shop.item", "shop.user"]
    for name in ("shop.inter", "shop.item", "shop.user"):
        status = (folder / name).stat()
        (folder / name).write_text("abd")
        os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (folder / name).stat().st_mtime_ns == status.st_mtime_ns
        assert raw_state(config) != before
        (folder / name).write_text("abc")
        assert raw_state(config) == before  # a new time alone is no change
    (folder / "notes.txt").write_text("others")
    assert raw_state(config) == before


def test_tables_that_the_settings_name_count(tmp_path: Path) -> None:
    for name in ("a.csv", "items.csv", "users.csv"):
        (tmp_path / name).write_text(name)
    config = DataConfig(name=str(tmp_path / "a.csv"), item_table="items.csv", user_table="users.csv")
    assert [name for name, _, _ in raw_state(config)] == ["a.csv", "items.csv", "users.csv"]
    with pytest.raises(RelandError, match=r"config.data.item_table='none.csv' was not found; looked for"):
        raw_state(DataConfig(name=str(tmp_path / "a.csv"), item_table="none.csv"))
    assert raw_state(DataConfig()) == []


def test_a_table_that_is_not_there_is_told_with_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "purchases.csv").write_text("user_id,item_id\nu,i\n")
    with pytest.raises(
        RelandError, match=r"'.*sales\.csv': no such file .*; .* has 'purchases\.csv'$"
    ):
        locate(DataConfig(name=str(tmp_path / "sales.csv")))
    with pytest.raises(RelandError, match="there is no folder"):
        locate(DataConfig(name=str(tmp_path / "none" / "sales.csv")))
