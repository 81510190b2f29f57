"""Write-all by two-phase commit: its sources sentence by sentence, and linearizable under random cuts and crashes."""

from __future__ import annotations

import os
from typing import Any

import pytest
from broken.write_all import NaiveWriteAll

from capray.checkers.zones import linearizable_register
from capray.errors import InputError
from capray.faults import Fault
from capray.policies.write_all.replica import WriteAll, WriteAllSettings
from capray.policies.write_all.two_phase import Abort, Commit, Decision, Prepare
from capray.replica import Replica
from capray.scenario import Scenario
from capray.streams import Stream
from capray.testing import FakeLink
from capray.trial import Trial

S = 1_000_000
FULL = bool(os.environ.get("CAPRAY_FULL"))


def lines(link: FakeLink, *words: str) -> list[str]:
    """The transcript's lines that hold all these words."""
    return [line for line in link.log if all(word in line for word in words)]


def outcomes(link: FakeLink, *requests: int) -> list[str]:
    return [link.replies[each].outcome if each in link.replies else "waits" for each in requests]


def test_a_commit_as_a_transcript() -> None:
    """Gray 1978, 5.8.3.3: prepare and vote, then commit and acknowledgement; each is on disk before it is said."""
    link = FakeLink(WriteAll, nodes=3)
    link.wait(link.request(0, "write", "x", "a"))
    assert link.transcript() == (
        "    0.000ms client -> 0 #1 write(x='a')\n"
        "    0.250ms 0 -> 1 Prepare(tid=(0, 1, 1), age=(0, 0, 1), key='x', value='a')\n"
        "    0.250ms 0 -> 2 Prepare(tid=(0, 1, 1), age=(0, 0, 1), key='x', value='a')\n"
        "    0.600ms 1 -> 0 Vote(tid=(0, 1, 1), yes=True, version=0)\n"
        "    0.600ms 2 -> 0 Vote(tid=(0, 1, 1), yes=True, version=0)\n"
        "    0.700ms 0 -> 0 Decision(tid=(0, 1, 1), key='x', value='a', version=1)\n"
        "    0.950ms 0 -> 1 Commit(tid=(0, 1, 1), key='x', version=1)\n"
        "    0.950ms 0 -> 2 Commit(tid=(0, 1, 1), key='x', version=1)\n"
        "    1.300ms 1 -> 0 Confirm(tid=(0, 1, 1))\n"
        "    1.300ms 2 -> 0 Confirm(tid=(0, 1, 1))\n"
        "    1.300ms 0 -> client #1 ok\n"
    )
    assert link.values("x") == ["a", "a", "a"]


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_reads_are_local_and_see_the_last_write_at_any_cluster_size(nodes: int) -> None:
    """Read one, write all (BHG 8.1): whoever is read has the last write, for it waited for all."""
    link = FakeLink(WriteAll, nodes)
    assert link.wait(link.request(nodes - 1, "read", "x")).result is None
    for value in "ab":
        link.wait(link.request(0, "write", "x", value))
    read = link.request(nodes - 1, "read", "x")
    assert link.replies[read].result == "b" and link.replies[read].at == link.now, "no message was needed"
    assert [(each.value, each.order, each.superseded) for each in link.versions if each.node == 0] == [("a", (1,), ()), ("b", (2,), ("a",))]


