"""Why a shown trial was not linearizable: the smallest failing window, as a figure with its words in the hover and the text beneath.

Decides: how a checker's evidence stands on the page.  May not know: how it was found.
"""

from __future__ import annotations

from typing import Any

from capray.checkers import evidence
from capray.checkers.models import model_named
from capray.checkers.zones import linearizable_register
from capray.record import Record

HEIGHT = 420


def evidence_of(record: Record, title: str) -> tuple[Any, str] | None:
    """(figure, text) for a record whose history is not linearizable; None for one that is, or that cannot be decided."""
    verdict = linearizable_register(record.history)
    found = evidence.explain(record.history, model_named("register"), None, verdict)
    if found is None:
        return None
    figure = evidence.timeline(record.history, found, f"Why not linearizable: {title}")
    figure.update_layout(height=HEIGHT, title_font_size=14, legend={"orientation": "h", "y": -0.2})
    return figure, evidence.text(record.history, found)
