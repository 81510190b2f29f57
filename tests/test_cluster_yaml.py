"""The cluster configuration is one that `ray up` takes: read, filled in and validated by Ray's own code."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_ray_up_accepts_the_cluster_configuration_and_starts_all_its_machines():
    import yaml

    util = pytest.importorskip("ray.autoscaler._private.util")
    raw = yaml.safe_load((Path(__file__).parent.parent / "cluster.yaml").read_text())
    filled = util.prepare_config(raw)
    util.validate_config(filled)
    assert filled["available_node_types"]["local.cluster.node"]["min_workers"] == len(raw["provider"]["worker_ips"]) == 2
    with pytest.raises(Exception, match="no_such_field"):
        util.validate_config({**filled, "no_such_field": 1})
