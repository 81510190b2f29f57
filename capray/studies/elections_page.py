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
from capray.studies.elections import PUBLISHED, PUBLISHED_SERVERS, UNPUBLISHED, figure, judged, judged_split, split_figure, times

COLUMNS = ("range, ms", "measure", "published", "simulated", "95 % interval", "tolerance", "within", "elections")
TITLES = {"elections": "Time without a leader", "splits": "Split votes"}
READING = (
    "An election's time runs from the leader's crash until another survivor hears the new leader's append. A cross is a quantile that was "
    "published. <i>Within</i>: the 99.9 % interval of the simulated value meets the published one with its tolerance. Intervals are normal for means and "
    "order statistics for quantiles; an election without an end counts as longer than all others, and where none of a range's first ones ended, no more were run. "
    "A range in shares of its width is a split vote's: how many elections took a second round, beside the closed form."
)


def draw(directory: Path) -> Path:
    """Write report.html of a directory of elections.  Returns the page's path."""
    results = Results(directory)
    manifest, rows = results.manifest(), results.rows()
    labels = sorted({str(row["label"]) for row in rows})
    page = results.path / "report.html"
    said = html.escape(f"{len(rows)} elections; engine {manifest.get('engine')}; digest {manifest.get('digest') or 'none: not complete'}")
    command = html.escape(str(manifest.get("command", "")))
    sections = [f"<section id=reading><h2>How to read it</h2><p>{READING}</p><p class=faint>Command: <code>{command}</code></p></section>"]
    nav = [("reading", "How to read it")]
    for name, drawn in figures(results).items():
        plot = f"<div class=plot id='fig-{name}' data-figure='data-{name}' style='height:{drawn.layout.height}px'></div>"
        sections.append(f"<section id={name}><h2>{TITLES[name]}</h2><div class=scroll>{plot}</div>{embedded(f'data-{name}', drawn.to_json())}</section>")
        nav.append((name, TITLES[name]))
    write_page(page, f"capray: {manifest.get('name', 'elections')}", said, [*nav, ("measures", "Every measure")],
               [*sections, measures(answers(labels, rows, unpublished(manifest)))])
    return page


def unpublished(manifest: dict[str, Any]) -> set[str]:
    """The ranges of a directory whose set-up is not figure 16's."""
    return {variant["label"] for variant in manifest["spec"]["variants"] if variant.get("note") == UNPUBLISHED}


def figures(results: Results) -> dict[str, go.Figure]:
    """The figures by name, for the page and for PNG files; of split votes where there are any."""
    rows = results.rows()
    labels = sorted({str(row["label"]) for row in rows})
    names = [name for name in labels if not name.startswith("split")]
    found = {"elections": figure(names, rows, frozenset(PUBLISHED) - unpublished(results.manifest()))}
    return {**found, "splits": split_figure(rows)} if len(names) < len(labels) else found


def answers(labels: Sequence[str], rows: list[Row], unknown: set[str]) -> list[dict[str, Any]]:
    """What the script prints, of every range that has rows enough to say something; nothing is published of the `unknown`."""
    found: list[dict[str, Any]] = []
    for name in labels:
        own = times(rows, name)
        if name.startswith("split"):
            found.append(judged_split(float(name.split()[1]), own))
        elif len(own) > 1:
            found += judged(name, own, own[0]["nodes"] == PUBLISHED_SERVERS and name not in unknown)
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
