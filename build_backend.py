"""setuptools' build backend; a wheel that is to be compiled (setup.py) also needs mypy, an editable install does not."""

import os
import shutil
import sysconfig

from setuptools import build_meta
from setuptools.build_meta import *


def wanted() -> bool:
    """Whether to compile: yes where there is a C compiler, unless CAPRAY_COMPILE says otherwise."""
    choice = os.environ.get("CAPRAY_COMPILE", "")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    return choice == "1" or (choice != "0" and bool(shutil.which(compiler)))


def get_requires_for_build_wheel(config_settings=None):
    """What pip installs before it builds a wheel: mypyc reads the types of what the event loop imports, so that must be there as well."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *(["mypy>=1.10", "msgspec", "numpy"] if wanted() else [])]
