"""Settings of the `cassandra` policy: defaults, and what is refused for a cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from capray.policies.cassandra.replica import Cassandra
from capray.policies.cassandra.settings import CassandraSettings


@pytest.mark.parametrize(
    "settings, nodes, word",
    [
        ({"replication_factor": 4}, 3, "replication_factor: 4"),
        ({"replication_factor": 1, "read_consistency": "TWO"}, 3, "read_consistency: TWO"),
        ({"write_consistency": "THREE"}, 2, "write_consistency: THREE"),
        ({"coordinator_only": 3}, 3, "coordinator_only: 3"),
        ({"strategy": "network_topology", "datacenters": 3, "replication_factor": 2}, 5, "smallest data centre"),
        ({"read_consistency": "SERIAL"}, 3, "SERIAL"),
        ({"read_consistency": "LOCAL_SERIAL", "write_consistency": "QUORUM"}, 3, "write_consistency QUORUM"),
        ({"past_read_timeouts": (1, 2)}, 3, "past_read_timeouts: [1, 2]"),
        ({"past_read_timeouts": (1, 2, -1)}, 3, "past_read_timeouts: [1, 2, -1]"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: Any, nodes: int, word: str) -> None:
    (problem,) = CassandraSettings(**settings).problems(nodes)
    assert word in problem


@pytest.mark.parametrize("nodes", [1, 2, 3, 100])
def test_the_default_factor_is_three_or_all_nodes_if_fewer(nodes: int) -> None:
    settings = CassandraSettings()
    assert settings.problems(nodes) == []
    assert len(Cassandra.placement("anything", nodes, settings)) == min(3, nodes)


def test_every_setting_says_what_it_means() -> None:
    for field in msgspec.structs.fields(CassandraSettings):
        (meta,) = field.type.__metadata__
        assert len(meta.description) > 20, field.name


def test_any_is_a_level_for_writes_only() -> None:
    """ "ANY ConsistencyLevel is only supported for writes"."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"read_consistency": "ANY"}, CassandraSettings)
    assert msgspec.convert({"write_consistency": "ANY"}, CassandraSettings).write_consistency == "ANY"


MS, S = 1_000, 1_000_000


@pytest.mark.parametrize(
    "setting, value, line",
    [
        ("read_request_timeout_us", 5 * S, "read_request_timeout: 5000ms"),
        ("write_request_timeout_us", 2 * S, "write_request_timeout: 2000ms"),
        ("cas_contention_timeout_us", S, "cas_contention_timeout: 1000ms"),
        ("internode_timeout", True, "internode_timeout: true"),
        ("internode_tcp_connect_timeout_us", 2 * S, "internode_tcp_connect_timeout: 2000ms"),
        ("internode_tcp_user_timeout_us", 30 * S, "internode_tcp_user_timeout: 30000ms"),
        ("hinted_handoff", True, "hinted_handoff_enabled: true"),
        ("max_hint_window_us", 3 * 3600 * S, "max_hint_window: 3h"),
        ("hint_window_persistent", True, "hint_window_persistent_enabled: true"),
        ("hints_flush_period_us", 10 * S, "hints_flush_period: 10000ms"),
        ("hinted_handoff_throttle_bytes", 1024 << 10, "hinted_handoff_throttle: 1024KiB"),
        ("commitlog_sync", "periodic", "commitlog_sync: periodic"),
        ("commitlog_sync_period_us", 10 * S, "commitlog_sync_period: 10000ms"),
        ("endpoint_snitch", "simple", "endpoint_snitch: SimpleSnitch"),
        ("dynamic_snitch", True, "dynamic_snitch: true"),
        ("dynamic_snitch_update_interval_us", 100 * MS, "dynamic_snitch_update_interval: 100ms"),
        ("dynamic_snitch_reset_interval_us", 600 * S, "dynamic_snitch_reset_interval: 600000ms"),
        ("dynamic_snitch_badness_percent", 100, "dynamic_snitch_badness_threshold: 1.0"),
        ("phi_convict_threshold", 8, "phi_convict_threshold: 8"),
        ("partitioner", "murmur3", "partitioner: org.apache.cassandra.dht.Murmur3Partitioner"),
        ("gc_grace_us", 864_000 * S, "WITH gc_grace_seconds = 864000"),
        ("read_repair", "blocking", "WITH read_repair = 'BLOCKING'"),
        ("speculative_retry", "99p", "WITH speculative_retry = '99p'"),
    ],
)
def test_defaults_are_those_of_5_0(setting: str, value: object, line: str) -> None:
    """conf/cassandra.yaml, asked of config.Config of 5.0.4 where a line is a comment there; and a table's options."""
    assert getattr(CassandraSettings(), setting) == value, line
