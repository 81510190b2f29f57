"""Every policy broken on purpose: one file a policy, one protocol bug a class, each a small subclass that decides one thing wrongly and says which sentence of
its paper or manual that violates.  `table` has for each the schedule (schedules/*.toml) under which a checker or a measure tells it from the sound policy.

    PYTHONPATH=tests capray run tests/broken/schedules/etcd_two_leaders.toml --seed 1 --json                                       # the sound policy
    PYTHONPATH=tests capray run tests/broken/schedules/etcd_two_leaders.toml --policy broken.etcd:VoteForgotten --seed 1 --json

Two bugs that were tried have no schedule, since no client of a register can see them.  Sessions that ZooKeeper never expires: a session's order, which is all
that a register's client is promised by it, is kept by a live session too; expiry frees what a vanished client holds (ephemeral nodes, locks), and there is none
here (tests/test_policy_zookeeper.py holds that it comes).  A hint window that Cassandra ignores: more hints are kept than `max_hint_window` allows, so that replicas
agree where they would otherwise need a repair; the window promises disks an end, not clients anything (tests/test_cassandra_hints.py holds it).
"""
