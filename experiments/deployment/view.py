"""The results of a deployment for people: Markdown, and one HTML page, beside the paper's Tables 4 and 5."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.deployment.summary import ArmDay, DeployResults, TrialLift
from reland_jax.files import write_json, write_text
from reland_jax.records import to_plain
from reland_jax.report.render import render
from reland_jax.report.tables import MISSING, Table, to_markdown

PAPER_DAYS = {
    "ctr": ("*+3.61%", "*+4.04%", "*+3.05%", "*+2.58%", "*+2.83%", "*+3.19%"),
    "ctcvr": ("-0.31%", "+0.37%", "+0.52%", "*+1.29%", "*+1.51%", "*+1.08%"),
}
"""Table 4: lifts of an A/B test on days 1 to 5 and overall; the second row is of the CVR."""
PAPER_LEVELS = {
    "ctr": ("+4.02%", "+2.07%", "+4.69%", "+3.06%"),
    "ctcvr": ("+10.08%", "+3.73%", "+1.89%", "-0.39%"),
}
"""Table 5: L1 (least active) to L4; it has no marks of significance."""
_NAMES = {"ctr": "clicks (CTR)", "ctcvr": "clicks with a conversion (CTCVR)"}
_PAPERS = {"ctr": "the paper's CTR", "ctcvr": "the paper's CVR"}
_TITLE = "Deployment day by day"


def write_view(workdir: Path, results: DeployResults) -> dict[str, Any]:
    """Writes deploy.json and deploy.html, prints the tables, and returns the content of the first."""
    plain: dict[str, Any] = to_plain(results)
    write_json(workdir / "deploy.json", plain)
    write_text(workdir / "deploy.html", page(results))
    print(markdown(results))
    print(f"\nresults: {workdir / 'deploy.json'}\nreport:  {workdir / 'deploy.html'}")
    return plain


def markdown(results: DeployResults) -> str:
    """Everything but the settings, as Markdown."""
    blocks = [f"# {_TITLE}: {results.log}", *results.about]
    for name, words, tables in _sections(results):
        blocks += [f"## {name}", *words, *(to_markdown(one) for one in tables)]
    return "\n\n".join(blocks) + "\n"


def page(results: DeployResults) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    sections = [
        {"name": name, "words": words, "tables": tables} for name, words, tables in _sections(results)
    ]
    rows = [(name, str(value)) for name, value in results.environment.items()]
    return render(
        "tables.html.j2",
        {
            "dataset": results.log, "backbone": "deployment", "title": f"{_TITLE}: {results.log}",
            "notes": results.about, "sections": sections, "environment": Table("Environment", ("", ""), rows),
            "settings": {"settings": json.dumps(to_plain(results.config), indent=1)},
        },
    )  # fmt: skip


def _sections(results: DeployResults) -> list[tuple[str, list[str], list[Table]]]:
    words = [
        "Ours are offline: AUC of the baseline, and for every other arm the difference from it with the 95% "
        "interval of a bootstrap over users, then RelaImpr, the AUC above one half relative to the "
        "baseline's. A star marks an interval without 0. The paper's are lifts of an A/B test of 27 million "
        "users; they stand beside ours, and are of another quantity.",
    ]
    found = [
        ("Days, beside the paper's Table 4", words, [_by_day(results, task) for task in _tasks(results)])
    ]
    found.append(
        ("Levels, beside the paper's Table 5", [], [_by_level(results, task) for task in _tasks(results)])
    )
    if results.trial:
        found.append(
            ("A/B test in the shop, where the truth is known", _promise(results), [_lifts(results.trial)])
        )
    return [*found, ("Cost of every day", _cost_words(), [_costs(results)])]


def _tasks(results: DeployResults) -> list[str]:
    return list(dict.fromkeys(each.task for each in results.days))


def _by_day(results: DeployResults, task: str) -> Table:
    entries = [each for each in results.days if each.task == task]
    paper = dict(zip(("1", "2", "3", "4", "5", "all"), PAPER_DAYS[task], strict=True))
    segments = list(dict.fromkeys(each.segment for each in entries))
    labels = [
        paper.get("all" if name == "all days" else str(at + 1), MISSING) for at, name in enumerate(segments)
    ]
    return _beside(
        f"AUC of {_NAMES[task]} by day", entries, segments, labels, f"{_PAPERS[task]}, days 1 to 5"
    )


def _by_level(results: DeployResults, task: str) -> Table:
    entries = [each for each in results.levels if each.task == task]
    paper = dict(zip(("L1", "L2", "L3", "L4"), PAPER_LEVELS[task], strict=True))
    segments = list(dict.fromkeys(each.segment for each in entries))
    labels = [paper.get(name, MISSING) for name in segments]
    caption = f"AUC of {_NAMES[task]} by the user's activity before the day, all days; L1 is the least active"
    return _beside(caption, entries, segments, labels, _PAPERS[task])


def _beside(
    caption: str, entries: Sequence[ArmDay], segments: Sequence[str], paper: Sequence[str], name: str
) -> Table:
    """One row for each segment: rows, every arm, and the paper's figure."""
    arms = list(dict.fromkeys(each.arm for each in entries))
    rows = []
    for segment, of_paper in zip(segments, paper, strict=True):
        of_arm = {each.arm: each for each in entries if each.segment == segment}
        cells = [_cell(of_arm[arm]) for arm in arms]
        rows.append([segment, f"{of_arm[arms[0]].rows:,}", *cells, of_paper])
    return Table(caption, ("", "rows", *arms, name), rows)


