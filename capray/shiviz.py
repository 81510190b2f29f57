"""A trial's trace in ShiViz's log format: every event with its host and its vector clock.

Decides: which events a host has, their clocks, the text of the file.  May not know: engines, policies.
Sources: ShiViz (Beschastnikh et al., "Debugging distributed systems", CACM 2016; bestchai.net/shiviz): the first line of a file is the regular
expression that parses it, the second the delimiter of executions (none here), then the events; a host's n-th event has n in its own place of
its clock, and a clock that holds another host's n says that its n-th event happened before.  Vector clocks: Fidge 1988, Mattern 1989.

Hosts are the nodes, and `faults` for the fault schedule.  Events are messages sent (with the reason where one was dropped, so that it is received
nowhere) and received, and clients' operations asked and answered.  A message that arrives after the traced window is received all the same.  At one
instant a node's events stand in the order of the engine: what it received, what it was asked, what it sent, what it answered.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from capray.errors import show_us, wrong
from capray.record import FaultWindow, Operation, Record

REGEX = r"(?<event>.*)\n(?<host>\S*) (?<clock>{.*})"
RECEIVE, ASK, SEND, ANSWER = range(4)
FAULTS = "faults"


class Event(NamedTuple):
    """One event in the total order; `number` is the message's place in the trace, -1 for none."""

    at: int
    turn: int
    host: str
    number: int
    text: str


def shiviz(record: Record) -> str:
    """The file's text.  Raises InputError where the record carries no trace."""
    if not record.trace:
        raise wrong("trace", "(none)", "a window of time in which the trial sent messages")
    clocks: dict[str, dict[str, int]] = {}
    sent: dict[int, dict[str, int]] = {}
    lines = [REGEX, ""]
    for event in events(record):
        clock = clocks.setdefault(event.host, {})
        if event.turn == RECEIVE and event.number >= 0:
            for host, count in sent[event.number].items():
                clock[host] = max(count, clock.get(host, 0))
        clock[event.host] = clock.get(event.host, 0) + 1
        if event.turn == SEND:
            sent[event.number] = dict(clock)
        lines += [event.text, f"{event.host} {json.dumps(clock, sort_keys=True)}"]
    return "\n".join(lines) + "\n"


def events(record: Record) -> list[Event]:
    """Every event of the trace's window, in the order in which a clock is reckoned: a message is sent before it is received."""
    first = record.trace[0].sent
    last = max(max(event.sent, event.arrived or 0) for event in record.trace)
    out = []
    for number, message in enumerate(record.trace):
        what = f"{message.label} ({message.kind})"
        lost = "" if message.arrived is not None else f", dropped: {message.dropped or 'not told'}"
        out.append(Event(message.sent, SEND, f"n{message.src}", number, f"{show_us(message.sent)}: send {what} to n{message.dst}{lost}"))
        if message.arrived is not None:
            out.append(Event(message.arrived, RECEIVE, f"n{message.dst}", number, f"{show_us(message.arrived)}: receive {what} from n{message.src}"))
    for op in record.history:
        out += [event for event in _asked(op) if first <= event.at <= last]
    for fault in record.faults:
        out += [event for event in _fault(fault) if first <= event.at <= last]
    return sorted(out)


def _asked(op: Operation) -> list[Event]:
    if op.node is None:
        return []
    asked = f"{op.f} {op.key}" + ("" if op.f == "read" else f" = {json.dumps(op.value)}")
    out = [Event(op.invoke, ASK, f"n{op.node}", -1, f"{show_us(op.invoke)}: client {op.process} asks {asked}")]
    if op.complete is not None:
        told = f" -> {json.dumps(op.result)}" if op.f == "read" and op.type == "ok" else ""
        out.append(Event(op.complete, ANSWER, f"n{op.node}", -1, f"{show_us(op.complete)}: client {op.process} gets {op.type} for {asked}{told}"))
    return out


def _fault(fault: FaultWindow) -> list[Event]:
    where = " | ".join(",".join(f"n{node}" for node in group) for group in fault.groups) or ",".join(f"n{node}" for node in fault.nodes)
    ends = [(fault.at, "begins"), *([(fault.until, "ends")] if fault.until is not None else [])]
    return [Event(at, ASK, FAULTS, -1, f"{show_us(at)}: {fault.kind} {where} {what}") for at, what in ends]
