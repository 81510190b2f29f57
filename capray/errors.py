"""What a user asked that cannot be done, in one line; and how durations are written."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES}  # a full disk, a quota, a disk that fails
UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|min|h|d)\s*")


class InputError(ValueError):
    """The request was wrong: one line naming field, value and what is accepted.  The command line exits with status 2."""


class Failed(Exception):
    """What was asked was done as far as it could be, and trials failed by themselves.  The command line exits with status 1: the answer is "no"."""


def unwritable(error: OSError) -> str:
    """One line for a file that cannot be written; empty where the error is another."""
    if error.errno not in UNWRITABLE:
        return ""
    return f"file: {str(error.filename or 'standard output, or a file')!r} cannot be written ({error.strerror}); what was finished is kept"


def wrong(field: str, value: object, accepts: str) -> InputError:
    """The one form of complaint: field, value, what it takes."""
    return InputError(f"{field}: {value!r} is not accepted; it takes {accepts}")


def refuse_unwritable(**files: Path | str | None) -> None:
    """Raise InputError for a file (its option's name is the field) that could not be written, before work is done for it."""
    for field, name in files.items():
        if name is None or str(name) in ("/dev/stdout", "/dev/stderr"):
            continue
        path, there = Path(name), Path(name).parent
        if path.is_dir():
            raise wrong(field, str(name), "a file, and this is a directory")
        if not there.is_dir():
            raise wrong(field, str(name), f"a file in a directory that exists ({there} does not)")
        if not os.access(path if path.exists() else there, os.W_OK):
            raise wrong(field, str(name), "a file that can be written")


_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "array": "a list", "object": "a table", "null": "nothing"}


def complaint(what: str, plain: object, error: str, known: Mapping[str, Sequence[str]] = {}, choices: Mapping[str, Sequence[str]] = {}) -> InputError:
    """msgspec's complaint (`Expected `int`, got `str` - at `$.faults[0].at_us``) in the one form, with the value that it is about.  `known`: the fields of
    each table, `choices`: the words that a field takes."""
    said, _, path = error.partition(" - at ")
    field, value = path.strip("`").removeprefix("$").lstrip("."), plain
    for name, index in re.findall(r"([A-Za-z_]+)|\[(\d+)\]", field):
        try:
            value = value[name] if name else value[int(index)]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            break
    where = f"{what}{'.' if field else ''}{field}"
    if said.startswith("Object contains unknown field"):
        fields = ", ".join(known.get(field.partition("[")[0], ())) or "its own fields"
        return InputError(f"{where}: unknown field {said.split('`')[1]!r} is not accepted; it takes {fields}")
    listed = choices.get(field.rpartition(".")[2])
    accepts = "one of " + ", ".join(listed) if listed and said.startswith("Invalid") else _plainly(said)
    return wrong(where, sorted(value) if isinstance(value, dict) else value, accepts)


def _plainly(said: str) -> str:
    """What msgspec asked for, in plain English: `Expected `array` of length 2` is a list of length 2."""
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", said):
        return f"a table with {missing[1].removesuffix('_us')}"
    wanted = re.match(r"Expected `([^`]+)`([^,`]*)", said)
    if wanted is None:
        return said.replace("`", "")
    return " or ".join(_TYPES.get(one.strip(), one.strip()) for one in wanted[1].split("|")) + wanted[2].rstrip()


def bounds_of(error: Exception) -> str:
    """msgspec's complaint about a number that is too small or too large."""
    found = re.search(r"([<>]=?) ?(-?[0-9.]+)", str(error))
    return f" {found[1]} {found[2]}" if found else ""


def told(error: BaseException) -> str:
    """What a trial ended with, for its reader: a complaint of ours in its one line, whatever else a policy raised with its traceback, since its code is the
    user's."""
    return str(error) if isinstance(error, InputError) else "".join(traceback.format_exception(error))


def duration_us(text: object, field: str = "duration") -> int:
    """Microseconds from `200ms`, `10s`, `5min`, `0s`, ... ; an integer is taken as microseconds.  Exact: decimal, never through a float."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        if text == "0":
            return 0
        raise wrong(field, text, "a duration with a unit: 200ms, 10s, 5min, 1h (units: us, ms, s, min, h, d)")
    whole, _, fraction = match[1].partition(".")
    scale = UNITS_US[match[2]]
    micros, rest = divmod(int(whole + fraction) * scale, int(10 ** len(fraction)))
    if rest:
        raise wrong(field, text, "a duration that is a whole number of microseconds")
    return micros


def show_us(us: int) -> str:
    """A duration as a person writes it: 10s, 1.5s, 200ms, 40us."""
    for unit in ("h", "min", "s", "ms"):
        scale = UNITS_US[unit]
        if us and us % scale == 0 and us < 1000 * scale:
            return f"{us // scale}{unit}"
    if us >= 1_000_000:
        return f"{us // 1_000_000}s" if us % 1_000_000 == 0 else f"{us / 1_000_000:g}s"
    return f"{us / 1000:g}ms" if us >= 1000 else f"{us}us"
