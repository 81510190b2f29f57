"""The table: a mutant, a schedule, what the sound policy keeps there and the mutant does not, and seeds that show it.

`keeps` is a column of the measurement that `capray run --json` prints, with what it is for the sound policy; or what the history shows that
`capray run --history` writes: `sequential` (`capray check --consistency sequential`), `final_reads_alike` (in the end every node answers a key alike),
`siblings_final` (the longest list that a last read finds), `set_wrong_final` (how many elements a last read misses that nobody removed, or finds though
their remove was answered: a set's client removes what it has read, and no element is added twice).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capray.checkers import CHECKERS, DEFAULT_BUDGET, MODELS
from capray.measures.inconsistency import verdict
from capray.metrics import measure
from capray.record import Operation, Record
from capray.scenario import read_toml

SCHEDULES = Path(__file__).parent / "schedules"
SOUND = {"write_all": "write-all", "cassandra_paxos": "cassandra"}  # where a policy's name is no module's


class Bug(NamedTuple):
    """One row.  Each of `seeds` exposes the mutant; the sound policy keeps what it keeps on every seed."""

    mutant: str  # module:class in this package
    schedule: str  # schedules/<schedule>.toml, written for the sound policy
    keeps: str
    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = True  # False: tried with CAPRAY_FULL=1 only

    @property
    def policy(self) -> str:
        """The sound policy."""
        module = self.mutant.partition(":")[0]
        return SOUND.get(module, module)

    def scenario(self, broken: bool) -> dict[str, Any]:
        """The schedule as read from its file, for the mutant or the sound policy."""
        raw = read_toml(SCHEDULES / f"{self.schedule}.toml")
        return {**raw, "policy": f"broken.{self.mutant}"} if broken else raw


LINEARIZABLE = "linearizable == valid"
NOTHING_LOST = "lost_writes == 0"
REPLICAS_AGREE = "divergence_final == 0"
ANSWERS_AGREE = "final_reads_alike == true"
FRESH_IN_THE_END = "stale_reads_final == 0"
SEQUENTIAL = "sequential == valid"
SETS_RIGHT = "set_wrong_final == 0"

BUGS = (
    Bug("abd:QuorumsApart", "abd_cut", LINEARIZABLE),
    Bug("abd:ReadsWithoutWriteBack", "abd_slow_links", LINEARIZABLE, (1, 3)),
    Bug("abd:TagFromMemory", "abd_slow_links", LINEARIZABLE, (0, 2, 3)),
    Bug("abd:StoresInMemory", "abd_restarts", LINEARIZABLE, (0, 1, 3)),
    Bug("rdbms:AnswersBeforeTheLog", "rdbms_power_loss", LINEARIZABLE),
    Bug("rdbms:ReadsUncommitted", "rdbms_power_loss", LINEARIZABLE, (0, 2)),
    Bug("rdbms:RefusesTheUnknown", "rdbms_restarts", LINEARIZABLE),
    Bug("rdbms:CachesReads", "rdbms_restarts", "stale_reads == 0"),
    Bug("write_all:NaiveWriteAll", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:LostVoteIsYes", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:CommitsOnFirstVote", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:ForgetsItsVote", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:GuessesAbort", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:ReadsThroughLocks", "write_all_cuts", LINEARIZABLE),
    Bug("write_all:OkWhenDecided", "write_all_cuts", "monotonic_reads_violations == 0"),
    Bug("etcd:VoteForgotten", "etcd_two_leaders", LINEARIZABLE, (1, 3, 4)),
    Bug("etcd:LogNotCompared", "etcd_laggard", LINEARIZABLE, (1, 2, 3)),
    Bug("etcd:TruncationForgotten", "etcd_leader_cut", REPLICAS_AGREE),
    Bug("etcd:UnsafeNoFsync", "etcd_power_loss", LINEARIZABLE),
    Bug("etcd:ReadsWithoutQuorum", "etcd_leader_stays", "stale_reads == 0", (0, 6)),
    Bug("etcd:CommitsOldTerms", "etcd_figure_8", LINEARIZABLE, (1, 2, 3)),
    Bug("etcd:LeaseTooLong", "etcd_leader_stays", "stale_reads == 0"),
    Bug("etcd:ReadsBeforeOwnEntry", "etcd_figure_8", LINEARIZABLE, (1, 5, 6), quick=False),
    Bug("etcd:ReadsBeforeApplied", "etcd_catching_up", LINEARIZABLE, (0, 2, 5)),
    Bug("etcd:CommitsWhatItHas", "etcd_leader_stays", REPLICAS_AGREE),
    Bug("etcd:AnswersWhenAppended", "etcd_leader_cut", NOTHING_LOST, quick=False),
    Bug("etcd:LeadsAheadOfItsDisk", "etcd_slow_disk", LINEARIZABLE, (1, 3)),
    Bug("etcd:SendsBeforeSaving", "etcd_slow_disk", LINEARIZABLE, (5, 8, 10), quick=False),
    Bug("etcd:ProposesAgain", "etcd_snapshots", LINEARIZABLE, (0, 3, 5), quick=False),
    Bug("etcd:SnapshotWithoutStore", "etcd_snapshots", LINEARIZABLE),
    Bug("etcd:SnapshotUnsaved", "etcd_snapshots", REPLICAS_AGREE),
    Bug("etcd:SnapshotAhead", "etcd_snapshots", REPLICAS_AGREE, (1, 2, 3)),
    Bug("etcd:HearsOldTerms", "etcd_short_cuts", REPLICAS_AGREE, quick=False),
    Bug("etcd:CountsOldAnswers", "etcd_old_answers", "stale_reads == 0", quick=False),
    Bug("zookeeper:HalfIsEnough", "zookeeper_halves", "sequential == valid"),
    Bug("zookeeper:AckBeforeDisk", "zookeeper_power_loss", LINEARIZABLE),
    Bug("zookeeper:HistoryIgnored", "zookeeper_short_history", LINEARIZABLE),
    Bug("zookeeper:TruncationForgotten", "zookeeper_leader_cut", REPLICAS_AGREE),
    Bug("zookeeper:EpochIgnored", "zookeeper_old_epoch", LINEARIZABLE),
    Bug("zookeeper:CommitsAlone", "zookeeper_leader_cut", SEQUENTIAL),
    Bug("zookeeper:NeverStepsDown", "zookeeper_leader_cut", "stale_reads <= 5"),
    Bug("zookeeper:NeverStops", "zookeeper_follower_cut", "availability_during_minority_read <= 0.6"),
    Bug("zookeeper:EpochsForgotten", "zookeeper_two_restart", SEQUENTIAL),
    Bug("zookeeper:ServesTooSoon", "zookeeper_elected_again", SEQUENTIAL, (2, 4, 5), quick=False),
    Bug("cassandra:QuorumOfHalf", "cassandra_quorum_cut", LINEARIZABLE),
    Bug("cassandra:RepairsNothing", "cassandra_quorum_cut", LINEARIZABLE),
    Bug("cassandra:TrustsTheFirstRow", "cassandra_quorum_cut", LINEARIZABLE),
    Bug("cassandra:ForgetsCommitLog", "cassandra_two_restarts", LINEARIZABLE, (0, 3, 5)),
    Bug("cassandra:DropsHints", "cassandra_cut_before_rest", REPLICAS_AGREE),
    Bug("cassandra:LastArrivalWins", "cassandra_cut_before_rest", FRESH_IN_THE_END),
    Bug("cassandra:DeletesInPlace", "cassandra_deletes", FRESH_IN_THE_END),
    Bug("cassandra:GraceForgotten", "cassandra_deletes", FRESH_IN_THE_END),
    Bug("cassandra:RepairsLiveRows", "cassandra_deletes", REPLICAS_AGREE),
    Bug("cassandra:RepairsAfterTheAnswer", "cassandra_slow_writes", LINEARIZABLE, (1, 3, 5)),
    Bug("cassandra:TombstonesUnrepaired", "cassandra_quorum_deletes", LINEARIZABLE, (0, 7), quick=False),
    Bug("cassandra:HintsCountAsReplicas", "cassandra_down_counts_not", LINEARIZABLE),
    Bug("cassandra:LevelsOverAllCentres", "cassandra_two_centres", "stale_reads == 0"),
    Bug("cassandra:HintsStampedAnew", "cassandra_three_cuts", FRESH_IN_THE_END, quick=False),
    Bug("cassandra:PartialFilesDropped", "cassandra_three_cuts", REPLICAS_AGREE, quick=False),
    Bug("cassandra:DeletesUnhinted", "cassandra_three_cuts", REPLICAS_AGREE, quick=False),
    Bug("cassandra:HintsUnlogged", "cassandra_hints_restart", REPLICAS_AGREE, quick=False),
    Bug("cassandra_paxos:QuorumOfOne", "cassandra_serial", LINEARIZABLE),
    Bug("cassandra_paxos:LeftoversIgnored", "cassandra_serial", LINEARIZABLE, (9, 10, 17)),
    Bug("cassandra_paxos:ReadsWithoutBallot", "cassandra_serial", LINEARIZABLE, (1, 2, 5)),
    Bug("cassandra_paxos:PromisesForgotten", "cassandra_serial_restarts", LINEARIZABLE, (0, 2, 3)),
    Bug("cassandra_paxos:PromisesBroken", "cassandra_serial_contended", LINEARIZABLE, (0, 1, 2)),
    Bug("dynamo:DropsHints", "dynamo_one_down", REPLICAS_AGREE),
    Bug("dynamo:LastArrivalWins", "dynamo_cut", FRESH_IN_THE_END),
    Bug("dynamo:NoContext", "dynamo_cut", "siblings_final <= 3"),
    Bug("dynamo:ForgetsItsDisk", "dynamo_restarts", LINEARIZABLE),
    Bug("dynamo:SyncSkipsARange", "dynamo_trees", REPLICAS_AGREE, quick=False),
    Bug("dynamo:CountsItselfTwice", "dynamo_strict", "stale_reads == 0", quick=False),
    Bug("dynamo:SumsItsCounters", "dynamo_strict", FRESH_IN_THE_END, (0,)),
    Bug("dynamo:HintsForgottenWhenSent", "dynamo_handing_over", REPLICAS_AGREE),
    Bug("dynamo:HintsInMemory", "dynamo_hints_restart", REPLICAS_AGREE),
    Bug("dynamo:CountersForgotten", "dynamo_counters", REPLICAS_AGREE, (1, 6, 7), quick=False),
    Bug("dynamo:HintsUnread", "dynamo_stand_ins", "read_your_writes_violations <= 10", quick=False),
    Bug("redis:MinorityElects", "redis_minority_cut", NOTHING_LOST),
    Bug("redis:ReadsAtItsReplica", "redis_followers_cut", "stale_reads == 0"),
    Bug("redis:NeverConverts", "redis_primary_cut", REPLICAS_AGREE),
    Bug("redis:BranchKept", "redis_primary_cut", REPLICAS_AGREE),
    Bug("redis:LagIgnored", "redis_long_primary_cut", "lost_writes <= 48"),  # 2 nodes' writes, 4 a second each, for max-lag + 1 s, twice that to be safe
    Bug("redis:PromotesTheStalest", "redis_stale_replica", "lost_writes <= 12", (0, 1, 3), quick=False),
    Bug("redis:QuorumNotAsked", "redis_ring", NOTHING_LOST),
    Bug("redis:SecondIdWithoutEnd", "redis_primary_cut", REPLICAS_AGREE, quick=False),
    Bug("redis:FullSyncMerges", "redis_primary_cut", REPLICAS_AGREE, (0, 3), quick=False),
    Bug("redis:VotesTwice", "redis_two_candidates", REPLICAS_AGREE, (1, 4, 7)),
    Bug("redis:AppendsWithoutFsync", "redis_power_loss", NOTHING_LOST),
    Bug("postgres:AnswersBeforeTheStandby", "postgres_primary_lost", NOTHING_LOST),
    Bug("postgres:StandbyAnswersBeforeItsDisk", "postgres_promotion", NOTHING_LOST),
    Bug("postgres:ForgetsToTruncate", "postgres_primary_lost", REPLICAS_AGREE),
    Bug("postgres:ForgetsItsPromotion", "postgres_promoted_restarts", REPLICAS_AGREE, (0, 1)),
    Bug("crdt:AcknowledgesUnread", "crdt_set_cut", ANSWERS_AGREE),
    Bug("crdt:ForgetsItsDisk", "crdt_set_restarts", ANSWERS_AGREE, (2, 3, 6)),
    Bug("crdt:RemovesUntagged", "crdt_set_removes", SETS_RIGHT),
    Bug("crdt:RemovesWithoutContext", "crdt_set_removes", SETS_RIGHT),
    Bug("crdt:RemovesUnseen", "crdt_set_removes", SETS_RIGHT),
    Bug("crdt:KeepsItsOwn", "crdt_mv_cut", REPLICAS_AGREE),
    Bug("crdt:TrustsItsClock", "crdt_skew", NOTHING_LOST),
    Bug("crdt:TiesStay", "crdt_skew", REPLICAS_AGREE),
    Bug("crdt:AddsUp", "crdt_counter_cut", ANSWERS_AGREE),
    Bug("crdt:AcknowledgesTheNewest", "crdt_two_replicas", SETS_RIGHT),
    Bug("crdt:LivesConfused", "crdt_two_replicas", SETS_RIGHT, (0, 1, 3)),
    Bug("crdt:ContextForgotten", "crdt_two_replicas", SETS_RIGHT),
    Bug("crdt:AcknowledgesBeforeItsDisk", "crdt_power_loss", ANSWERS_AGREE),
    Bug("crdt:TellsOneKey", "crdt_counter_state", ANSWERS_AGREE),
    Bug("crdt:SubtractsOnce", "crdt_counter_state", ANSWERS_AGREE, (0, 1, 2)),
    Bug("crdt:OneSiblingStays", "crdt_mv_cut", REPLICAS_AGREE),
)


def broken_claims(record: Record, claims: Sequence[str]) -> list[str]:
    """Those of `claims` (rows' `keeps`) that a trial did not keep."""
    row: dict[str, Any] = {}
    if not all(claim.split()[0] in FROM_HISTORY for claim in claims):
        row = measure(record)
    return [claim for claim in claims if not _holds(record, row, *claim.split())]


def _holds(record: Record, row: dict[str, Any], column: str, sign: str, value: str) -> bool:
    found = FROM_HISTORY[column](record.history) if column in FROM_HISTORY else row[column]
    assert found is not None, f"{column} was not measured"
    if sign == "<=":
        return bool(found <= float(value))
    return bool(found == (value if isinstance(found, str) else json.loads(value)))


def _final_reads(history: Sequence[Operation]) -> dict[str | None, list[Any]]:
    found: dict[str | None, list[Any]] = defaultdict(list)
    for operation in history:
        if operation.final:
            found[operation.key].append(operation.result if operation.type == "ok" else operation.error)
    return found


def _alike(history: Sequence[Operation]) -> bool:
    return all(answer == answers[0] for answers in _final_reads(history).values() for answer in answers)


def _siblings(history: Sequence[Operation]) -> int:
    return max(len(answer) if isinstance(answer, list) else 1 for answers in _final_reads(history).values() for answer in answers)


def _set_wrong(history: Sequence[Operation]) -> int:
    asked = {f: {(op.key, op.value) for op in history if op.f == f and op.type != "fail"} for f in ("write", "remove")}
    added = {(op.key, op.value) for op in history if op.f == "write" and op.type == "ok"}
    removed = {(op.key, op.value) for op in history if op.f == "remove" and op.type == "ok"}
    last = [(op.key, {(op.key, one) for one in op.result or ()}) for op in history if op.final and op.type == "ok"]
    missed = sum(len({one for one in added - asked["remove"] if one[0] == key} - found) for key, found in last)
    return missed + sum(len(found & removed) + len(found - asked["write"]) for _, found in last)


FROM_HISTORY: dict[str, Callable[[Sequence[Operation]], Any]] = {
    "linearizable": verdict,
    "final_reads_alike": _alike,
    "siblings_final": _siblings,
    "set_wrong_final": _set_wrong,
    "sequential": lambda history: CHECKERS["sequential"](history, MODELS["register"], None, DEFAULT_BUDGET).status,
}
