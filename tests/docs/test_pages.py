"""What goes onto the documentation site, on a small repository; that links of the real one lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from reland_jax.config import Config
from reland_jax.fields import described

REPOSITORY = Path(__file__).resolve().parents[2]

_spec = importlib.util.spec_from_file_location("docs_pages", REPOSITORY / "docs" / "pages.py")
assert _spec and _spec.loader
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two pages with links to files, a picture, an anchor, the web and nothing; a package with a room."""
    files = {
        "docs/mkdocs.yml": "site_name: x\nnav:\n  - Start: README.md\n  - Code:\n      - Map: docs/map.md\n",
        "docs/site.css": "p {}",
        "README.md": "[map](docs/map.md#here) [again](docs/map.md) [no](gone.md) [](#x) [w](https://a.example/b)",
        "docs/map.md": "[table](../data/table.json) ![plot](plot.svg) [outside](../../secret.txt)",
        "docs/plot.svg": "<svg/>",
        "docs/unlisted.md": "not in the navigation",
        "data/table.json": "{}",
        "../secret.txt": "no",
        "reland_jax/__init__.py": "",
        "reland_jax/types.py": "",
        "reland_jax/room/__init__.py": "",
        "reland_jax/room/b.py": "",
        "reland_jax/room/a.py": "",
        "reland_jax/room/_private.py": "",
    }
    root = tmp_path / "repository"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_page_brings_the_files_it_links_to(repository: Path) -> None:
    assert pages.pages(repository) == ["README.md", "docs/map.md"]
    assert pages.linked_files(repository, "README.md") == ["docs/map.md"]
    assert pages.linked_files(repository, "docs/map.md") == ["data/table.json", "docs/plot.svg"]


def test_every_package_has_a_page_with_its_public_modules(repository: Path) -> None:
    found = pages.api_pages(repository)
    assert list(found) == ["api/reland_jax.md", "api/reland_jax.room.md"]
    named = re.findall(r"^::: (\S+)$", found["api/reland_jax.room.md"], re.MULTILINE)
    assert named == ["reland_jax.room", "reland_jax.room.a", "reland_jax.room.b"]


def test_the_layout_is_that_of_the_repository(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "pages").mkdir(parents=True)
    (folder / "pages" / "stale.md").write_text("of an earlier build")
    pages.lay_out(repository, folder)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    copied = {"README.md", "docs/map.md", "docs/plot.svg", "docs/site.css", "data/table.json"}
    api = {"api/reland_jax.md", "api/reland_jax.room.md"}
    assert written == {"mkdocs.yml"} | {f"pages/{name}" for name in copied | api | {"settings.md"}}
    navigation = (folder / "mkdocs.yml").read_text().splitlines()[-4:]
    assert navigation == [
        "  - Settings: settings.md",
        "  - API:", "      - reland_jax: api/reland_jax.md", "      - room: api/reland_jax.room.md"
    ]  # fmt: skip


def test_the_page_of_settings_has_all_of_them() -> None:
    rows = [line for line in pages.settings_page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [each.name for each in described(Config())]
    meaning = "step size of item projections, attention and NeuMF's tower"
    allowed = "number, more than 0, at most 10; or None: the same as learning_rate"
    assert f"| `train.projection_learning_rate` | {meaning} | {allowed} | `None` |" in rows
    machine = [row.split("`")[1] for row in rows if "(setting of the machine)" in row]
    assert {"mesh.model", "llm.timeout_seconds", "retrieval.tile"} < set(machine)
    assert "train.patience" not in machine


def test_the_links_of_this_repository_lead_to_files() -> None:
    broken, where = [], ("*.md", "docs/*.md", "third_party/**/*.md")
    for page in (page for pattern in where for page in REPOSITORY.glob(pattern)):
        targets = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
        local = [target for target in targets if "://" not in target]
        broken += [f"{page.name}: {target}" for target in local if not (page.parent / target).is_file()]
    assert not broken


def test_every_document_is_in_the_navigation() -> None:
    named = set(pages.pages(REPOSITORY))
    documents = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").glob("*.md")}
    assert documents <= named and all((REPOSITORY / page).is_file() for page in named)