def _cell(entry: ArmDay) -> str:
    if entry.difference is None or entry.low is None or entry.high is None:
        return MISSING if entry.auc is None else f"{entry.auc:.4f}"
    star = "" if entry.low <= 0 <= entry.high else "*"
    relative = "" if entry.improvement is None else f", {entry.improvement:+.1%}"
    return f"{star}{entry.difference:+.4f} ({entry.low:+.4f} to {entry.high:+.4f}){relative}"


def _promise(results: DeployResults) -> list[str]:
    """What offline figures promised beside what came, in words."""
    first = results.trial[0]
    promised = next(
        (each.improvement for each in results.days
         if (each.task, each.segment, each.arm) == ("ctr", "all days", first.treated)), None,
    )  # fmt: skip
    words = [
        "Each arm has one half of the users; what comes of an item that both show to a user is the same. The "
        "true lift is that of all users, by the true probabilities.",
    ]
    if promised is None:
        return words
    return [
        *words,
        f"Offline, RelaImpr of clicks promised {promised:+.1%} for {first.treated} over {first.control}; the "
        f"lift of the CTR that came is {first.measured.lift:+.1%} ({first.measured.low:+.1%} to "
        f"{first.measured.high:+.1%}), the true one {first.true:+.1%}.",
    ]


def _lifts(trial: Sequence[TrialLift]) -> Table:
    rows = []
    for each in trial:
        found = each.measured
        star = "*" if found.is_significant else ""
        rows.append([
            f"{each.treated} over {each.control}", found.metric.upper(), found.segment,
            f"{star}{found.lift:+.2%}", f"{found.low:+.2%} to {found.high:+.2%}", f"{each.true:+.2%}",
        ])  # fmt: skip
    return Table("Lifts", ("arms", "metric", "segment", "lift", "95% interval", "true lift"), rows)


def _cost_words() -> list[str]:
    return ["Seconds of each step, as it was made the first time; the rankers' are of all arms together."]


def _costs(results: DeployResults) -> Table:
    steps = list(dict.fromkeys(step for each in results.costs for step in each.seconds))
    steps.sort(key=("encoder", "vectors", "pool", "table", "ranker", "judged").index)
    rows = [
        [
            each.day, *(f"{each.seconds[step]:.1f}" if step in each.seconds else MISSING for step in steps),
            str(each.seed_users or MISSING), str(each.asked), str(each.prompt_tokens + each.response_tokens),
            f"{each.matched:.1%}",
        ]
        for each in results.costs
    ]  # fmt: skip
    header = ("day", *steps, "seed users", "LLM calls", "LLM tokens", "users with a seed user")
    return Table("Seconds and calls", header, rows)