def test_a_read_of_a_key_with_a_prepared_write_waits_and_others_do_not() -> None:
    """BHG 7.1, strictness: nothing is read that a transaction has written which has not committed; and its old value may be overwritten already elsewhere."""
    link = FakeLink(WriteAll, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    link.request(0, "write", "x", "b")
    link.run_for(300)
    waits, other = link.request(1, "read", "x"), link.request(1, "read", "y")
    assert outcomes(link, waits, other) == ["waits", "ok"]
    assert link.wait(waits).result == "b"


def test_under_a_cut_writes_are_refused_everywhere_and_reads_served_everywhere() -> None:
    """The thought experiment's C choice: "not prepared everywhere is aborted and refused"."""
    link = FakeLink(WriteAll, nodes=5)
    link.wait(link.request(0, "write", "x", "a"))
    link.cut([[0, 1], [2, 3, 4]])
    writes = [link.request(node, "write", "x", f"refused by {node}") for node in range(5)]
    link.run_for(500_000)
    assert outcomes(link, *writes) == ["fail"] * 5
    reads = [link.request(node, "read", "x") for node in range(5)]
    link.run_for(1_000)
    assert [link.replies[each].result for each in reads] == ["a"] * 5
    link.heal()
    link.run_for(3_000_000)
    assert link.values("x") == ["a"] * 5, "what was refused never shows, although its prepares arrive now"
    assert link.wait(link.request(3, "write", "x", "b")).outcome == "ok"


def test_decided_but_unconfirmed_is_info_and_lands_after_the_cut() -> None:
    """BHG 7.4: the decision is made once the commit record is written; it is told until all have it."""
    link = FakeLink(WriteAll, nodes=3)
    write = link.request(0, "write", "x", "a")
    link.run_for(650)
    link.cut([[0, 1], [2]])
    link.run_for(10_000_000)
    assert outcomes(link, write) == ["info"]
    assert link.values("x") == ["a", "a", None], "node 2 is in doubt"
    in_doubt, elsewhere = link.request(2, "read", "x"), link.request(1, "read", "x")
    link.run_for(1_000_000)
    assert outcomes(link, in_doubt, elsewhere) == ["waits", "ok"], "a read of a key in doubt waits: the old value may be overwritten"
    link.heal()
    assert link.wait(in_doubt).result == "a"
    link.run_for(3_000_000)
    assert link.replica(0).transactions == {} and link.replica(2).in_doubt == {}, "confirmed by all, and forgotten"


def test_cooperative_termination_finds_the_commit_at_another_participant() -> None:
    """BHG 7.4: who is uncertain learns the decision from any process that knows it; the coordinator is down."""
    link = FakeLink(WriteAll, nodes=3)
    link.request(0, "write", "x", "a")
    link.run_for(650)
    link.cut([[0, 1], [2]], mode="drop")
    link.run_for(100_000)
    link.crash(0, host=True)
    link.heal()
    read = link.request(2, "read", "x")
    link.run_for(2_500_000)
    assert link.replies[read].result == "a"
    assert lines(link, "1 -> 2 Commit")


def test_cooperative_termination_aborts_where_someone_has_not_voted_and_that_one_never_will() -> None:
    """BHG 7.4: a process that is asked and has not voted can decide Abort by itself, and says so."""
    link = FakeLink(WriteAll, nodes=3)
    link.cut_one_way(0, 2)
    link.request(0, "write", "x", "a")
    link.run_for(300)
    link.crash(0)
    read = link.request(1, "read", "x")
    link.run_for(2_500_000)
    assert link.replies[read].outcome == "ok" and link.replies[read].result is None
    assert lines(link, "2 -> 1 Abort")
    link.heal()
    link.restart(0)
    link.run_for(3_000_000)
    assert link.values("x") == [None] * 3
    assert not lines(link, "2 -> 0 Vote", "yes=True")


def test_all_voted_and_no_coordinator_blocks_until_it_is_back() -> None:
    """BHG 7.3: a process is blocked if it voted Yes and all that it can ask are uncertain too."""
    link = FakeLink(WriteAll, nodes=3)
    link.wait(link.request(0, "write", "x", "a"))
    link.request(0, "write", "x", "b")
    link.run_for(590)
    link.crash(0)
    reads = [link.request(node, "read", "x") for node in (1, 2)]
    link.run_for(60_000_000)
    assert outcomes(link, *reads) == ["waits", "waits"]
    link.restart(0)
    assert [link.wait(each).result for each in reads] == ["a", "a"], "no commit record: presumed aborted (R*)"


def test_a_commit_record_that_was_synced_binds_the_coordinator_that_wakes() -> None:
    """BHG 7.4: the coordinator writes commit in its log before it sends COMMIT; once it is there, that is the decision."""
    link = FakeLink(WriteAll, nodes=3)
    write = link.request(0, "write", "x", "a")
    link.run_for(750)
    link.cut([[0]], mode="drop")
    link.run_for(1_000)
    link.crash(0, host=True)
    assert outcomes(link, write) == ["info"]
    link.heal()
    link.restart(0)
    link.run_for(2_500_000)
    assert link.values("x") == ["a"] * 3


@pytest.mark.parametrize("host", [False, True])
def test_a_participant_wakes_in_doubt_with_its_lock(host: bool) -> None:
    """BHG 7.4, recovery: a process that failed in its uncertainty period cannot decide by itself when it recovers; it asks as in the termination protocol."""
    link = FakeLink(WriteAll, nodes=2)
    link.wait(link.request(0, "write", "x", "a"))
    link.request(0, "write", "x", "b")
    link.run_for(590)
    link.cut([[0], [1]], mode="drop")
    link.crash(1, host=host)
    link.run_for(1_000_000)
    link.restart(1)
    read = link.request(1, "read", "x")
    link.run_for(5_000_000)
    assert outcomes(link, read) == ["waits"]
    link.heal()
    assert link.wait(read).result == "a", "its vote was lost on the way, so the coordinator refused the write"
    assert link.wait(link.request(1, "write", "x", "c")).outcome == "ok"


def test_concurrent_writes_of_one_key_from_everywhere_all_commit_without_deadlock() -> None:
    """Rosenkrantz, Stearns and Lewis 1978: waiting only ever goes from older to younger, so there is no cycle; a restarted one keeps its age."""
    link = FakeLink(WriteAll, nodes=5)
    writes = [link.request(node, "write", "x", f"{node}.{i}") for i in range(2) for node in range(5)]
    link.run_for(400_000)
    assert outcomes(link, *writes) == ["ok"] * 10
    orders = [[each.value for each in link.versions if each.node == node] for node in range(5)]
    assert orders == [orders[0]] * 5 and len(orders[0]) == 10


def test_an_older_write_waits_and_a_younger_one_gives_way() -> None:
    """Rosenkrantz, Stearns and Lewis 1978, WAIT-DIE: a requester that is older waits, one that is younger dies, and restarts with its old age."""
    link = FakeLink(WriteAll, nodes=3)
    link.request(2, "write", "x", "old")
    link.run_for(10)
    link.request(1, "write", "x", "young")
    link.run_for(260)
    assert not lines(link, "Vote", "yes=False")
    link.run_for(100_000)
    assert len(lines(link, "Vote(tid=(1, 2, 1), yes=False")) == 2, "at nodes 0 and 2, which the older one held"
    assert lines(link, "Prepare(tid=(1, 2, 2), age=(10, 1, 2)")
    assert link.values("x") == ["young"] * 3


def test_a_write_is_refused_at_its_time_out_also_while_it_waits_for_its_turn() -> None:
    link = FakeLink(WriteAll, nodes=2, settings=WriteAllSettings(prepare_timeout_us=100_000))
    link.cut([[0], [1]])
    first = link.request(0, "write", "x", "a")
    link.run_for(60_000)
    second = link.request(0, "write", "x", "b")
    link.run_for(40_000)
    assert outcomes(link, first, second) == ["fail", "waits"]
    link.run_for(60_000)
    assert outcomes(link, second) == ["fail"]


def test_a_late_vote_does_not_revive_a_refused_write() -> None:
    """BHG 7.3, AC2: "A process cannot reverse its decision after it has reached one.\""""
    link = FakeLink(WriteAll, nodes=2)
    link.request(0, "write", "x", "a")
    link.run_for(400)
    link.cut_one_way(1, 0)
    link.run_for(600_000)
    assert [each.outcome for each in link.replies.values()] == ["fail"]
    link.heal()
    link.run_for(5_000_000)
    assert lines(link, "1 -> 0 Vote", "yes=True") and not lines(link, "Commit")


def test_a_lost_confirmation_is_asked_for_again() -> None:
    """Mohan, Lindsay and Obermarck 1986: the coordinator remembers a commit until every subordinate has acknowledged it."""
    link = FakeLink(WriteAll, nodes=2)
    write = link.request(0, "write", "x", "a")
    link.run_for(980)
    link.cut_one_way(1, 0, mode="drop")
    link.run_for(5_000_000)
    link.heal()
    link.run_for(2_000_000)
    assert outcomes(link, write) == ["info"] and link.replica(0).transactions == {}


# ---- BHG 7.3: what an atomic commitment protocol is -------------------------------------------------------------------------------------
def decisions(link: FakeLink, node: int) -> list[tuple[str, Any]]:
    """What a node wrote down of its writes, oldest first: the record's kind and the write."""
    return [(type(record).__name__, record.tid) for record in link.journal(node) if isinstance(record, (Commit, Decision, Abort))]


def test_ac1_ac2_all_processes_reach_the_same_decision_and_none_reverses_it() -> None:
    """BHG 7.3, AC1: "All processes that reach a decision reach the same one"; AC2: "A process cannot reverse its decision after it has reached one.\""""
    link = FakeLink(WriteAll, nodes=3)
    for step in range(12):
        link.request(step % 3, "write", "xy"[step % 2], step)
        if step % 4 == 1:
            link.cut([[step % 3]])
        link.run_for(700_000)
        link.heal()
    link.run_for(5 * S)
    made = [decisions(link, node) for node in range(3)]
    committed = [{tid for kind, tid in mine if kind != "Abort"} for mine in made]
    aborted = {tid for mine in made for kind, tid in mine if kind == "Abort"}
    assert committed[0] == committed[1] == committed[2] and committed[0] and aborted and not committed[0] & aborted
    assert all(len(mine) == len({tid for _, tid in mine}) for mine in made), "one decision of a write on each node"


def test_ac3_commit_can_only_be_reached_if_all_processes_voted_yes() -> None:
    """BHG 7.3, AC3: "The Commit decision can only be reached if all processes voted Yes": each vote is on disk before the decision is."""
    link = FakeLink(WriteAll, nodes=3)
    for silent in (1, 2):
        link.cut_one_way(silent, 0)
        refused = link.request(0, "write", "x", f"without {silent}")
        link.run_for(600_000)
        assert outcomes(link, refused) == ["fail"] and not decisions(link, 0)
        link.heal()
        link.run_for(3 * S)
    link.request(0, "write", "x", "with all")
    while not decisions(link, 0):
        link.run_for(10)
    assert all(any(isinstance(record, Prepare) and record.value == "with all" for record in link.journal(node)) for node in (1, 2))


def test_ac4_without_failures_the_decision_will_be_to_commit() -> None:
    """BHG 7.3, AC4: "If there are no failures and all processes voted Yes, then the decision will be to Commit.\""""
    link = FakeLink(WriteAll, nodes=5)
    for step in range(5):
        assert link.wait(link.request(step, "write", "x", step)).outcome == "ok"
    assert link.values("x") == [4] * 5


def test_ac5_once_all_failures_are_repaired_all_processes_eventually_reach_a_decision() -> None:
    """BHG 7.3, AC5: "if all existing failures are repaired and no new failures occur for sufficiently long, then all processes will eventually reach a
    decision": wherever a write was when its coordinator's host, and then a participant, died."""
    for when in range(50, 1_300, 150):
        link = FakeLink(WriteAll, nodes=3)
        link.request(0, "write", "x", "a")
        link.run_for(when)
        link.crash(0, host=True)
        link.run_for(100_000)
        link.crash(1)
        link.run_for(S)
        link.restart(1)
        link.restart(0)
        link.run_for(5 * S)
        assert not any(link.replica(node).in_doubt or link.replica(node).transactions for node in range(3)) and len(set(link.values("x"))) == 1


def test_a_commit_takes_four_messages_a_participant_and_an_abort_is_never_acknowledged() -> None:
    """Mohan, Lindsay and Obermarck 1986, presumed abort: a commit costs prepare, vote, commit and acknowledgement; of an abort nothing is forced to the
    log, no subordinate acknowledges it, and who asks later is told abort because nothing is known."""
    link = FakeLink(WriteAll, nodes=4)
    link.wait(link.request(0, "write", "x", "a"))
    assert [len(lines(link, f" {what}(")) for what in ("Prepare", "Vote", "Commit", "Confirm")] == [3] * 4
    link.cut_one_way(3, 0)
    link.request(0, "write", "x", "b")
    link.run_for(600_000)
    link.heal()
    link.run_for(5 * S)
    assert lines(link, "Abort(") and len(lines(link, "Confirm(")) == 3 and link.values("x") == ["a"] * 4
    assert not [record for record in link.journal(0) if isinstance(record, Abort)], "presumed"


@pytest.mark.parametrize("name", ["prepare_timeout_us", "confirm_timeout_us", "inquiry_interval_us", "retry_us"])
def test_times_must_be_positive(name: str) -> None:
    with pytest.raises(InputError, match=name):
        FakeLink(WriteAll, nodes=2, settings=WriteAllSettings(**{name: 0}))


# ---- linearizable at all times --------------------------------------------------------------------------------------------------------


def trouble(policy: type[Replica], seed: int, steps: int = 60, nodes: int = 3) -> FakeLink:
    """Clients everywhere on two keys, while links are cut (hold or drop, whole or one way) and processes and hosts crash; at last all is well
    and every node reads every key."""
    link, dice = FakeLink(policy, nodes, seed=seed), Stream(seed, "trouble")
    for step in range(steps):
        node, key, what = dice.below(nodes), "xy"[dice.below(2)], dice.below(100)
        if what < 40:
            link.request(node, "write", key, step, session=step)
        elif what < 80:
            link.request(node, "read", key, session=step)
        elif what < 86:
            link.cut([[node]], mode="hold" if dice.below(2) else "drop")
        elif what < 88:
            link.cut_one_way(node, (node + 1) % nodes)
        elif what < 93:
            link.heal()
        elif link.is_up(node):
            link.crash(node, host=bool(dice.below(2)))
        else:
            link.restart(node)
        link.run_for((10, 200, 700, 3_000, 400_000, 1_500_000)[dice.below(6)])
    link.heal()
    for node in range(nodes):
        if not link.is_up(node):
            link.restart(node)
    link.run_for(20_000_000)
    for node in range(nodes):
        for key in "xy":
            link.request(node, "read", key, session=steps + 1)
    link.run_for(10_000)
    return link


@pytest.mark.parametrize("block", range(8 if FULL else 2))
def test_linearizable_through_random_cuts_and_crashes_and_whole_after_them(block: int) -> None:
    answers = {"ok": 0, "fail": 0, "info": 0}
    for seed in range(block * 50, block * 50 + 50):
        link = trouble(WriteAll, seed)
        verdict = linearizable_register(link.history())
        assert verdict.status == "valid", f"seed {seed}: {verdict}\n{link.transcript()}"
        for node in range(3):
            replica = link.replica(node)
            assert not replica.in_doubt and not replica.transactions, f"seed {seed}: node {node} never learnt the end\n{link.transcript()}"
        assert all(len(set(map(str, link.values(key)))) == 1 for key in "xy"), f"seed {seed}"
        assert len(link.replies) == len(link.requests), f"seed {seed}: all is healed, and somebody still waits"
        for reply in link.replies.values():
            answers[reply.outcome] += 1
    assert min(answers.values()) > 25, f"the trouble must bite: {answers}"


@pytest.mark.parametrize("seed", range(8 if FULL else 1))
def test_linearizable_in_the_engine_under_cuts_of_all_shapes_and_crashes(seed: int) -> None:
    shapes = ["majority", "one-way", "ring", "bridge", "isolate", "halves"]
    cuts = tuple(Fault(at_us=(2 + 3 * i) * S, for_us=1_100_000 + 177_000 * i, shape=shape) for i, shape in enumerate(shapes))
    crashes = (
        Fault(kind="crash-process", at_us=3 * S, for_us=900_000, nodes=(0,)),
        Fault(kind="crash-host", at_us=7 * S, for_us=900_000, nodes=(1,)),
        Fault(kind="pause", at_us=11 * S, for_us=900_000, nodes=(2,)),
    )
    trial = Trial(Scenario(policy="write-all", nodes=5, faults=cuts + crashes).resolved(), seed)
    trial.advance(trial.scenario.end_us)
    history = trial.record().history
    assert linearizable_register(history).status == "valid"
    for node in trial.nodes:
        assert isinstance(node.replica, WriteAll) and not node.replica.in_doubt and not node.replica.transactions
    finals: dict[str | None, set[str]] = {}
    for each in history:
        if each.final:
            finals.setdefault(each.key, set()).add(f"{each.type} {each.result}")
    assert all(len(seen) == 1 for seen in finals.values()), finals
    assert min(sum(each.type == what for each in history) for what in ("ok", "fail", "info")) > 0


def test_naive_write_all_leaves_the_refused_value_on_one_side() -> None:
    """"A naive write-to-all that leaves the refused value on one side is not the C choice." """
    link = FakeLink(NaiveWriteAll, nodes=2)
    link.cut([[0], [1]], mode="drop")
    write = link.request(0, "write", "x", "refused")
    link.run_for(600_000)
    read = link.wait(link.request(0, "read", "x"))
    assert outcomes(link, write) == ["fail"] and read.result == "refused"
    assert linearizable_register(link.history()).status == "invalid"
