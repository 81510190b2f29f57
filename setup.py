"""Metadata is in pyproject.toml.  `CAPRAY_COMPILE=1 pip install '.[compile]' --no-build-isolation` compiles the engine with mypyc (it needs a C compiler and mypy);
without it, or where compiling fails, the same source runs as Python, with the same digests."""

import os

from setuptools import setup

ENGINE = ["streams", "clock", "tcp", "lanes", "transport", "network", "disk", "node"]  # trial.py defines a msgspec struct, which mypyc does not carry over

extensions = []
if os.environ.get("CAPRAY_COMPILE"):
    from mypyc.build import mypycify

    extensions = mypycify(["--ignore-missing-imports", *(f"capray/{name}.py" for name in ENGINE)], opt_level="3")
    for extension in extensions:
        extension.optional = True

setup(ext_modules=extensions)
