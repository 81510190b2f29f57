"""results/<name>/: the manifest, the trials as they finish, the table, the figures and the report.

Decides: what a results directory holds, when it may be continued, and its digest.  May not know: how trials are run, what measures mean.
    manifest.json   what was asked: spec, versions, engine, digest, number of trials, the command
    trials.jsonl    one line a finished trial, appended and flushed at once: coordinates, record digest, measurement
    failures.jsonl  one line a trial whose policy raised: coordinates, error, the command that replays it; they are tried again when the sweep goes on
    table.csv table.parquet   the same rows, sorted, when the sweep is complete
    figures/ report.html      what `capray report` draws
A killed sweep leaves a valid directory: a last line that was cut short is dropped when it is continued.  The digest covers the rows'
coordinates, record digests and measurements, in a fixed order: not wall times, not the engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capray.errors import InputError, wrong

FORMAT = 1
Row = dict[str, Any]


class Results:
    """A results directory.  `key` names a trial within it."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)
        self.manifest_path = self.path / "manifest.json"
        self.trials_path = self.path / "trials.jsonl"
        self.failures_path = self.path / "failures.jsonl"

    # ---- reading ---------------------------------------------------------------------------------------------------------------------
    def manifest(self) -> dict[str, Any]:
        """The manifest.  Raises InputError where there is none, or it is not one."""
        try:
            found = json.loads(self.manifest_path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise wrong("directory", str(self.path), f"a results directory with a readable manifest.json ({_short(error)})") from None
        if not isinstance(found, dict) or "spec" not in found or "kind" not in found:
            raise wrong("directory", str(self.path), "a results directory written by capray")
        if found.get("format") != FORMAT:
            raise wrong("format", found.get("format"), f"format {FORMAT}, which this version of capray writes, in {self.manifest_path}")
        return found

    def rows(self) -> list[Row]:
        """Every finished trial's row, in the order of finishing.  A last line cut short is left out; any other bad line is an InputError."""
        if not self.trials_path.exists():
            return []
        try:
            text = self.trials_path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise wrong("file", str(self.trials_path), f"a readable JSON Lines file ({_short(error)})") from None
        lines = text.split("\n")
        rows = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or "key" not in row:
                    raise ValueError("no key")
            except ValueError as error:
                raise InputError(f"{self.trials_path} line {number}: not a trial's row ({_short(error)}); remove the directory or the line") from None
            rows.append(row)
        return rows

    def complete(self) -> bool:
        """Whether the sweep has ended: its manifest carries a digest."""
        return bool(self.manifest().get("digest"))

    # ---- writing ---------------------------------------------------------------------------------------------------------------------
    @contextmanager
    def writing(self, manifest: dict[str, Any]) -> Iterator[list[Row]]:
        """Open the directory to begin or continue what `manifest` asks; yields the rows that are there.  Raises InputError where another
        process writes it, or where it holds something else (naming the field that differs)."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise wrong("out", str(self.path), f"a directory that can be written ({_short(error)})") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise wrong("out", str(self.path), "a directory that no other capray process is writing") from None
            if self.manifest_path.exists():
                self._same(manifest)
            elif self.trials_path.exists() or any(p.name != ".lock" for p in self.path.iterdir()):
                raise wrong("out", str(self.path), "an empty or new directory, or one that this sweep began")
            else:
                self.write_manifest(manifest)
            yield self._mended()
        finally:
            os.close(handle)  # closing releases the lock, as does the end of a killed process

    def _same(self, manifest: dict[str, Any]) -> None:
        there = self.manifest()
        wanted = json.loads(json.dumps(manifest))
        for name in ("kind", "name", "version"):
            if there.get(name) != wanted.get(name):
                raise wrong("out", str(self.path), f"another directory: {name} there is {there.get(name)!r}, not {wanted.get(name)!r}")
        difference = first_difference(there["spec"], wanted["spec"], "spec")
        if difference:
            raise wrong("out", str(self.path), f"another directory: {difference}")

    def _mended(self) -> list[Row]:
        """The rows, after cutting off a last line that a kill cut short."""
        if self.trials_path.exists():
            data = self.trials_path.read_bytes()
            keep = data.rfind(b"\n") + 1
            if keep < len(data):
                with self.trials_path.open("r+b") as file:
                    file.truncate(keep)
        return self.rows()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest in one step."""
        replace_file(self.manifest_path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def append(self, row: Row) -> None:
        """Add one finished trial, at once and whole."""
        _append(self.trials_path, row)

    def fail(self, row: Row) -> None:
        """Note a trial that failed by itself, with its seed, its error, and the command that replays it."""
        _append(self.failures_path, row)

    def finish(self, manifest: dict[str, Any], rows: list[Row]) -> str:
        """Write the table and the digest.  Returns the digest."""
        import polars

        ordered = in_order(rows)
        frame = polars.DataFrame([{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in ordered], infer_schema_length=None)
        frame.write_csv(self.path / "table.csv")
        frame.write_parquet(self.path / "table.parquet")
        manifest = {**manifest, "digest": digest(ordered), "trials": len(ordered)}
        self.write_manifest(manifest)
        return str(manifest["digest"])


def _append(path: Path, row: Row) -> None:
    with path.open("ab") as file:
        file.write((json.dumps(row, sort_keys=True) + "\n").encode())


def in_order(rows: list[Row]) -> list[Row]:
    """Rows in the fixed order of their keys."""
    return sorted(rows, key=lambda row: str(row["key"]))


def digest(rows: list[Row]) -> str:
    """BLAKE2b-128, in hex, of rows in their fixed order (floats by their shortest decimal form); `wall_` columns are left out."""
    state = hashlib.blake2b(digest_size=16)
    for row in in_order(rows):
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
    """Write a file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
