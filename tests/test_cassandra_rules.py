"""Cassandra's rules on which no other test failed when they were broken: which leftover Paxos finishes, who is repaired, late answers, closed files of hints."""

from __future__ import annotations

from typing import Any

import pytest
from test_cassandra_hints import Node
from test_cassandra_paxos import S, cluster

from capray.policies.cassandra.cells import ABSENT
from capray.policies.cassandra.messages import ReadRepair
from capray.policies.cassandra.paxos import NONE, NOTHING, Ballot, Promise, Propose
from capray.policies.cassandra.reads import REPAIRS, PendingRead
from capray.policies.cassandra.repair import ValidationResponse
from capray.policies.cassandra.replica import Cassandra
from capray.policies.ring import EVERY
from capray.replica import REPLY, SEND, Request


def sent(replica: Cassandra, kind: type) -> list[tuple[int, Any]]:
    """What it has sent of this kind since it was last asked."""
    found = [(effect[1], effect[2]) for effect in replica.effects if effect[0] == SEND and isinstance(effect[2], kind)]
    replica.effects.clear()
    return found


def preparing(value: Any = "new") -> tuple[Cassandra, Any]:
    """Node 0, which has asked k0's replicas 0, 1 and 2 to promise, and its transaction."""
    replica = cluster().replica(0)
    replica.paxos.begin(1, "k0", value, False)
    replica.effects.clear()
    return replica, next(iter(replica.paxos.open.values()))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("committed", "finishes"), [(NONE, "of 200"), ((150, 1), "of 200"), ((200, 2), None)])
def test_of_what_was_left_accepted_the_newest_is_finished_unless_it_is_committed(turned: bool, committed: Ballot, finishes: str | None) -> None:
    """StorageProxy.beginAndRepairPaxos: "If we have an in-progress ballot greater than the MRC we know, then it's an in-progress round that needs to be
    completed, so do it.": of several the newest (PrepareCallback.mostRecentInProgressCommit); Lamport 2001, phase 2a: the highest-numbered."""
    replica, t = preparing()
    left = [((100, 1), (100, "of 100", 0), NONE), ((200, 2), (200, "of 200", 0), committed)]
    for src, (accepted, cell, newest) in enumerate(reversed(left) if turned else left, 1):
        told = NOTHING if newest == NONE else (newest[0], "committed", 0)
        replica.on_message(src, Promise(t.id, True, t.ballot, accepted, cell, newest, told, replica.now))
    assert {message.cell[1] for _, message in sent(replica, Propose)} == (set() if finishes is None else {finishes})


def test_a_conditional_delete_leaves_a_tombstone_with_its_time_and_a_write_none() -> None:
    """documentation, Tombstones: a delete carries its local deletion time, from which gc_grace_seconds counts; a live cell has none."""
    for value in (None, "v"):
        replica, t = preparing(value)
        for src in (1, 2):
            replica.on_message(src, Promise(t.id, True, t.ballot, NONE, NOTHING, NONE, NOTHING, replica.now))
        replica.effects.clear()
        replica.paxos.on_row(t.id, ABSENT)
        assert {message.cell for _, message in sent(replica, Propose)} == {(t.ballot[0], value, replica.now if value is None else 0)}


def test_only_those_that_returned_an_older_row_are_repaired() -> None:
    """DataResolver: a repair mutation is the difference from what a source returned: none for one that is up to date."""
    link = cluster(read_consistency="ALL", write_consistency="ALL")
    link.wait(link.request(0, "write", "k0", "v"))
    link.replica(1).cells["k0"] = ABSENT
    before = len(link.log)
    assert link.wait(link.request(0, "read", "k0")).result == "v" and link.values("k0")[:3] == ["v"] * 3
    assert [line.split()[1:4] for line in link.log[before:] if " ReadRepair(" in line] == [["0", "->", "1"]]


def test_a_read_is_answered_when_all_the_repairs_that_its_level_needs_are_acknowledged() -> None:
    """read_repair.adoc, Blocking: "the read will block on writes sent to other replicas until the CL is reached by the writes" (BlockingPartitionRepair)."""
    replica = cluster().replica(0)
    read = PendingRead(7, 1, 0, "k0", replica.now, False, ((EVERY, 3),), [0, 1, 2])
    read.stage, read.missing, read.best = REPAIRS, [[EVERY, 2]], (5, "v", 0)
    replica.reads.pending[7] = read
    replica.effects.clear()
    replica.reads.on_repaired(7)
    assert not [effect for effect in replica.effects if effect[0] == REPLY]
    replica.reads.on_repaired(7)
    assert [effect[1:4] for effect in replica.effects if effect[0] == REPLY] == [(1, "ok", "v")] and not sent(replica, ReadRepair)


def test_a_tree_of_an_earlier_repair_is_not_compared() -> None:
    """RepairJob: a validation belongs to its session: what a node held then says nothing now."""
    replica = cluster().replica(0)
    replica.repair.begin()
    replica.repair.begin()
    replica.repair.on_tree(1, ValidationResponse(replica.repair.session - 1, (1, 2, 3)))
    assert not replica.repair.trees
    replica.repair.on_tree(1, ValidationResponse(replica.repair.session, (1, 2, 3)))
    replica.repair.on_tree(1, ValidationResponse(replica.repair.session, (4, 5, 6)))
    assert replica.repair.trees == {1: (1, 2, 3)}


def test_a_closed_file_of_hints_is_sent_while_another_is_being_written() -> None:
    """HintsDispatchTrigger: every file but the one that is written to."""
    node = Node()
    node.now = S
    node.write()
    node.until(16 * S)  # the trigger at 15 s has closed the file
    node.write(2)
    node.until(24 * S)  # and the flush at 20 s has begun the next
    assert not node.sent and len(node.hints.stores[1].files) == 2
    node.until(25 * S)
    assert [message.key for message in node.sent] == ["k0"]


def test_before_anything_is_known_of_its_peers_a_write_waits_for_half_its_time_out() -> None:
    """ColumnFamilyStore: additionalWriteLatencyMicros begins as DatabaseDescriptor.getWriteRpcTimeout / 2."""
    replica = cluster(write_request_timeout_us=3 * S).replica(0)
    assert replica.writes.percentile.threshold(0) == 3 * S // 2


@pytest.mark.parametrize("f", ["write", "read"])
def test_the_latency_of_a_request_that_is_refused_counts(f: str) -> None:
    """StorageProxy.mutate and readRegular: coordinatorWriteLatency and coordinatorReadLatency are updated in `finally`, also where it was Unavailable."""
    replica = cluster(write_consistency="ALL", read_consistency="ALL").replica(0)
    replica.gossiper.alive[1] = False
    replica.on_request(Request(1, f, "k0", "v", 0, S))
    assert (replica.reads if f == "read" else replica.writes).percentile.total == 1
