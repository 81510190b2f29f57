"""A sweep's table and a few of its trials -> one page that opens offline: what was run, the figures, every trial, every definition.

Decides: what the page says and how large it may be.  May not know: how trials are run, how figures are drawn.
The page stays under 10 MB: plotly.js once (2 MB as it is packed), the table within capray.reporting.table.TABLE_BYTES (what does not fit is named, and
is in table.parquet), single trials within TRIAL_BYTES (what each operation was is left out first, then whole trials, and so said); both packed to a
third of that or less.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from capray import plots
from capray.errors import show_us
from capray.figures.data import DEFAULT_DEADLINE_US, Estimate, Row, estimate, healthy, labels, narrow, ordered, partitioned, share_linearizable, sizes, tidy
from capray.figures.signature import LARGEST, STALE, WORST, counterexamples
from capray.figures.style import brief, of_trials
from capray.figures.trial import spacetime, timeline
from capray.record import Record
from capray.reporting.definitions import CAPTIONS, DEFINITIONS, SUMMARY, definition_of
from capray.reporting.evidence import evidence_of
from capray.reporting.packing import embedded
from capray.reporting.page import write_page
from capray.reporting.table import COORDINATES, MOST_ROWS, points, trials_table
from capray.reporting.theory import MEASURED, expectations

MOST_DIFFERENCES = 500
TRIAL_BYTES = 4_000_000
DRAWN_FROM = (  # what figures, summary and theory read of a row
    *COORDINATES, "key", "policy", "duration_us", "fault_touched_nothing", "linearizable", *(name for one in CAPTIONS.values() for name in one.columns),
    *(name for _, name, _ in SUMMARY), *(name for _, name, _ in MEASURED), *LARGEST, *STALE, *WORST, "stale_share_before", "availability_worst_node_before")


def write_report(
    rows: Sequence[Row], manifest: Mapping[str, Any], trials: Sequence[tuple[str, Record]], path: Path, own: Sequence[tuple[str, str]] = ()
) -> None:
    """Write the page.  `rows` is the sweep's table, `manifest` what its directory says about it, `trials` single records to draw, with titles; `own`
    figures of the script that asked for the sweep, by name, as plotly's JSON.
    Rows that are many are read one by one (twice), and only what the figures are drawn from is kept of each."""
    deadline_us, names = deadline_of(manifest), variants_of(manifest)
    if len(rows) > MOST_ROWS:
        table = trials_table(ordered(points(rows, manifest), names), manifest, deadline_us, len(rows))
        rows = ordered(narrow(rows, DRAWN_FROM), names)
    else:
        rows = ordered(rows, names)
        table = trials_table(rows, manifest, deadline_us)
    theory = expectations(tidy(rows), manifest, deadline_us)
    drawn, tidied = plots.figures(rows, deadline_us, names), tidy(rows)
    sections = [
        _run(rows, manifest),
        _own(own),
        *(_figure(name, figure, tidied, deadline_us) for name, figure in drawn.items() if name == "signature"),
        theory,
        _summary(tidied, deadline_us),
        *(_figure(name, figure, tidied, deadline_us) for name, figure in drawn.items() if name != "signature"),
        _trials(trials),
        table,
        _definitions(),
    ]
    title = f"capray: {manifest.get('name', 'report')}"
    nav = [
        ("run", "What was run"),
        *([("own", "What was asked")] if own else []),
        *((name, CAPTIONS[name].heading) for name in drawn if name == "signature"),
        *([("theory", "What theory expects")] if theory else []),
        ("summary", "Summary"),
        *((name, CAPTIONS[name].heading) for name in drawn if name != "signature"),
        *([("single", "Single trials")] if trials else []),
        ("trials", "All trials"),
        ("definitions", "Definitions"),
    ]
    write_page(path, title, _headline(rows, manifest), nav, sections)


def write_comparison(
    first: Sequence[Row], second: Sequence[Row], first_name: str, second_name: str, table: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Two results' figures overlaid on one page, with the table of their differences (capray.compare): each line twice, named after its directory."""
    both = [(ordered(first), first_name), (ordered(second), second_name if second_name != first_name else second_name + " (second)")]
    rows = sorted(({**row, "label": f"{row['label']} [{name}]"} for own, name in both for row in own), key=lambda row: str(row["label"]))
    tidied, drawn = (
        tidy(rows),
        {name: figure for name, figure in plots.figures(rows).items() if name in ("signature", "availability", "inconsistency")},
    )
    sections = [
        _differences(table),
        *(_figure(name, figure, tidied, DEFAULT_DEADLINE_US) for name, figure in drawn.items()),
        trials_table(rows, {}, DEFAULT_DEADLINE_US),
        _definitions(),
    ]
    nav = [
        ("differences", "Differences"),
        *((name, CAPTIONS[name].heading) for name in drawn),
        ("trials", "All trials"),
        ("definitions", "Definitions"),
    ]
    apart = sum(bool(line["told_apart"]) for line in table)
    write_page(
        path,
        f"capray: {first_name} and {second_name}",
        f"{len(table)} points and measures compared, {apart} told apart by their intervals",
        nav,
        sections,
    )


