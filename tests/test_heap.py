"""The event queue's heap: as it is written (and so compiled), and as plain Python runs it, it gives events back in their total order."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from capray import heap


@pytest.mark.parametrize("push, pop", [heap.AS_WRITTEN, (heap.push, heap.pop), (heap.AS_WRITTEN[0], heapq.heappop), (heapq.heappush, heap.AS_WRITTEN[1])])
def test_whatever_goes_in_comes_out_in_order_of_time_then_of_the_rest(push, pop):
    """Also where one half is heapq's: who looks at the queue from outside, as a fault does, may use either."""
    chance = Random(1)
    for size in (1, 2, 3, 17, 400):
        queue, there, count = [], [], 0
        for _ in range(4 * size):
            if not queue or chance.random() < 0.6:
                count += 1
                event = (chance.randrange(size) - size // 4, chance.randrange(-1, 3), chance.randrange(3), count, object())
                push(queue, event)
                there.append(event)
            else:
                there.sort()
                assert pop(queue) is there.pop(0)
        assert [pop(queue) for _ in range(len(queue))] == sorted(there)


def test_nothing_comes_out_of_an_empty_queue():
    with pytest.raises(IndexError):
        heap.pop([])
