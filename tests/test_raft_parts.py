"""What Raft counts with: quorums against their definition, logs against figure 7 of the paper, a follower's progress against etcd-io/raft's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.policies.etcd.raft_log import COMPACTED, Log
from capray.policies.etcd.raft_messages import NONE, Entry
from capray.policies.etcd.raft_progress import PROBE, REPLICATE, SNAPSHOT, Progress
from capray.policies.etcd.raft_quorum import LOST, PENDING, WON, committed, majority, tally

LEADER_LOG = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


def entries(*terms: int) -> tuple[Entry, ...]:
    return tuple(Entry(term, NONE, 0, "", None) for term in terms)


def log_of(*terms: int) -> Log:
    log = Log()
    if terms:
        log.append(entries(*terms))
    return log


def terms_of(log: Log) -> tuple[int, ...]:
    return tuple(entry.term for entry in log.entries)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_committed_is_the_largest_index_that_a_majority_holds(matches: list[int]) -> None:
    assert committed(matches) == max(i for i in range(10) if 2 * sum(match >= i for match in matches) > len(matches))


@given(st.integers(1, 9), st.data())
def test_a_tally_says_what_the_missing_votes_can_still_do(voters: int, data: st.DataObject) -> None:
    granted = data.draw(st.integers(0, voters))
    refused = data.draw(st.integers(0, voters - granted))
    missing = voters - granted - refused
    assert tally(granted, refused, voters) == (WON if 2 * granted > voters else PENDING if 2 * (granted + missing) > voters else LOST)
    assert 2 * majority(voters) > voters >= 2 * (majority(voters) - 1)


FIGURE_7 = {"a": (1, 1, 1, 4, 4, 5, 5, 6, 6), "b": (1, 1, 1, 4), "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6), "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
            "e": (1, 1, 1, 4, 4, 4, 4), "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3)}


@pytest.mark.parametrize("name", FIGURE_7)
def test_a_leader_brings_every_follower_of_figure_7_to_its_own_log(name: str) -> None:
    """ATC 2014, 5.3: "To bring a follower's log into consistency with its own, the leader must find the latest log entry where the two logs agree, delete any
    entries in the follower's log after that point, and send the follower all of the leader's entries after that point." """
    leader, follower = log_of(*LEADER_LOG, 8), log_of(*FIGURE_7[name])
    at, probes = leader.last - 1, 1
    while not follower.matches(at, leader.term(at)):
        hint = follower.find_by_term(at, leader.term(at))
        at, probes = leader.find_by_term(hint, follower.term(hint)), probes + 1
    follower.merge(at, leader.after(at, 100))
    assert terms_of(follower) == (*LEADER_LOG, 8)
    assert probes <= 3, "a hint skips whole terms"


def test_an_append_that_comes_late_cuts_nothing_off() -> None:
    """Figure 2: "If an existing entry conflicts with a new one (same index but different terms), delete the
    existing entry and all that follow it": only then."""
    log = log_of(1, 1, 2, 2)
    assert log.merge(1, entries(1, 2)) == 0
    assert terms_of(log) == (1, 1, 2, 2)
    assert log.merge(1, entries(1, 3)) == 1
    assert terms_of(log) == (1, 1, 3) and (log.last, log.last_term) == (3, 3)


@given(st.lists(st.integers(1, 4), max_size=6).map(sorted), st.lists(st.integers(1, 4), max_size=6).map(sorted))
def test_up_to_date_compares_the_last_terms_then_the_lengths(mine: list[int], theirs: list[int]) -> None:
    """5.4.1: "If the logs have last entries with different terms, then the log with the later term is more up-to-date.  If the logs end with the same term,
    then whichever log is longer is more up-to-date." """
    ends = [(log[-1] if log else 0, len(log)) for log in (theirs, mine)]
    assert log_of(*mine).up_to_date(len(theirs), theirs[-1] if theirs else 0) == (ends[0] >= ends[1])


def test_compaction_keeps_the_term_of_the_last_entry_it_drops() -> None:
    """Section 7, of the last included index and term: "These are preserved to support the AppendEntries consistency
    check for the first log entry following the snapshot." """
    log = log_of(1, 1, 2, 3)
    log.compact(3)
    assert log.matches(3, 2) and log.term(2) == COMPACTED and terms_of(log) == (3,)
    log.truncate(3)
    assert (log.last, log.last_term) == (3, 2)
    log.append(entries(4))
    assert log.entry(4).term == 4 and log.find_by_term(4, 1) == 0


def test_progress_as_etcd_s_flow_control_describes_it() -> None:
    """etcd-io/raft, design.md: "When the progress of a follower is in probe state, leader sends at most one replication message
    per heartbeat interval"; "in replicate state, leader sends replication message, then optimistically increases next to the
    latest entry sent"; "in snapshot state, leader stops sending any replication message.\""""
    progress = Progress(11, limit=2)
    assert progress.state == PROBE and not progress.paused()
    progress.sent(0)
    assert not progress.paused(), "raft.go, maybeSendAppend: one without entries is no replication message"
    progress.sent(3)
    assert progress.paused() and progress.next == 11
    assert progress.refused(10, 4) and progress.next == 5 and not progress.paused()
    assert not progress.refused(10, 2), "a stale refusal changes nothing"
    assert progress.update(7)
    progress.become_replicate()
    for expected in (10, 12):
        progress.sent(expected - progress.next + 1)
    assert progress.state == REPLICATE and progress.next == 13 and progress.paused()
    progress.arrived(10)
    assert not progress.paused()
    progress.become_snapshot(20)
    assert progress.state == SNAPSHOT and progress.paused()
    progress.snapshot_failed()
    assert progress.state == PROBE and progress.paused() and progress.next == 8
