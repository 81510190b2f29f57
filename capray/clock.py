"""A node's clock: offset and drift against virtual time, in integers.

Decides: what a skewed clock shows, and how long a timer on it takes.  May not know: who looks at it.
"""

from __future__ import annotations

PPM = 1_000_000


def shown(t: int, offset_us: int, drift_ppm: int) -> int:
    """What the clock shows at virtual time `t`, microseconds."""
    return t + offset_us + t * drift_ppm // PPM


def true_delay(t: int, delay: int, drift_ppm: int) -> int:
    """How much virtual time passes from `t` until the clock has advanced by `delay`: never a microsecond less, or a replica that looks at its
    clock would find its deadline not yet come, and set the timer again for no time at all."""
    due = shown(t, 0, drift_ppm) + delay
    true = delay * PPM // (PPM + drift_ppm)
    while shown(t + true, 0, drift_ppm) < due:
        true += 1
    return true
