"""results/<name>/: the manifest, the trials as they finish, the table, the figures and the report.

Decides: what a results directory holds, when it may be continued, and its digest.  May not know: how trials are run, what measures mean.
    manifest.json   what was asked: spec, versions, engine, digest, number of trials, the command
    trials.jsonl    one line a finished trial, appended and flushed at once: coordinates, record digest, measurement
    failures.jsonl  one line a trial whose policy raised: coordinates, error, the command that replays it; they are tried again when the sweep goes on
    table.csv table.parquet   the same rows, sorted, when the sweep is complete
    figures/ report.html      what `capray report` draws
A killed sweep leaves a valid directory: a last line that was cut short is dropped when it is continued.  What was appended survives the end of the process at
once, the end of the machine after a second (SYNC_EVERY_S).  A disk that is full is one line, and leaves nothing half-written.  Rows are read from the
file when they are needed and never all held in memory.  The digest covers the rows' coordinates, record digests and measurements, in a fixed order: not
wall times, not the engine.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from capray.errors import UNWRITABLE, InputError, wrong

FORMAT = 1
SYNC_EVERY_S = 1.0
BATCH = 500  # rows of the table held at once
Row = dict[str, Any]


class Rows(Sequence[Row]):
    """The rows of a results directory in the fixed order of their keys, each read from the file when it is asked for."""

    def __init__(self, path: Path, index: dict[str, int]) -> None:
        """`index`: where each key's line begins."""
        self.path = path
        self.offsets = [index[key] for key in sorted(index)]

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Row]:
        return _read_at(self.path, self.offsets)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return list(_read_at(self.path, self.offsets[at]))
        return next(_read_at(self.path, [self.offsets[at]]))


def _read_at(path: Path, offsets: list[int]) -> Iterator[Row]:
    if not offsets:
        return
    names: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows of one shape share their columns' names
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            row = json.loads(file.readline())
            shape = tuple(row)
            yield dict(zip(names.setdefault(shape, shape), row.values()))


