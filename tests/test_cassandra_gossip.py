"""The phi accrual failure detector against its formula, and gossip over a fake link."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capray.policies.cassandra.gossip import SAMPLES, ArrivalWindow, Echo, GossipSyn
from capray.policies.cassandra.messages import MutationAck
from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings
from capray.replica import CONNECT, SEND, SET_TIMER
from capray.streams import Stream
from capray.testing import FakeLink

S = 1_000_000


@given(st.lists(st.integers(200_000, 3_000_000), min_size=1, max_size=50), st.integers(0, 60 * S), st.integers(5, 16))
def test_suspicion_is_phi_above_the_threshold(intervals: list[int], silence: int, threshold: int) -> None:
    """phi(t) = -log10(P_later(t)), and with exponential arrivals P_later(t) = e**(-t / mean)."""
    window = ArrivalWindow(0, 2 * S, 60 * S)
    now = 0
    for interval in intervals:
        now += interval
        window.heard(now)
    mean = (2 * S + sum(intervals)) / (1 + len(intervals))
    phi = -math.log10(math.exp(-silence / mean)) if silence / mean < 600 else 1e9
    if abs(phi - threshold) > 1e-6:
        assert window.suspects(now + silence, threshold) == (phi > threshold)


def test_phi_8_is_18_4_times_the_mean_interval() -> None:
    window = ArrivalWindow(0, S, S)
    assert 18.42 < window.conviction_after(8) / S < 18.43
    assert not window.suspects(window.conviction_after(8), 8)
    assert window.suspects(window.conviction_after(8) + 1, 8)


def test_the_window_keeps_the_last_1000_intervals_and_none_above_the_maximum() -> None:
    window = ArrivalWindow(0, 7 * S, 2 * S)
    for i in range(1, SAMPLES + 1):
        window.heard(i * S)
    assert len(window.intervals) == SAMPLES and window.total == SAMPLES * S
    window.heard((SAMPLES + 50) * S)
    assert window.total == SAMPLES * S and window.last == (SAMPLES + 50) * S


def gossiping(nodes: int, seconds: int, **settings: int) -> FakeLink:
    link = FakeLink(Cassandra, nodes, CassandraSettings(**settings))
    link.run_for(seconds * S)
    return link


def test_heartbeats_spread_to_all_within_seconds_also_in_a_large_cluster() -> None:
    link = gossiping(30, 12)
    for node in range(30):
        gossiper = link.replica(node).gossiper
        assert min(gossiper.versions) >= 12 - 8


def test_mean_intervals_between_heartbeats_are_about_the_gossip_interval() -> None:
    """ "the mean heartbeat interval (about 1.05 s)" of five real servers; the first sample is 2 s."""
    link = gossiping(5, 60)
    windows = [w for node in range(5) for peer, w in enumerate(link.replica(node).gossiper.windows) if peer != node]
    means = [w.total / len(w.intervals) for w in windows]
    assert 0.98 * S < sum(means) / len(means) < 1.35 * S


def test_in_a_healthy_cluster_nobody_is_convicted() -> None:
    link = gossiping(5, 120)
    assert all(all(link.replica(node).gossiper.alive) for node in range(5))


def test_one_way_cuts_go_unnoticed_while_gossip_flows_around_them() -> None:
    """Heartbeats of 0 reach 1 through 2, so 1 does not convict 0 although it never hears it: the failure detector judges heartbeats."""
    link = gossiping(3, 5)
    link.cut_one_way(0, 1, mode="drop")
    link.run_for(60 * S)
    assert link.replica(1).gossiper.alive[0]


def test_a_restarted_peer_is_known_by_its_higher_generation_and_is_up_again_after_an_echo() -> None:
    link = gossiping(3, 10)
    link.crash(1)
    link.run_for(S)
    link.restart(1)
    link.run_for(4 * S)
    assert link.replica(1).gossiper.generations[1] == 2
    assert link.replica(0).gossiper.generations[1] == 2
    assert all(link.replica(0).gossiper.alive) and all(link.replica(1).gossiper.alive)
    assert any("Echo(" in line for line in link.log)


@pytest.mark.parametrize(("down_s", "kept"), [(4, True), (40, False)])
def test_only_of_a_peer_that_was_taken_for_dead_are_the_intervals_learnt_anew(down_s: int, kept: bool) -> None:
    """Gossiper.notifyFailureDetector: "this node was dead and the generation changed, this indicates a reboot, or possibly a takeover we will clean the fd
    intervals for it and relearn them", `if (!localEndpointState.isAlive())`: a quick restart is one more interval."""
    link = gossiping(3, 10)
    link.crash(1)
    link.run_for(down_s * S)
    known = len(link.replica(0).gossiper.windows[1].intervals)
    link.restart(1)
    link.run_for(3 * S)
    window = link.replica(0).gossiper.windows[1]
    assert (len(window.intervals) > known) == kept and (max(window.intervals) >= down_s * S) == kept


