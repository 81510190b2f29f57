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
