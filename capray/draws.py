"""Latencies drawn ahead: many draws of one lane at once, by numpy, the same integers as one by one.

Decides: nothing; it is lanes.py's rule for one draw (SplitMix64, three draws an output, the tail's draw of its own), applied to a run of outputs.
A draw alone costs as much as the rest of a message's way through the network; in a block of some hundreds it costs a fifth of that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from capray.distributions import TAIL_BIN, Table
from capray.streams import BLOCK, Outputs, outputs

Integers = npt.NDArray[np.int64]

WIDE = 20 * BLOCK  # what is drawn ahead on all the lanes that leave a node is at most so many outputs: 100 nodes need no more memory each than 21
LEAST = 32  # outputs in a lane's first block; each one after it is longer

_1, _DRAW = np.uint64(1), 0x1FFFFF


class Drawer:
    """Draws from one table, for the lanes of a cluster of `nodes`."""

    def __init__(self, table: Table, nodes: int) -> None:
        self.table = table
        self.most = min(BLOCK, max(LEAST, WIDE // nodes))
        levels = np.array(table.levels[0], dtype=np.int64)
        self.low, self.step = levels[:-1], np.diff(levels)

    def block(self, state: int, floor: int, before: int) -> tuple[list[int], int]:
        """The latencies, microseconds and the last first, that the next outputs after `state` give on a lane with this floor, whose newest block
        held `before` latencies; and how many outputs that took."""
        z = outputs(state, min(self.most, max(LEAST, before)))
        times = self._thirds(z)
        bins = times >> 9
        times &= 0x1FF
        times *= self.step.take(bins)
        times >>= 9
        times += self.low.take(bins)
        tails = np.flatnonzero(bins >= TAIL_BIN).tolist()
        end = len(z)
        if tails:
            taken, end = self._tails(tails, z, times)
            kept = np.ones(len(z), dtype=bool)
            kept[taken] = False
            times = times.reshape(-1, 3)[:end][kept[:end]].ravel()
        times += floor
        if floor + self.table.least < 1:
            times = np.maximum(times, 1)
        return times[::-1].tolist(), end

    @staticmethod
    def _thirds(z: Outputs) -> Integers:
        """Each output's three draws of 21 bits, in their order."""
        bits = (z >> _1).view(np.int64)
        draws = np.empty((len(z), 3), dtype=np.int64)
        np.bitwise_and(bits, _DRAW, out=draws[:, 0])
        np.bitwise_and(bits >> 21, _DRAW, out=draws[:, 1])
        np.right_shift(bits, 42, out=draws[:, 2])
        return draws.ravel()

    def _tails(self, tails: list[int], z: Outputs, times: Integers) -> tuple[list[int], int]:
        """Fill in the draws beyond the quantile 63/64: each takes the output that follows those taken already.  Returns the outputs so taken, and how
        many outputs the block has: it ends before a draw whose tail would lie outside of it."""
        taken: list[int] = []
        source, following = -1, 0
        for draw in tails:
            output = draw // 3
            if output != source:
                if output < following:
                    continue  # itself taken for an earlier draw's tail
                source, following = output, output + 1
            if following >= len(z):
                return [one for one in taken if one < output], output
            times[draw] = self.table.tail(int(z[following]))
            taken.append(following)
            following += 1
        return taken, len(z)
