"""Prepares the documentation site: collects its pages in a folder for MkDocs to build from (launch/docs.sh).

The folder is laid out like the repository, so a link between two files works on the site and in the
repository alike. It receives the pages in the navigation of docs/mkdocs.yml, the files that they link to, a
page with a table of all settings, and one page of the API for every package of `reland_jax`.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = "docs/mkdocs.yml"
PACKAGE = "reland_jax"
STYLE = "docs/site.css"
SETTINGS_PAGE = "settings.md"

_ABOUT_SETTINGS = (
    "Each is a flag, `--config.NAME=VALUE`, with the defaults of `reland_jax/config.py`; "
    "`experiments/configs/reland.py` has others for some data sets and backbones. Settings of the machine "
    "change how the work is done and never its result, so nothing is computed again when they change."
)

# A page in the navigation, `- Title: path.md`; the target of a link or picture, without its #anchor.
_IN_NAVIGATION = re.compile(r"^ +- (?:[^:#\n]+: )?(\S+\.md)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def pages(repository: Path) -> list[str]:
    """The pages in the navigation of docs/mkdocs.yml, as paths from the root of the repository."""
    return _IN_NAVIGATION.findall((repository / SETTINGS).read_text(encoding="utf-8"))


def linked_files(repository: Path, page: str) -> list[str]:
    """Files of the repository that a page links to.

    Args:
        repository: root of the repository.
        page: the page, from the root of the repository.

    Returns:
        Paths from the root of the repository, each once, in the order of the page. Links that lead to no file
        are left out; the builder of the site reports them.
    """
    text = (repository / page).read_text(encoding="utf-8")
    places = [(repository / page).parent / link for link in dict.fromkeys(_LINK.findall(text))]
    files = [place.resolve() for place in places if place.is_file()]
    return [path.relative_to(repository).as_posix() for path in files if path.is_relative_to(repository)]


def api_pages(repository: Path) -> dict[str, str]:
    """The pages of the API: one per package, with the documentation of its modules.

    Args:
        repository: root of the repository.

    Returns:
        Markdown by the page's path on the site, `api/PACKAGE.md`.
    """
    folders = sorted(path.parent for path in (repository / PACKAGE).rglob("__init__.py"))
    names = [".".join(folder.relative_to(repository).parts) for folder in folders]
    return {f"api/{name}.md": _api_page(name, folder) for name, folder in zip(names, folders, strict=True)}


def _api_page(name: str, folder: Path) -> str:
    modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    # A package's members are those of its modules, which have entries of their own.
    package = f"::: {name}\n    options:\n      show_root_heading: false\n      members: false"
    return "\n\n".join([f"# {name}", package, *(f"::: {name}.{module}" for module in modules)]) + "\n"


def settings_page() -> str:
    """The page of all settings, a table for each section, made from what `reland_jax.config` declares."""
    from reland_jax.config import Config
    from reland_jax.fields import Description, described

    def section(setting: Description) -> str:
        return setting.name.rpartition(".")[0]

    lines = ["# Settings", "", _ABOUT_SETTINGS]
    for name, group in itertools.groupby(described(Config()), section):
        lines += ["", f"## {name or 'The whole run'}", ""]
        lines += ["| setting | meaning | allowed | default |", "|---|---|---|---|"]
        for each in group:
            meaning = f"{each.meaning} (setting of the machine)" if each.machine else each.meaning
            cells = (f"`{each.name}`", meaning, each.allowed, f"`{each.default}`")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def lay_out(repository: Path, folder: Path) -> None:
    """Writes the sources of the site: `mkdocs.yml`, and the folder `pages` with all that is shown.

    Args:
        repository: root of the repository.
        folder: where to; its contents are replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    named, api = pages(repository), api_pages(repository)
    generated = {SETTINGS_PAGE: settings_page()} | api
    linked = [link for page in named for link in linked_files(repository, page)]
    for path in dict.fromkeys([*named, *linked, STYLE]):
        (folder / "pages" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / path, folder / "pages" / path)
    for path, text in generated.items():
        (folder / "pages" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pages" / path).write_text(text, encoding="utf-8")
    settings = (repository / SETTINGS).read_text(encoding="utf-8")
    entries = [f"      - {_title(path)}: {path}\n" for path in api]
    navigation = "".join([f"  - Settings: {SETTINGS_PAGE}\n", "  - API:\n", *entries])
    (folder / "mkdocs.yml").write_text(settings + navigation, encoding="utf-8")


def _title(path: str) -> str:
    name = path.removeprefix("api/").removesuffix(".md")
    return name.removeprefix(f"{PACKAGE}.")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    lay_out(REPOSITORY, Path(sys.argv[1]))
