"""The table of policies: name -> where its class is.  A new store is one file and one line here.

A user's own policy needs no line: `package.module:Class` names it, or an entry point in the group `capray.policies`.
"""

from __future__ import annotations

import traceback
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isabstract
from types import ModuleType

from capray.errors import InputError, wrong
from capray.replica import Replica
from capray.soundness import check

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


def registered() -> dict[str, str]:
    """The names that installed packages have registered as entry points, and their classes' places."""
    return {point.name: point.value for point in entry_points(group="capray.policies")}


@lru_cache(maxsize=64)
def load(name: str) -> type[Replica]:
    """The policy's class.  Raises InputError where there is none of that name."""
    place = POLICIES.get(name, name if ":" in name else "")
    if not place:
        place = registered().get(name, "")
    if not place:
        raise wrong("policy", name, "one of " + ", ".join([*POLICIES, *registered()]) + ", or package.module:Class of your own")
    module, _, attribute = place.partition(":")
    try:
        found_class = getattr(_imported(name, module), attribute)
    except AttributeError:
        raise InputError(f"policy: {name!r} is not accepted; module {module} has no class {attribute or '(none is named)'}") from None
    if not (isinstance(found_class, type) and issubclass(found_class, Replica)):
        raise wrong("policy", name, "a subclass of capray.replica.Replica")
    if isabstract(found_class):
        raise wrong("policy", name, "a class that leaves no method open")
    check(name, found_class)
    return found_class


def _imported(name: str, module: str) -> ModuleType:
    """A policy's module.  What its own code raises while it is read is told in one line, with the place."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        where = f"{error}; is its folder on PYTHONPATH?" if error.name == module.partition(".")[0] else str(error)
        raise InputError(f"policy: {name!r} is not accepted; its module cannot be imported ({where})") from None
    except Exception as error:  # noqa: BLE001  whatever a user's own module raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (place.filename, place.lineno)
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}, {file}:{line}"
        raise InputError(f"policy: {name!r} is not accepted; its module cannot be imported ({what})") from None
