"""The page of a study of elections: the figure, every measure beside what was published, and how one election can be replayed.

Decides: what the page says.  May not know: how elections are run, what counts as agreeing (capray.studies.elections).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from capray.reporting.packing import embedded
from capray.reporting.page import write_page
from capray.store import Results, Row
from capray.studies.elections import PUBLISHED_SERVERS, figure, judged, judged_split, times

COLUMNS = ("range, ms", "measure", "published", "simulated", "95 % interval", "tolerance", "within", "elections")
READING = (
    "An election's time runs from the leader's crash until another survivor hears the new leader's append. A cross is a quantile that was "
    "published. <i>Within</i>: the 99.9 % interval of the simulated value meets the published one with its tolerance. Intervals are normal for means and "
    "order statistics for quantiles; an election without an end counts as longer than all others. A range in shares of its width is a split vote's: how many "
    "elections took a second round, beside the closed form."
)


def draw(directory: Path) -> Path:
    """Write report.html of a directory of elections.  Returns the page's path."""
    results = Results(directory)
    manifest, rows = results.manifest(), results.rows()
    labels = sorted({str(row["label"]) for row in rows})
    drawn = figures(results)["elections"]
    page = results.path / "report.html"
    said = html.escape(f"{len(rows)} elections; engine {manifest.get('engine')}; digest {manifest.get('digest') or 'none: not complete'}")
    plot = f"<div class=plot id='fig-elections' data-figure='data-elections' style='height:{drawn.layout.height}px'></div>"
    command = html.escape(str(manifest.get("command", "")))
    sections = [
        f"<section id=reading><h2>How to read it</h2><p>{READING}</p><p class=faint>Command: <code>{command}</code></p></section>",
        f"<section id=figure><h2>Time without a leader</h2><div class=scroll>{plot}</div>{embedded('data-elections', drawn.to_json())}</section>",
        measures(answers(labels, rows)),
    ]
    nav = [("reading", "How to read it"), ("figure", "Time without a leader"), ("measures", "Every measure")]
    write_page(page, f"capray: {manifest.get('name', 'elections')}", said, nav, sections)
    return page


def figures(results: Results) -> dict[str, go.Figure]:
    """The figure by name, for a PNG file."""
    rows = results.rows()
    return {"elections": figure([name for name in sorted({str(row["label"]) for row in rows}) if not name.startswith("split")], rows)}


def answers(labels: Sequence[str], rows: list[Row]) -> list[dict[str, Any]]:
    """What the script prints, of every range that has rows enough to say something."""
    found: list[dict[str, Any]] = []
    for name in labels:
        own = times(rows, name)
        if name.startswith("split"):
            found.append(judged_split(float(name.split()[1]), own))
        elif len(own) > 1:
            found += judged(name, own, own[0]["nodes"] == PUBLISHED_SERVERS)
    return found


def measures(found: Sequence[dict[str, Any]]) -> str:
    """The table."""
    body = ""
    for one in found:
        cells = (
            one["range"], one["measure"], _number(one["published"]), _number(one["simulated"]), f"{_number(one['low'])} to {_number(one['high'])}",
            f"{one['tolerance']:.0%}" if one["published"] is not None and one["tolerance"] else "",
            {True: "yes", False: "NO", None: ""}[one["within"]], str(one["trials"]),
        )
        body += "<tr>" + "".join(f"<td{' class=w' if i < 2 else ''}>{html.escape(cell)}</td>" for i, cell in enumerate(cells)) + "</tr>"
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    return f"<section id=measures><h2>Every measure</h2><div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
