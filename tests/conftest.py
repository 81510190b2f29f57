"""Property tests draw the same examples in every run, and take the time that a busy machine needs; with CAPRAY_FULL=1 they draw many, at random."""

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("full" if os.environ.get("CAPRAY_FULL") else "quick")
