"""What theory expects of each variant, beside what was measured, and why they differ: a section of the report.

Decides: the words' order and which measured numbers stand beside them.  The words themselves are the sweep's (a variant's `note`).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from capray.figures.data import Estimate, Row, estimate, main_size, partitioned, share_linearizable
from capray.figures.style import brief, of_trials, show

MEASURED = (
    ("minority's clients answered", "availability_during_minority", "share"),
    ("majority's", "availability_during_majority", "share"),
    ("stale reads during the cut", "stale_share_during", "share"),
    ("acknowledged writes lost", "lost_writes", "count"),
    ("conflicting pairs", "conflicts", "count"),
    ("converged after heal", "convergence_us", "us"),
)


def expectations(rows: Sequence[Row], manifest: Mapping[str, Any], deadline_us: int) -> str:
    """One paragraph a variant: what is expected and why, then its numbers, on the main cluster size, over cuts longer than the deadline.  Empty
    where no variant carries a note."""
    spec = manifest.get("spec") or {}
    notes = [(str(one["label"]), str(one["note"])) for one in spec.get("variants", ()) if one.get("note")]
    cut = partitioned(rows, deadline_us)
    if not notes or not cut:
        return ""
    nodes = main_size(cut)
    lines = []
    for label, note in notes:
        own = [row for row in cut if row["label"] == label and row["nodes"] == nodes]
        found = [f"{text} {brief(value, how)}{some_of(value, own)}" for text, column, how in MEASURED if (value := estimate(own, column)) is not None]
        if (linear := share_linearizable(own)) is not None:
            found.append(f"trials linearizable {show(linear)}")
        numbers = f"<br><span class=note>Measured: {'; '.join(found)}; {len(own)} trials.</span>" if own else ""
        lines.append(f"<dt>{html.escape(label)}</dt><dd>{_marked(note)}{numbers}</dd>")
    return (
        f"<section id=theory><h2>What theory expects, and what was measured</h2><p>On {nodes} nodes, cuts longer than the clients' deadline, all lengths "
        f"together; mean over seeds [95 % interval; none where all seeds agree].</p><dl class=theory>{''.join(lines)}</dl></section>"
    )


def some_of(value: Estimate, rows: Sequence[Row]) -> str:
    """` (in 3 of 8 trials)` where the others have no value: a mean over the trials that got there, and so said; else nothing."""
    return "" if value.trials == len(rows) else f" (in {of_trials(value, rows)})"


def _marked(note: str) -> str:
    """A note with its two halves told apart: what theory says, how it came out."""
    text = html.escape(note)
    for words in ("Theory", "As built", "So it is"):
        text = text.replace(words, f"<b>{words}</b>", 1)
    return text
