"""Why a shown trial was not linearizable: the smallest failing window, as a figure with its words in the hover and the text beneath.

Decides: how a checker's evidence stands on the page.  May not know: how it was found.
"""

from __future__ import annotations

import html
from typing import Any

from capray.checkers import evidence
from capray.checkers.models import model_named
from capray.checkers.zones import linearizable_register
from capray.figures.style import style
from capray.record import Record


def evidence_of(record: Record, title: str) -> tuple[Any, str] | None:
    """(figure, text) for a record whose history is not linearizable; None for one that is, or that cannot be decided."""
    verdict = linearizable_register(record.history)
    found = evidence.explain(record.history, model_named("register"), None, verdict)
    if found is None:
        return None
    figure = evidence.timeline(record.history, found)
    processes = len({text for trace in figure.data for text in trace.y})
    style(
        figure,
        "Why it was not linearizable: " + html.escape(title),
        html.escape(f"key {found.key}; " if found.key is not None else "")
        + f"the {len(found.operations)} operations that prove it, by process, from invocation to completion; dotted: by then it could not be linearized",
        190 + 44 * max(2, processes),
    )
    return figure.update_layout(margin={"t": 84, "b": 96}), evidence.text(record.history, found)
