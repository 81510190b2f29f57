"""The ladder's page: the table as a figure, each line against what its documentation promises, and a counterexample for every broken level.

Decides: what the page says.  May not know: how levels are decided, how trials are run.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from capray.checkers import evidence
from capray.checkers.linearizable import linearizable
from capray.checkers.models import model_named
from capray.errors import InputError
from capray.figures.style import INK, style
from capray.replay import replay_command
from capray.reporting.packing import embedded
from capray.reporting.page import write_page
from capray.reporting.table import trials_table
from capray.store import Results
from capray.studies.ladder import BUDGET, CHAIN, LEVELS, NONE, Row, commutes, rank
from capray.studies.ladder_claims import FAULTS, RUNGS
from capray.studies.ladder_table import Cell, cells, unbroken_below
from capray.studies.ladder_why import WHY

CODES = {
    "linearizable": "LIN",
    "sequential": "SEQ",
    "causal": "CM",
    "causal-convergence": "CCv",
    "causal-consistency": "CC",
    "PRAM": "PRAM",
    "read-your-writes": "RYW",
    "monotonic-reads": "MR",
    "monotonic-writes": "MW",
    "writes-follow-reads": "WFR",
    "regular": "REG",
    "eventual": "EC",
    NONE: "none",
}
MEANING = {
    "linearizable": "each operation takes effect at one instant between its question and its answer, key by key (Herlihy and Wing 1990)",
    "sequential": "one order of all operations of all keys that keeps each process's own (Lamport 1979)",
    "causal": "causal memory: each process sees one order of the writes that keeps causal order (Ahamad et al. 1995; Bouajjani et al. 2017, CM)",
    "causal-convergence": "causal order, and concurrent writes in one order for all (Bouajjani et al. 2017, CCv)",
    "causal-consistency": "no read returns what its own causal past had overwritten (Bouajjani et al. 2017, CC)",
    "PRAM": "each process sees one order of the writes that keeps each writer's own (Lipton and Sandberg 1988)",
    "read-your-writes": "Terry et al. 1994, with `overwritten` by real time",
    "monotonic-reads": "likewise",
    "monotonic-writes": "likewise",
    "writes-follow-reads": "likewise",
    "eventual": "after the quiet period the last reads at all nodes agree (Vogels 2009); of a counter or a set, on all that was acknowledged (SSS 2011)",
    "regular": "no read is stale: none returns what an acknowledged write had overwritten before it began (Lamport 1986, many writers)",
}
# By rank: blue to red by way of pale yellow, apart for every kind of colour blindness; none of them is told by colour alone.
COLOURS = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7e0", "#fee090", "#f4a582", "#b2182b")
DARK = (0, 6)
COLUMN, LINE, LEFT, TOP = 66, 15, 210, 220  # pixels
WIDTH = 13 * COLUMN  # at least, for the words above the table
LETTER = 11  # a cell has room for one in so many, in a line that may end with a mark


def draw(directory: Path) -> Path:
    """Write report.html of a ladder's directory.  Returns the page's path."""
    results = Results(directory)
    manifest, rows = results.manifest(), results.rows()
    table, page = cells(rows), results.path / "report.html"
    sections = [
        reading(manifest, rows, table),
        matrix(figure(table)),
        deviations(table),
        lines(table),
        counterexamples(table, manifest),
        trials_table(rows, manifest, 1_000_000),
        levels(),
    ]
    nav = [
        ("reading", "How to read it"),
        ("ladder", "The table"),
        ("deviations", "Against the promises"),
        ("lines", "Line by line"),
        ("examples", "Counterexamples"),
        ("trials", "All trials"),
        ("levels", "The levels"),
    ]
    said = html.escape(f"{len(rows)} trials; {len(table)} cells; engine {manifest.get('engine')}; digest {manifest.get('digest') or 'none: not complete'}")
    write_page(page, f"capray: {manifest.get('name', 'ladder')}", said, nav, sections)
    return page


def figures(results: Results) -> dict[str, go.Figure]:
    """The figures by name, for PNG files."""
    return {"ladder": figure(cells(results.rows()))}


# ---- the table as a figure ------------------------------------------------------------------------------------------------------------
def figure(table: Sequence[Cell]) -> go.Figure:
    """Policies downwards, faults to the right; a cell's words and colour are the strongest level that held in every trial."""
    names = [rung.name for rung in RUNGS if any(cell.rung is rung for cell in table)]
    faults = [fault.name for fault in FAULTS if any(cell.fault is fault for cell in table)]
    at = {(cell.rung.name, cell.fault.name): cell for cell in table}
    grid = [[at.get((name, fault)) for fault in faults] for name in names]
    width = max(WIDTH, len(faults) * COLUMN)
    letters = width // len(faults) // LETTER
    tallest = max(code(cell, letters).count("<br>") for cell in table)
    steps = len(COLOURS)
    scale = [[(i + j) / steps, colour] for i, colour in enumerate(COLOURS) for j in (0, 1)]
    drawn = go.Figure(
        go.Heatmap(
            z=[[None if cell is None else rank(cell.level) for cell in row] for row in grid],
            x=faults,
            y=names,
            colorscale=scale,
            zmin=-0.5,
            zmax=steps - 0.5,
            xgap=2,
            ygap=2,
            showscale=False,
            customdata=[[hover(cell) for cell in row] for row in grid],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    for row in grid:
        for cell in row:
            if cell is not None:
                drawn.add_annotation(
                    x=cell.fault.name,
                    y=cell.rung.name,
                    text=f"<i>{code(cell, letters)}</i>" if silent(cell) else code(cell, letters),
                    showarrow=False,
                    font={"size": 9, "color": "white" if rank(cell.level) in DARK else INK},
                )
    broken = [cell for cell in table if cell.within is False]
    drawn.add_trace(
        go.Scatter(
            x=[cell.fault.name for cell in broken],
            y=[cell.rung.name for cell in broken],
            mode="markers",
            name="promise broken",
            hoverinfo="skip",
            marker={"symbol": "square-open", "size": 30, "color": "#e6007e", "line": {"width": 3}},
        )
    )
    style(drawn, "Which consistency held in every trial", legend(table), TOP + 20 + (14 + LINE * (1 + max(1, tallest))) * len(names), False)
    drawn.update_xaxes(side="top", tickangle=-40, showgrid=False, range=[-0.5, len(faults) - 0.5])
    drawn.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 11})
    return drawn.update_layout(width=LEFT + 60 + width, margin={"l": LEFT, "t": TOP, "b": 20, "r": 60})