def _differences(table: Sequence[Mapping[str, Any]]) -> str:
    """The points that are told apart first; at most MOST_DIFFERENCES."""
    names = ("label", "nodes", "duration", "measure", "first", "second", "difference", "low", "high", "trials", "paired", "told_apart", "worse")
    lines = sorted(table, key=lambda line: (not line["told_apart"], str(line["label"]), line["nodes"]))[:MOST_DIFFERENCES]
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td class={'w' if isinstance(line.get(name), str) else 'n'}>{_plain(line.get(name))}</td>" for name in names) + "</tr>"
        for line in lines
    )
    more = "" if len(lines) == len(table) else f" The first {len(lines)} of {len(table)}."
    return (
        "<section id=differences><h2>Differences</h2><p>second - first with its 95 % interval (low, high), paired where both used the same seeds, otherwise "
        "between independent trials (Welch); told apart: the interval lies wholly beyond the threshold asked for (0 unless one was), on either side. Durations "
        f"are in microseconds.{more}</p><div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _plain(found: Any) -> str:
    return (
        "null"
        if found is None
        else f"{found:.5g}"
        if isinstance(found, float)
        else html.escape("yes" if found is True else "no" if found is False else str(found))
    )


def deadline_of(manifest: Mapping[str, Any]) -> int:
    """The clients' deadline that the manifest's scenario sets, microseconds; the default where it sets none."""
    spec = manifest.get("spec") or {}
    for holder in (spec.get("base"), spec.get("scenario")):
        found = ((holder or {}).get("workload") or {}).get("deadline_us")
        if isinstance(found, int):
            return found
    return DEFAULT_DEADLINE_US


def variants_of(manifest: Mapping[str, Any]) -> list[str]:
    """The labels of a sweep's variants, in its order; empty for anything else."""
    return [str(one.get("label")) for one in (manifest.get("spec") or {}).get("variants") or () if isinstance(one, dict)]


# ---- what was run ------------------------------------------------------------------------------------------------------------------------
def _headline(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    filled = tidy(rows)
    said = [
        f"{len(rows)} trials" if len(rows) != 1 else "1 trial",
        f"{len(labels(filled))} policies and variants",
        "nodes " + ", ".join(map(str, sizes(filled))),
        f"seeds {len({row['seed'] for row in filled})}",
        f"engine {manifest.get('engine', 'unknown')}",
        f"digest {manifest.get('digest') or 'none: not complete'}",
    ]
    return html.escape("; ".join(said))


def _run(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    known = {
        **{name: manifest.get(name) for name in ("kind", "name", "version", "engine", "digest", "command") if manifest.get(name)},
        "trials": len(rows),
    }
    known.update(
        {
            name: value
            for name, value in manifest.items()
            if name not in {*known, "spec", "format"} and isinstance(value, (str, int, float)) and value != ""
        }
    )
    durations = sorted({(row["duration_us"], row["duration"]) for row in tidy(rows)})
    known["lengths of the cut"] = ", ".join(dict.fromkeys(text if us else "no cut" for us, text in durations))
    known["shapes of the cut"] = ", ".join(dict.fromkeys(row["shape"] for row in tidy(rows) if row["shape"] != "none")) or "none"
    untouched = sum(row.get("fault_touched_nothing") is True for row in rows)
    if untouched:
        known["warning"] = f"in {untouched} trials some fault touched no message: it tested nothing"
    items = "".join(
        f"<dt>{html.escape(str(name))}</dt><dd class='{html.escape(str(name), quote=True)}'>{html.escape(str(value))}</dd>"
        for name, value in known.items()
    )
    spec = json.dumps(manifest.get("spec", {}), indent=1, ensure_ascii=False)
    return (
        f"<section id=run><h2>What was run</h2><dl class=run>{items}</dl><details><summary>The whole "
        f"scenario</summary><pre>{html.escape(spec)}</pre></details>"
        "<p>Every trial can be replayed to the same bytes: a click on it in <a href='#trials'>the table</a> shows the command.</p></section>"
    )


# ---- figures -----------------------------------------------------------------------------------------------------------------------------
def _own(figures: Sequence[tuple[str, str]]) -> str:
    """The figures that answer the script's question."""
    drawn = "".join(
        f"<div class=scroll><div class=plot id='fig-own-{i}' data-figure='data-own-{i}' style='height:{json.loads(text)['layout'].get('height', 450)}px'></div>"
        f"</div>{embedded(f'data-own-{i}', text)}"
        for i, (_, text) in enumerate(figures)
    )
    return f"<section id=own><h2>What was asked</h2>{drawn}</section>" if drawn else ""


def _figure(name: str, figure: go.Figure, tidied: Sequence[Row], deadline_us: int) -> str:
    caption = CAPTIONS[name]
    wanted = html.escape(json.dumps({"columns": caption.columns, "figure": f"fig-{name}"}), quote=True)
    defined = list(dict.fromkeys(one.measure for column in caption.columns if (one := definition_of(column))))
    links = ", ".join(f"<a href='#def-{measure}'>{measure}</a>" for measure in defined)
    check = _check(tidied, deadline_us) if name == "signature" else ""
    return (
        f"<section id={name}><h2>{html.escape(caption.heading)}</h2><div class=scroll><div class=plot id='fig-{name}' data-figure='data-{name}' "
        f"style='height:{figure.layout.height}px'></div></div>"
        f"<p class=caption>{html.escape(caption.text)}</p>{check}<p class=caption>Its numbers: <a href='#trials' data-rows=\"{wanted}\">its rows "
        f"in the table</a>; defined as: {links}. "
        f"A click on a point shows its trials, one on a name in the legend hides or shows it.</p>{embedded(f'data-{name}', figure.to_json())}</section>"
    )


def _check(tidied: Sequence[Row], deadline_us: int) -> str:
    """What the theorem says, held against the rows."""
    against = counterexamples(tidied, deadline_us)
    cut = partitioned(tidied, deadline_us)
    if not cut:
        return "<p class=check>No trial had a cut longer than the clients' deadline: the theorem was not put to the test.</p>"
    groups = len({(row["label"], row["nodes"]) for row in cut})
    if against:
        return (
            f"<p class='check bad'>At (1, 1) while cut, every trial linearizable: {html.escape(', '.join(against))}. The theorem allows that only "
            f"where the cut kept no client's request from "
            "the replicas it needs: look at what the cut touched.</p>"
        )
    return (
        f"<p class=check>Held against the theorem: of {groups} combinations of policy and size in {len(cut)} trials, none stands at (1, 1) while "
        f"cut with every trial linearizable.</p>"
    )


# ---- summary -----------------------------------------------------------------------------------------------------------------------------
def _summary(tidied: Sequence[Row], deadline_us: int) -> str:
    columns = [one for one in SUMMARY if any(row.get(one[1]) is not None for row in tidied)]
    head = "".join(
        f"<th class=n><a href='#def-{found.measure}'>{html.escape(text)}</a></th>" for text, column, _ in columns if (found := definition_of(column))
    )
    lines = []
    for nodes in sizes(tidied):
        for label in labels(tidied):
            own = [row for row in tidied if row["label"] == label and row["nodes"] == nodes]
            used = partitioned(own, deadline_us) or own
            if own:
                lines.append(_summary_line(label, nodes, used, columns, bool(partitioned(own, deadline_us))))
    return (
        f"<section id=summary><h2>Summary</h2><p>Trials with a cut longer than the clients' deadline ({show_us(deadline_us)}), all lengths "
        f"together; {len(healthy(tidied))} trials without a cut "
        "are left out where there are others. Mean over seeds [95 % interval]; no interval where all seeds agree or there is a single one; a dash: not "
        "measured, or it never happened. Where it happened in some trials only, the mean is over those, and their number stands below.</p>"
        "<div class=scroll><table class=summary>"
        f"<thead><tr><th>policy</th><th class=n>nodes</th><th class=n>trials</th>{head}<th class=n><a href='#def-linearizable'>linearizable "
        f"trials</a></th></tr></thead><tbody>" + "".join(lines) + "</tbody></table></div></section>"
    )


def _summary_line(label: str, nodes: int, used: Sequence[Row], columns: Sequence[tuple[str, str, str]], cut: bool) -> str:
    wanted = html.escape(json.dumps({"pick": {"label": label, "nodes": str(nodes)}, "cut": "partitioned" if cut else ""}), quote=True)
    cells = "".join(f"<td class=n>{_estimated(estimate(used, column), how, used)}</td>" for _, column, how in columns)
    linear = share_linearizable(used)
    return (
        f"<tr><td class=w>{html.escape(label)}</td><td class=n>{nodes}</td><td class=n><a href='#trials' "
        f'data-rows="{wanted}">{len(used)}</a></td>{cells}'
        f"<td class=n>{_estimated(linear, 'share', used)}</td></tr>"
    )


def _estimated(found: Estimate | None, how: str, rows: Sequence[Row]) -> str:
    """A mean, below it its interval (none where all seeds agree), and of how many trials it is where others have no value."""
    if found is None:
        return "-"
    mean, _, interval = brief(found, how).partition(" [")
    below = [f"[{interval}"] if interval else []
    below += [] if found.trials == len(rows) else [f"in {of_trials(found, rows)}"]
    return html.escape(mean) + "".join(f"<br><span class=ci>{html.escape(text)}</span>" for text in below)


# ---- single trials -------------------------------------------------------------------------------------------------------------------------
def _trials(trials: Sequence[tuple[str, Record]]) -> str:
    if not trials:
        return ""
    options, data, left, spent, words = [], [], [], 0, []
    heights: dict[str, int] = {}  # of the figures of the trial that is shown first
    most = TRIAL_BYTES // len(trials) // 110  # operations whose hover text fits
    for i, (title, record) in enumerate(trials):
        found = {"timeline": timeline(record, title, len(record.history) <= most)}
        if record.trace:
            found["spacetime"] = spacetime(record, title=title)
        why = evidence_of(record, title)
        if why is not None:
            found["evidence"] = why[0]
        texts = {kind: figure.to_json() for kind, figure in found.items()}
        size = sum(map(len, texts.values()))
        if spent + size > TRIAL_BYTES and i:
            left.append(title)
            continue
        spent += size
        heights = heights or {kind: figure.layout.height for kind, figure in found.items()}
        options.append(f"<option value={i}>{html.escape(title)}</option>")
        data += [embedded(f"{kind}-{i}", text) for kind, text in texts.items()]
        if why is not None:
            words.append(f"<details><summary>Why {html.escape(title)} was not linearizable, as text</summary><pre>{html.escape(why[1])}</pre></details>")
    boxes = "".join(f"<div class=plot id={kind} style='height:{heights.get(kind, 0)}px'></div>" for kind in ("timeline", "spacetime", "evidence"))
    note = f"<p class=faint>Left out for size: {html.escape('; '.join(left))}.</p>" if left else ""
    return (
        "<section id=single><h2>Single trials</h2><p class=caption>One trial at a time. Above: every operation at the time it was asked, a lane "
        "for each node and in it a row for each outcome; "
        "the fault is shaded, and a heavy line parts the sides. Below it the divergence of replicas. Then the messages between the nodes when the "
        "cut begins: slanted lines from sender to "
        "receiver, crossed or open ends where a message was dropped or held up. "
        "Last, for a trial that was not linearizable, the smallest window that proves it: "
        f"operations as bars by process, the offending values marked, the longest linearizable prefix shaded.</p><div class=controls><label>Trial <select "
        f"id=trial-pick>{''.join(options)}</select></label></div>"
        f"<div class=scroll>{boxes}</div>"
        f"{''.join(words)}{note}{''.join(data)}</section>"
    )


# ---- definitions -----------------------------------------------------------------------------------------------------------------------------
def _definitions() -> str:
    kinds = {"H": "history and faults alone", "V": "versions that replicas applied", "C": "the run's counters and placement"}
    lines = "".join(
        f"<tr id='def-{one.measure}'><td><code>{one.measure}</code></td><td>{kinds[one.of]}</td><td>{html.escape(one.text)}</td>"
        f"<td>{html.escape(one.source)}</td></tr>"
        for one in DEFINITIONS
    )
    return (
        "<section id=definitions><h2>Definitions</h2><p>A column is a measure's name, then phase (<code>before</code>, <code>during</code>, "
        "<code>after</code> the fault), side "
        "(<code>majority</code>, <code>minority</code>, <code>largest</code>) and kind (<code>read</code>, <code>write</code>) as far as it is "
        "narrowed, the unit last: "
        "<code>availability_during_minority_write</code>. What was not measured, or has no meaning there, is null, never 0. A point is the mean "
        "over seeds with its 95 % interval: Student's t, "
        "from 20 trials on a BCa bootstrap, Wilson's for shares of trials; operations of one trial fail together and are not independent, so "
        "intervals are over seeds only. Intervals of shares are cut off at 0 and 1.</p>"
        "<div class=scroll><table><thead><tr><th>measure</th><th>from</th><th>definition</th><th>source</th></tr></thead>"
        f"<tbody>{lines}</tbody></table></div></section>"
    )
