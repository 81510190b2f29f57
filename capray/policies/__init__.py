"""The table of policies: name -> where its class is.  A new store is one file and one line here.

A user's own policy needs no line: `package.module:Class` names it, or an entry point in the group `capray.policies`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isabstract

from capray.errors import InputError, wrong
from capray.replica import Replica

POLICIES = {
    "rdbms": "capray.policies.rdbms:Rdbms",
    "zookeeper": "capray.policies.zookeeper.replica:ZooKeeper",
    "etcd": "capray.policies.etcd.replica:Etcd",
    "dynamo": "capray.policies.dynamo.replica:Dynamo",
    "crdt": "capray.policies.crdt.replica:Crdt",
    "redis": "capray.policies.redis.replica:Redis",
    "cassandra": "capray.policies.cassandra.replica:Cassandra",
    "write-all": "capray.policies.write_all.replica:WriteAll",
    "postgres": "capray.policies.postgres.replica:Postgres",
    "abd": "capray.policies.abd.replica:Abd",
}


@lru_cache(maxsize=64)
def load(name: str) -> type[Replica]:
    """The policy's class.  Raises InputError where there is none of that name."""
    place = POLICIES.get(name, name if ":" in name else "")
    if not place:
        found = [point.value for point in entry_points(group="capray.policies") if point.name == name]
        if not found:
            raise wrong("policy", name, "one of " + ", ".join(POLICIES) + ", or package.module:Class of your own")
        place = found[0]
    module, _, attribute = place.partition(":")
    try:
        found_class = getattr(import_module(module), attribute)
    except (ImportError, ValueError) as error:  # ValueError: an empty name
        raise InputError(f"policy: {name!r} is not accepted; its module cannot be imported ({error})") from None
    except AttributeError:
        raise InputError(f"policy: {name!r} is not accepted; module {module} has no class {attribute or '(none is named)'}") from None
    if not (isinstance(found_class, type) and issubclass(found_class, Replica)):
        raise wrong("policy", name, "a subclass of capray.replica.Replica")
    if isabstract(found_class):
        raise wrong("policy", name, "a class that leaves no method open")
    return found_class
