"""How fast the checkers are, for `capray bench`: growth of zones and search with the length of the history.

Decides: what is timed.  May not know: how figures are printed.  Processor time, the best of three, histories made from seeds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from capray.checkers.generate import register_history
from capray.checkers.linearizable import linearizable
from capray.checkers.models import MODELS
from capray.checkers.zones import linearizable_register
from capray.record import Operation


def bench(most_ops: int = 1_000_000) -> list[dict[str, Any]]:
    """One row a figure: name, value, unit, baseline, baseline_value, ratio.

    Microseconds an operation at growing lengths; the baseline is the shortest length of the same row family, so a ratio near 1 is linear growth.
    """
    rows: list[dict[str, Any]] = []
    _grow(rows, "check_zones_one_key", [n for n in (1_000, 10_000, 100_000) if n <= most_ops], register_history, linearizable_register)
    hundred = [n for n in (10_000, 100_000, 1_000_000) if n <= most_ops]
    _grow(rows, "check_zones_100_keys", hundred, lambda n: register_history(n, keys=100), linearizable_register)
    some = [n for n in (1_000, 4_000, 16_000) if n <= most_ops]
    _grow(rows, "check_search_one_key", some, _rewritten, lambda ops: linearizable(ops, MODELS["register"]))
    return rows


def _rewritten(count: int) -> list[Operation]:
    """A linearizable history whose values repeat, so that zones do not apply."""
    ops = register_history(count)
    for op in ops:
        if op.f == "write":
            op.value %= 50
        elif op.result is not None:
            op.result %= 50
    return ops


def _grow(
    rows: list[dict[str, Any]], name: str, lengths: Sequence[int], make: Callable[[int], list[Operation]], check: Callable[[list[Operation]], Any],
) -> None:
    base = 0.0
    for count in lengths:
        ops = make(count)
        best = min(_seconds(check, ops) for _ in range(3))
        each = best * 1e6 / count
        base = base or each
        rows.append({
            "name": f"{name}_{count}", "value": round(each, 3), "unit": "us/operation", "baseline": f"{name}_{lengths[0]}",
            "baseline_value": round(base, 3), "ratio": round(each / base, 3),
        })


def _seconds(check: Callable[[list[Operation]], Any], ops: list[Operation]) -> float:
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        check(ops)
        return time.process_time() - began
    finally:
        gc.enable()