def test_a_crashed_process_is_convicted_by_silence_though_its_connections_were_reset_at_once() -> None:
    link = gossiping(3, 10)
    link.crash(1)
    link.run_for(10 * S)
    assert link.replica(0).gossiper.alive[1]
    link.run_for(20 * S)
    assert not link.replica(0).gossiper.alive[1]


def test_a_node_that_was_paused_itself_convicts_nobody_for_5_s() -> None:
    link = gossiping(3, 5)
    gossiper = link.replica(0).gossiper
    gossiper.last_round -= 30 * S
    for window in gossiper.windows:
        window.last -= 30 * S
    link.run_for(S)
    assert all(gossiper.alive)


def test_seeds_are_spread_over_the_cluster() -> None:
    assert gossiping(5, 0).replica(0).gossiper.seeds == (0, 2)
    assert gossiping(2, 0, seeds=9).replica(0).gossiper.seeds == (0, 1)


@pytest.mark.parametrize(("node", "share"), [(0, 1 / 4), (1, 2 / 4)])
def test_a_seed_does_not_count_itself_among_the_seeds(node: int, share: float) -> None:
    """Gossiper.buildSeedsList leaves the own address out; maybeGossipToSeed: probability = seeds.size() / (live + unreachable)."""
    replica = Cassandra(node, 5, CassandraSettings(), Stream(7, "node", node))
    replica.gossiper.start(1)
    replica.effects.clear()
    for _ in range(4000):
        replica.gossiper._maybe_gossip_to_seed(GossipSyn((1,) * 5, (1,) * 5), 4, 0)
    asked = [effect[1] for effect in replica.effects if effect[0] == SEND]
    assert abs(len(asked) / 4000 - share) < 0.03 and set(asked) == {0, 2} - {node}


def test_a_crashed_peer_is_dialled_at_once_and_then_each_second_not_in_a_storm() -> None:
    """Its host refuses at once; OutboundConnection waits up to 1 s before the next attempt."""
    replica = Cassandra(0, 3, CassandraSettings(), Stream(0, "node", 0))
    replica.on_disconnected(1)
    assert (CONNECT, 1) in replica.effects
    replica.effects.clear()
    replica.on_disconnected(1)  # the dial was refused
    assert replica.effects == [(SET_TIMER, ("redial", 1), S)]
    replica.effects.clear()
    replica.on_timer(("redial", 1))
    assert (CONNECT, 1) in replica.effects
    replica.on_connected(1)
    replica.effects.clear()
    replica.on_timer(("redial", 1))
    assert replica.effects == []


@pytest.mark.parametrize("since, wait", [(0, 0), (100, 0), (500, 500), (1100, 0), (1600, 1400), (2990, 10), (3000, 0)])
def test_a_node_speaks_to_a_peer_whose_connection_was_lost_only_when_its_own_syn_gets_through(since: int, wait: int) -> None:
    """An OutboundConnection carries one direction: attempts of 2 s, each with SYNs at 0 and 1 s, and 1 s between them.  (Real 5.0.4 servers were back
    0.4 to 2.0 s after the heal of a 30 s cut.)"""
    gossiper = Cassandra(0, 3, CassandraSettings(), Stream(0, "node", 0)).gossiper
    assert gossiper._until_own_syn(since * 1000) == wait * 1000


def test_what_is_held_for_such_a_peer_leaves_in_order_but_what_has_expired_and_all_but_the_newest_gossip_of_a_kind() -> None:
    link = FakeLink(Cassandra, 3, CassandraSettings())
    link.run_for(2 * S)
    replica = link.replica(0)
    replica.gossiper.held[1] = []
    for version in (1, 2):
        replica.send(1, MutationAck(version))
        replica.send(1, GossipSyn((1,) * 3, (version,) * 3))
        replica.send(1, Echo())
        replica.now += 1_500_000
    assert not replica.effects
    replica.gossiper.outbound(1)  # 3 s after the first of them, 1.5 s after the second: MUTATION_RSP has write_request_timeout, 2 s
    assert replica.gossiper.held[1] is None
    assert [effect[2] for effect in replica.effects] == [MutationAck(2), GossipSyn((1,) * 3, (2,) * 3), Echo()]


def test_a_connection_that_its_user_timeout_ended_is_dialled_at_once_and_conviction_does_not_begin_the_dial_anew() -> None:
    replica = Cassandra(0, 3, CassandraSettings(), Stream(0, "node", 0))
    replica.on_disconnected(1)
    assert (CONNECT, 1) in replica.effects
    replica.send(1, MutationAck(7))
    replica.effects.clear()
    replica.now += S
    replica.gossiper._convict(1)
    assert replica.effects == [] and replica.gossiper.held[1] == [(2 * S, MutationAck(7))]


def test_the_network_is_told_how_long_its_connections_wait() -> None:
    """conf/cassandra.yaml: "The amount of time unacknowledged data is allowed on a connection before we throw out the connection"."""
    assert Cassandra.user_timeout_us(CassandraSettings(internode_tcp_user_timeout_us=7)) == 7
