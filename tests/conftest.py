"""How the suite runs: a file's tests on one worker, since they share what they simulated, and all that start Ray on one, first, since they take longest.

Property tests draw the same examples in every run, and take the time that a busy machine needs; with CAPRAY_FULL=1 they draw many, at random.
"""

import gc
import os

import pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("full" if os.environ.get("CAPRAY_FULL") else "quick")

gc.disable()  # what is imported and collected stays: to look through it again and again takes a fifth of the time that it takes to collect the tests


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else item.path.name))


def pytest_collection_finish() -> None:
    """Records are trees of lists and tuples: hardly any of it is in a circle, and a pass over it every 700 objects takes an eighth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
