"""The main job: what does each policy give up while the network is cut, and for how long?

Policies (one relational server, ZooKeeper, write-all, Cassandra at ONE and QUORUM, with three replicas and with one on every node) x
partition duration x cluster size x seeds; a clean cut into a minority and a majority, the leader on either side.  The same as `capray sweep`.

    python experiments/partition_sweep.py --scale ci
"""

from capray.experiment import main, parser, run
from capray.mainjob import main_job


def script() -> None:
    given = parser(__doc__ or "").parse_args()
    run(main_job(given.scale, given.seeds), given)


if __name__ == "__main__":
    main(script)
