"""What a history means: a table of consistencies, one family a file.  Any history, ours or foreign; a verdict with evidence.

May not know: scenarios, policies, engines, Ray.  `CHECKERS` maps the name of a consistency to a function (operations, model, initial value,
budget) -> Verdict; a new one is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from capray.checkers.causal import CAUSAL, causal
from capray.checkers.linearizable import DEFAULT_BUDGET, linearizable
from capray.checkers.models import MODELS, Model, model_named
from capray.checkers.sequential import sequential
from capray.checkers.sessions import GUARANTEES, sessions_verdicts
from capray.checkers.verdict import Evidence, Verdict
from capray.record import Operation

Checker = Callable[[Sequence[Operation], Model, Any, int], Verdict]


def _causal(name: str) -> Checker:
    return lambda ops, model, initial, budget: causal(ops, initial, name)


def _session(name: str) -> Checker:
    return lambda ops, model, initial, budget: next(v for v in sessions_verdicts(ops, initial) if v.consistency == name)


CHECKERS: Mapping[str, Checker] = {
    "linearizable": linearizable,
    "sequential": sequential,
    **{name: _causal(name) for name in CAUSAL},
    **{name: _session(name) for name in (guarantee.replace("_", "-") for guarantee in GUARANTEES)},
}

__all__ = ["CHECKERS", "DEFAULT_BUDGET", "MODELS", "Checker", "Evidence", "Model", "Verdict", "model_named"]
