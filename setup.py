"""Metadata is in pyproject.toml.  Where a C compiler is at hand, `pip install .` compiles the event loop with mypyc; where none is, or compiling fails, or
CAPRAY_COMPILE=0 says so, the same source runs as Python, to the same digests.  CAPRAY_COMPILE=1 makes a failure to compile an error.

An editable install is never compiled: a compiled module beside a source that is then edited would go on running, and nobody would be told."""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent))
from build_backend import wanted

# What a message passes on its way.  Modules that define msgspec structs are not among them: mypyc does not carry over the annotations that these are made from.
LOOP = ["heap", "tables", "streams", "clock", "client", "tcp", "wire", "replica", "lanes", "transport", "network",
        "disk", "machine", "node", "trial", "windows", "policies/abd/replica"]


class AllOrNone(build_ext):
    """The modules call each other past Python's back, so either all of them are compiled or none is."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # a compiler says no in many ways
            if os.environ.get("CAPRAY_COMPILE") == "1":
                raise
            print(f"capray is installed as plain Python: compiling failed ({error})", file=sys.stderr)
            for name in self.extensions:
                Path(self.get_ext_fullpath(name.name)).unlink(missing_ok=True)
            self.extensions = []


def extensions() -> list:
    """The extension modules of this build."""
    if "bdist_wheel" not in sys.argv or not wanted():
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    try:
        return mypycify(["--ignore-missing-imports", *(f"capray/{name}.py" for name in LOOP)], opt_level="2")
    except SystemExit as error:  # mypyc's way to say that it cannot
        if os.environ.get("CAPRAY_COMPILE") == "1":
            raise
        print(f"capray is installed as plain Python: mypyc says no ({error})", file=sys.stderr)
        return []


setup(ext_modules=extensions(), cmdclass={"build_ext": AllOrNone})
