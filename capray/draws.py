"""Latencies drawn ahead: many draws of one lane at once, by numpy, the same integers as one by one.

Decides: nothing; it is lanes.py's rule for one draw (SplitMix64, three draws an output, the tail's draw of its own), applied to a run of outputs.
A draw alone costs as much as the rest of a message's way through the network; in a block of some hundreds it costs a fifth of that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from capray.streams import BLOCK, Outputs, outputs
from capray.tables import TAIL_BIN, Table

Integers = npt.NDArray[np.int64]

WIDE = 20 * BLOCK  # what is drawn ahead on all the lanes that leave a node is at most so many outputs: 100 nodes need no more memory each than 21
LEAST = 8  # outputs of a lane at once

_1, _DRAW = np.uint64(1), 0x1FFFFF


class Drawer:
    """Draws from one table, for the lanes of a cluster of `nodes`."""

    def __init__(self, table: Table, nodes: int) -> None:
        self.table = table
        self.most = min(BLOCK, max(LEAST, WIDE // nodes))
        levels = np.array(table.levels[0], dtype=np.int64)
        self.low, self.step = levels[:-1], np.diff(levels)

    def blocks(self, lanes: list[tuple[int, int]], each: int) -> list[tuple[list[int], int]]:
        """For lanes of these (state, floor): the latencies, microseconds and the last first, that each one's next outputs give, about `each` of them; and
        how many outputs that took."""
        count = min(self.most, max(LEAST, each))
        z = outputs(np.array([[state] for state, _ in lanes], dtype=np.uint64), count)
        times = self._thirds(z)
        bins = times >> 9
        times &= 0x1FF
        times *= self.step.take(bins)
        times >>= 9
        times += self.low.take(bins)
        times += np.array([[floor] for _, floor in lanes])
        if min(floor for _, floor in lanes) + self.table.least < 1:
            np.maximum(times, 1, out=times)
        ends = self._tails(np.nonzero(bins >= TAIL_BIN), z.view(np.int64), rows := times.tolist(), lanes)
        return [(row[::-1], end) for row, end in zip(rows, ends)]

    @staticmethod
    def _thirds(z: Outputs) -> Integers:
        """Each output's three draws of 21 bits, in their order."""
        bits = (z >> _1).view(np.int64)
        draws = np.empty((*z.shape, 3), dtype=np.int64)
        np.bitwise_and(bits, _DRAW, out=draws[..., 0])
        np.bitwise_and(bits >> 21, _DRAW, out=draws[..., 1])
        np.right_shift(bits, 42, out=draws[..., 2])
        return draws.reshape(len(z), -1)

    def _tails(self, found: tuple[Integers, ...], z: Integers, rows: list[list[int]], lanes: list[tuple[int, int]]) -> list[int]:
        """Fill in the draws beyond the quantile 63/64 (their rows and columns are `found`).  Returns how many outputs each row has then used."""
        tails: list[list[int]] = [[] for _ in rows]
        for row, draw in zip(found[0].tolist(), found[1].tolist()):
            tails[row].append(draw)
        return [self._tails_of(draws, z[i], rows[i], lanes[i][1]) if draws else z.shape[1] for i, draws in enumerate(tails)]

    def _tails_of(self, draws: list[int], z: Integers, row: list[int], floor: int) -> int:
        """One lane's: each takes the output that follows those taken already, which gives no draws of its own.  A lane ends before the output with a draw whose
        tail would lie beyond its last."""
        taken: list[int] = []
        source, following, end = -1, 0, len(z)
        for draw in draws:
            output = draw // 3
            if output != source:
                if output < following:
                    continue  # itself taken for an earlier draw's tail
                source, following = output, output + 1
            if following >= end:
                end = output
                break
            row[draw] = max(1, floor + self.table.tail(int(z[following])))
            taken.append(following)
            following += 1
        del row[3 * end:]
        for output in reversed(taken):
            del row[3 * output:3 * output + 3]
        return end
