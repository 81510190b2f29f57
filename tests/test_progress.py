"""What a sweep tells while it runs: a bar in a terminal, plain lines elsewhere, always on standard error."""

import os
import pty
import subprocess
import sys

from capray.sweeping import Progress, point_table, spanned

ROWS = [(0, 8, 0, None, 0), (1, 8, 2_000_000, {}, 0), (5, 8, 9_000_000, {}, 1), (7, 8, 9_500_000, {}, 1)]


def test_plain_lines_say_how_far_how_fast_how_long_and_what_failed(monkeypatch, capsys):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr("capray.sweeping.time.monotonic", lambda: float(next(clock)))
    progress = Progress()
    for row in ROWS:
        progress(*row)
    progress.close()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0].startswith("0/8 trials") and lines[-1].startswith("7/8 trials, 9.50 M messages, ")
    assert [" left" in line for line in lines] == [False, False, True, True], "one of eight says nothing of the others"
    assert "/s" in lines[-1] and " left" in lines[-1] and lines[-1].endswith("1 FAILED") and "FAILED" not in lines[0]


def test_a_plain_line_comes_once_in_a_while_and_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr("capray.sweeping.time.monotonic", lambda: 100.0)
    progress = Progress()
    for done in range(100):
        progress(done, 100, done, {} if done else None)
    progress(100, 100, 100, {})
    assert [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["0/100", "100/100"]


def test_in_a_terminal_it_is_a_bar_that_is_gone_when_it_is_closed():
    program = "from capray.sweeping import Progress\np = Progress()\n" + "".join(f"p(*{row!r})\n" for row in ROWS) + "p.close()\n"
    master, slave = pty.openpty()
    done = subprocess.run([sys.executable, "-c", program], stderr=slave, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "140"},
                          check=True)
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    assert done.stdout == b"" and "7/8" in shown and "9.50 M messages" in shown and "1 FAILED" in shown and "\x1b[?25h" in shown  # the cursor is back


def test_times_are_said_as_a_person_does():
    assert [spanned(s) for s in (0.4, 59, 61, 3600, 7_500)] == ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"]


def test_the_points_come_one_by_one_from_rows_in_the_order_of_keys():
    rows = ({"key": f"{label}|3|1s|{seed:06d}", "label": label, "policy": "abd", "shape": "halves", "nodes": 3, "duration": "1s", "seed": seed,
             "availability": seed / 2}
            for label in ("a", "b") for seed in range(3))
    points = point_table(rows)
    first = next(points)
    assert first["label"] == "a" and first["availability"] == {"mean": 0.5, "low": first["availability"]["low"], "high": first["availability"]["high"],
                                                               "trials": 3}
    assert [point["label"] for point in points] == ["b"]