class Results:
    """A results directory.  `key` names a trial within it."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)
        self.manifest_path = self.path / "manifest.json"
        self.trials_path = self.path / "trials.jsonl"
        self.failures_path = self.path / "failures.jsonl"
        self.file: int | None = None  # trials.jsonl, while it is written
        self.synced = time.monotonic()

    # ---- reading ---------------------------------------------------------------------------------------------------------------------
    def manifest(self) -> dict[str, Any]:
        """The manifest.  Raises InputError where there is none, or it is not one."""
        try:
            found = json.loads(self.manifest_path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise wrong("directory", str(self.path), f"a results directory with a readable manifest.json ({_short(error)})") from None
        if not isinstance(found, dict) or not isinstance(found.get("spec"), dict) or "kind" not in found:
            raise wrong("directory", str(self.path), "a results directory written by capray")
        if found.get("format") != FORMAT:
            raise wrong("format", found.get("format"), f"format {FORMAT}, which this version of capray writes, in {self.manifest_path}")
        return found

    def rows(self) -> list[Row]:
        """Every finished trial's row, in the order of finishing.  A last line cut short is left out; any other bad line is an InputError."""
        return list(_read_at(self.trials_path, sorted(self.index().values())))

    def ordered(self) -> Rows:
        """Every finished trial's row, in the order of keys, read when asked for.  Raises InputError as `rows`."""
        return Rows(self.trials_path, self.index())

    def index(self) -> dict[str, int]:
        """Where each trial's line begins in trials.jsonl, by its key.  Raises InputError for a line that is no trial's."""
        if not self.trials_path.exists():
            return {}
        found: dict[str, int] = {}
        offset = 0
        try:
            with self.trials_path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        found[self._key(line, number)] = offset
                    offset += len(line)
        except OSError as error:
            raise wrong("file", str(self.trials_path), f"a readable JSON Lines file ({_short(error)})") from None
        return found

    def _key(self, line: bytes, number: int) -> str:
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "key" not in row:
                raise ValueError("no key")
        except ValueError as error:
            raise InputError(f"{self.trials_path} line {number}: not a trial's row ({_short(error)}); remove the directory or the line") from None
        return str(row["key"])

    def complete(self) -> bool:
        """Whether the sweep has ended: its manifest carries a digest."""
        return bool(self.manifest().get("digest"))

    # ---- writing ---------------------------------------------------------------------------------------------------------------------
    @contextmanager
    def writing(self, manifest: dict[str, Any]) -> Iterator[list[Row]]:
        """`opened`, with the rows that are there themselves."""
        with self.opened(manifest) as index:
            yield list(_read_at(self.trials_path, sorted(index.values())))

    @contextmanager
    def opened(self, manifest: dict[str, Any]) -> Iterator[dict[str, int]]:
        """Open the directory to begin or continue what `manifest` asks; yields the index of the rows that are there.  Raises InputError where another
        process writes it, where it holds something else (naming the field that differs), or where the disk is full."""
        if self.path.exists() and not self.path.is_dir():
            raise wrong("out", str(self.path), "a directory, and this is a file")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise wrong("out", str(self.path), f"a directory that can be written ({_short(error)})") from None
        try:
            self._begin(lock, manifest)
            yield self.index()
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            kept = "what was finished is kept: the same command goes on once it can be"
            raise InputError(f"out: {str(self.path)!r} cannot be written ({error.strerror}); {kept}") from None
        finally:
            if self.file is not None:
                os.close(self.file)
                self.file = None
            os.close(lock)  # closing releases the lock, as does the end of a killed process

    def _begin(self, lock: int, manifest: dict[str, Any]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise wrong("out", str(self.path), "a directory that no other capray process is writing") from None
        self.refuse_other(manifest)
        if not self.manifest_path.exists():
            self.write_manifest(manifest)
        self._mend()

    def refuse_other(self, manifest: dict[str, Any]) -> None:
        """Raise InputError where the directory holds something else than what `manifest` asks, or is none."""
        if self.manifest_path.exists():
            self._same(manifest)
        elif self.path.exists() and not self.path.is_dir():
            raise wrong("out", str(self.path), "a directory, and this is a file")
        elif self.path.exists() and any(p.name not in (".lock", "manifest.json.part") for p in self.path.iterdir()):
            raise wrong("out", str(self.path), "an empty or new directory, or one that this sweep began")

    def _same(self, manifest: dict[str, Any]) -> None:
        there = self.manifest()
        wanted = json.loads(json.dumps(manifest))
        for name in ("kind", "name", "version"):
            if there.get(name) != wanted.get(name):
                raise wrong("out", str(self.path), f"another directory: {name} there is {there.get(name)!r}, not {wanted.get(name)!r}")
        difference = first_difference(there["spec"], wanted["spec"], "spec")
        if difference:
            raise wrong("out", str(self.path), f"another directory: {difference}")

    def _mend(self) -> None:
        """Cut off a last line that a kill cut short."""
        if self.trials_path.exists():
            with self.trials_path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                keep = size
                while keep and _byte(file, keep - 1) != b"\n":
                    keep -= 1
                if keep < size:
                    file.truncate(keep)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest in one step."""
        replace_file(self.manifest_path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def append(self, row: Row) -> int:
        """Add one finished trial, at once and whole.  Returns where its line begins."""
        if self.file is None:
            self.file = os.open(self.trials_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        offset = _append(self.file, row)
        if time.monotonic() - self.synced > SYNC_EVERY_S:
            os.fsync(self.file)
            self.synced = time.monotonic()
        return offset

    def fail(self, row: Row) -> None:
        """Note a trial that failed by itself, with its seed, its error, and the command that replays it."""
        file = os.open(self.failures_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            _append(file, row)
        finally:
            os.close(file)

    def forget_failures(self) -> None:
        """They are tried again."""
        self.failures_path.unlink(missing_ok=True)

    def finish(self, manifest: dict[str, Any], rows: Iterable[Row] | None = None) -> str:
        """Write the table and the digest, of the rows in the file unless others are given.  Returns the digest."""
        ordered: Sequence[Row] = self.ordered() if rows is None else in_order(list(rows))
        if self.file is not None:
            os.fsync(self.file)
        write_tables(ordered, self.path)
        manifest = {**manifest, "digest": digest(ordered), "trials": len(ordered)}
        self.write_manifest(manifest)
        return str(manifest["digest"])


def _byte(file: Any, at: int) -> bytes:
    file.seek(at)
    return bytes(file.read(1))


def _append(file: int, row: Row) -> int:
    """One line, whole: where it cannot be written whole, nothing of it stays."""
    offset = os.lseek(file, 0, os.SEEK_END)
    line = (json.dumps(row, sort_keys=True) + "\n").encode()
    try:
        written = 0
        while written < len(line):
            written += os.write(file, line[written:])
    except BaseException:
        os.ftruncate(file, offset)
        raise
    return offset


def write_tables(rows: Sequence[Row], directory: Path) -> None:
    """table.parquet and table.csv, a batch of rows at a time; both whole, or as they were."""
    import polars

    schema = _schema(rows)
    parts = directory / ".parts"
    shutil.rmtree(parts, ignore_errors=True)
    try:
        parts.mkdir()
        for number, start in enumerate(range(0, len(rows), BATCH)):
            frame = polars.DataFrame([{name: row.get(name) for name in schema} for row in rows[start:start + BATCH]], schema=schema, strict=False)
            frame.write_parquet(parts / f"{number:06d}.parquet")
        if not len(rows):
            polars.DataFrame(schema=schema).write_parquet(parts / "000000.parquet")
        table = polars.scan_parquet(sorted(parts.glob("*.parquet")))
        table.sink_csv(parts / "table.csv")
        table.sink_parquet(parts / "table.parquet")
        for name in ("table.csv", "table.parquet"):
            os.replace(parts / name, directory / name)
    except polars.exceptions.PolarsError as error:  # a full disk, in its own words
        raise OSError(errno.EIO, str(error).splitlines()[0]) from None
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _schema(rows: Sequence[Row]) -> dict[str, Any]:
    """The columns in the order in which they first appear, each with the one type that holds all its values."""
    import polars

    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, (dict, list)):
                kinds.setdefault(name, set()).add(type(value))
    types: tuple[tuple[set[type], Any], ...] = ((set(), polars.Null), ({bool}, polars.Boolean), ({int}, polars.Int64), ({int, float}, polars.Float64))
    return {name: next((kind for held, kind in types if found - {type(None)} <= held), polars.String) for name, found in kinds.items()}


def placed(rows: Rows, directory: Path) -> Rows:
    """The rows, each known to say where it stands.  Raises InputError for one that does not."""
    for row in rows:
        for name in ("label", "nodes", "duration", "seed"):
            if name not in row:
                raise wrong("directory", str(directory), f"results as capray writes them; its trial {row['key']!r} has no {name}")
    return rows


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in the fixed order of their keys."""
    return sorted(rows, key=lambda row: str(row["key"]))


def digest(rows: Sequence[Row]) -> str:
    """BLAKE2b-128, in hex, of rows in their fixed order (floats by their shortest decimal form); `wall_` columns are left out."""
    state = hashlib.blake2b(digest_size=16)
    for row in rows if isinstance(rows, Rows) else in_order(rows):
        state.update(json.dumps({k: v for k, v in row.items() if not k.startswith("wall_")}, sort_keys=True).encode() + b"\n")
    return state.hexdigest()


def first_difference(a: Any, b: Any, where: str) -> str:
    """Where two plain values first differ, in words; empty where they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            if name not in a or name not in b:
                return f"{where}.{name} is only {'here' if name in b else 'there'}"
            if found := first_difference(a[name], b[name], f"{where}.{name}"):
                return found
        return ""
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{where} has {len(a)} items there, {len(b)} here"
        return next((found for i, (x, y) in enumerate(zip(a, b)) if (found := first_difference(x, y, f"{where}[{i}]"))), "")
    return "" if a == b else f"{where} there is {a!r}, not {b!r}"


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; also after a power cut."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