def legend(table: Sequence[Cell]) -> str:
    """What the letters of a cell mean."""
    trials = sorted({len(cell.rows) for cell in table})
    return (
        f"{' to '.join(map(str, dict.fromkeys((trials[0], trials[-1]))))} trials a cell. LIN linearizable, SEQ sequential, CM causal memory, CC "
        f"causal consistency, REG no stale read, EC the last reads agree;<br>"
        "PRAM each writer's order; sessions: RYW read your writes, MR monotonic reads, MW monotonic writes, WFR writes follow reads;<br>"
        "! acknowledged writes lost, or overwritten by "
        "the past; ≥ a stronger level was left undecided;<br><i>k of n</i>: only so many trials were not linearizable; <i>slanted</i>: half or less was "
        "answered; framed: a promise broken"
    )


def code(cell: Cell, letters: int = COLUMN // LETTER) -> str:
    """A cell's level in lines of a few letters; `!` where acknowledged writes were lost, or overwritten by the past; where some trials were linearizable and some not,
    how many were not."""
    plain = cell.level.removeprefix("at least ")
    parts = [CODES[part] for part in plain.split(", ")]
    lines = [("≥" if plain != cell.level else "") + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < letters:
            lines[-1] += f"+{part}"
        else:
            lines.append(part)
    some = cell.broken(CHAIN[0])
    share = f"<br><span style='font-size:8px'>{some} of {len(cell.rows)}</span>" if 0 < some < len(cell.rows) else ""
    return "<br>".join(lines) + (" !" if cell.loses or cell.reorders else "") + share


def silent(cell: Cell) -> bool:
    """Whether so little was answered in the fault that what held there says less: half, or less."""
    return cell.answered is not None and cell.answered <= 0.5


def hover(cell: Cell | None) -> str:
    """A cell's numbers."""
    if cell is None:
        return "not run"
    told = [
        f"<b>{cell.rung.name}</b>, {cell.fault.words}",
        f"held in all {len(cell.rows)} trials: {cell.level}",
        f"promised: {cell.claim.words}: {cell.verdict}",
    ]
    told += [] if cell.answered is None else [f"answered in the fault: {cell.answered:.2f}"]
    told += [f"{name} broken in {count}" for name in LEVELS if (count := cell.broken(name))]
    return "<br>".join(told)


# ---- the page's sections ----------------------------------------------------------------------------------------------------------------
def reading(manifest: Mapping[str, Any], rows: Sequence[Row], table: Sequence[Cell]) -> str:
    unknown = sum(row.get(f"holds_{name}", "unknown") == "unknown" for row in rows for name in LEVELS)
    untouched = sum(row.get("fault_touched_nothing") is True for row in rows)
    few = min(len(cell.rows) for cell in table)
    return (
        "<section id=reading><h2>How to read it</h2><p>Every line's policy met every column's fault, five nodes, two keys, "
        "ten operations a second and node; each "
        "whole history, last reads included, was "
        "judged level by level. A cell is the strongest level that held in <b>every</b> trial: one violation is a proof, and its trial can be "
        "replayed. That a level held says only that "
        f"so many trials ({few} or more a cell) did not break it: with n trials and no violation, the chance of one a trial is below 1 - 0.05^(1/n) with "
        f"95 % confidence (about 3/n, the rule of three): here below {unbroken_below(few):.2g}. A verdict that ran out of its "
        f"budget ({BUDGET} configurations) is unknown, never valid: "
        f"{unknown} of {len(rows) * len(LEVELS)} verdicts; such a cell says "
        f"<i>at least</i> (&ge;). In {untouched} of {len(rows)} trials some fault touched no message. "
        f"What is promised, with its source, stands beside what was measured below.</p><p class=faint>Command: "
        f"<code>{html.escape(str(manifest.get('command', '')))}</code></p></section>"
    )


def matrix(drawn: go.Figure) -> str:
    return (
        f"<section id=ladder><h2>The table</h2><div class=scroll><div class=plot id='fig-ladder' data-figure='data-ladder' "
        f"style='height:{drawn.layout.height}px;width:{drawn.layout.width}px'></div></div>"
        f"{embedded('data-ladder', drawn.to_json())}</section>"
    )


def deviations(table: Sequence[Cell]) -> str:
    """The promises that were broken or left open, and how many were kept."""
    off = [cell for cell in table if cell.within is not True]
    kept = len(table) - len(off)
    sharp = sum(cell.within is True and cell.sharp for cell in table)
    weaker = sum(cell.claim.level != "linearizable" for cell in table)
    items = "".join(
        f"<tr><td class=w>{html.escape(cell.rung.name)}</td><td class=w>{html.escape(cell.fault.name)}</td><td class=w>{cell.claim.words}</td><td "
        f"class=w>{cell.level}</td>"
        f"<td>{html.escape(cell.verdict)}</td></tr>"
        for cell in off
    )
    listed = (
        (
            "<div class=scroll><table><thead><tr><th>policy</th><th>fault</th><th>promised</th><th>measured</th>"
            "<th style='min-width:17em'>verdict</th></tr></thead><tbody>"
            + items
            + "</tbody></table></div>"
        )
        if off
        else ""
    )
    return (
        f"<section id=deviations><h2>Against the promises</h2><p>{kept} of {len(table)} promises were kept in every trial, "
        f"{sum(cell.within is False for cell in table)} broken, "
        f"{sum(cell.within is None for cell in table)} left open. Of the {weaker} cells where less than linearizability is promised, {sharp} showed "
        f"that no more than that holds.</p>{listed}</section>"
    )


def lines(table: Sequence[Cell]) -> str:
    """A table for each policy: each fault, what is promised and by whom, what held."""
    blocks = []
    for rung in RUNGS:
        own = [cell for cell in table if cell.rung is rung]
        if own:
            sources = list(dict.fromkeys(cell.claim.source for cell in own))
            body = "".join(_line(cell, sources.index(cell.claim.source) + 1) for cell in own)
            notes = "".join(f"<li>{html.escape(source)}</li>" for source in sources)
            settings = ", ".join(f"{name} {value}" for name, value in rung.settings.items()) or "its defaults"
            blocks.append(
                f"<h3>{html.escape(rung.name)}</h3><p class=faint>{html.escape(rung.policy)}, {html.escape(settings)}</p>"
                f"<p>{html.escape(WHY[rung.name])}</p><div "
                f"class=scroll><table><thead><tr><th>fault</th><th>promised</th>"
                f"<th>held in all</th><th>single trials</th><th class=n>trials</th><th class=n>lost writes in</th><th "
                f"class=n>answered in the fault</th><th style='min-width:15em'>verdict</th></tr></thead>"
                f"<tbody>{body}</tbody></table></div><ol class=faint>{notes}</ol>"
            )
    return f"<section id=lines><h2>Line by line</h2><p class=caption>The number behind a promise is its source below the table.</p>{''.join(blocks)}</section>"


def _line(cell: Cell, source: int) -> str:
    by_rank = sorted(cell.rows, key=lambda row: row["rank"])
    low, high = by_rank[-1]["level"], by_rank[0]["level"]
    words = (
        cell.fault.words,
        f"{cell.claim.words}{', may lose writes' if cell.claim.loses else ''} [{source}]",
        cell.level,
        low if low == high else f"{low} to {high}",
    )
    numbers = (len(cell.rows), cell.loses, "-" if cell.answered is None else f"{cell.answered:.2f}")
    return (
        "<tr>"
        + "".join(f"<td>{html.escape(text)}</td>" for text in words)
        + "".join(f"<td class=n>{number}</td>" for number in numbers)
        + f"<td>{html.escape(cell.verdict)}</td></tr>"
    )


def counterexamples(table: Sequence[Cell], manifest: Mapping[str, Any]) -> str:
    """For each policy and level that any trial broke: the first such trial (faults in the table's order, then seeds), why, and the command that replays it."""
    blocks = []
    for rung in RUNGS:
        items = []
        for level in LEVELS:
            found = next(((cell, row) for cell in table if cell.rung is rung and (row := cell.example(level)) is not None), None)
            if found is not None:
                cell, row = found
                window = smallest_window(manifest, row) if level == CHAIN[0] else ""
                items.append(
                    f"<details><summary><b>{level}</b>: {html.escape(cell.fault.words)}, seed "
                    f"{row['seed']}</summary><p>{html.escape(str(row[f'why_{level}']))}</p>{window}"
                    f"<pre>{html.escape(replay_command(manifest, row))}</pre></details>"
                )
        if items:
            blocks.append(f"<h3>{html.escape(rung.name)}</h3>{''.join(items)}")
    return (
        "<section id=examples><h2>Counterexamples</h2><p class=caption>One for each policy and level that some trial broke. Times are microseconds; "
        "the command prints the trial's digest, and with "
        f"<code>--history FILE</code> leaves the history that <code>capray check --consistency ladder FILE</code> judges again (a register's).</p>"
        f"{''.join(blocks)}</section>"
    )


def smallest_window(manifest: Mapping[str, Any], row: Row) -> str:
    """The smallest window that proves a trial not linearizable, from the trial run again."""
    from capray.sweeping import replay

    try:
        record = replay(dict(manifest), row)
    except InputError as error:  # made by another version: the row's own words must do
        return f"<p class=faint>{html.escape(str(error))}</p>"
    if commutes(record):
        return ""
    history, register = record.history, model_named("register")
    found = evidence.explain(history, register, None, linearizable(history, register, None, BUDGET))
    return "" if found is None else f"<pre>{html.escape(evidence.text(history, found))}</pre>"


def levels() -> str:
    items = "".join(f"<dt>{CODES[name]}: {name}</dt><dd>{html.escape(text)}</dd>" for name, text in MEANING.items())
    return (
        f"<section id=levels><h2>The levels</h2><p>Linearizable implies all others. Sequential implies causal memory, which implies causal "
        f"consistency and PRAM. A read that answered siblings is no register's: "
        f"it breaks linearizable, sequential and regular, and counts as one read of each sibling for the causal levels "
        f"(capray/studies/ladder.py). A counter or a set has no overwritten value: there a level says which updates a read must have seen "
        f"(capray/checkers/merged.py); REG is that it saw all that were acknowledged before it began.</p><dl>{items}</dl></section>"
    )
