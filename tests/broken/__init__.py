"""Every policy broken on purpose: one file a policy, one protocol bug a class, each a small subclass that decides one thing wrongly and says which sentence of
its paper or manual that violates.  `table` has for each the schedule (schedules/*.toml) under which a checker or a measure tells it from the sound policy.

    PYTHONPATH=tests capray run tests/broken/schedules/etcd_two_leaders.toml --seed 1 --json                                       # the sound policy
    PYTHONPATH=tests capray run tests/broken/schedules/etcd_two_leaders.toml --policy broken.etcd:VoteForgotten --seed 1 --json
"""
