"""EDN, the notation of Jepsen and Knossos histories: text to plain values and back.

Decides: how EDN forms become Python values.  May not know: operations, histories.
Keywords become strings that keep their colon (`:ok`), symbols strings, maps dicts, vectors, lists and sets lists (a set's items in
their written order), tagged literals their content (`#jepsen.history.Op{...}` is a map), `nil` None.
Source: the edn format specification (github.com/edn-format/edn).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<open>\#\{|[\[({])|(?P<close>[\])}])|(?P<discard>\#_)"""
    r"""|(?P<tag>\#[A-Za-z][^\s,;()\[\]{}"]*)|(?P<char>\\(?:newline|space|tab|return|formfeed|backspace|u[0-9a-fA-F]{4}|.))"""
    r"""|(?P<atom>[^\s,;()\[\]{}"#\\][^\s,;()\[\]{}"]*)""",
    re.DOTALL,
)
_INTEGER = re.compile(r"([+-]?\d+)N?")
_FLOAT = re.compile(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)M?")
_KEYWORD = re.compile(r":[A-Za-z0-9*+!_?<>=.&|$%/#-]+")
_CLOSER = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_CHARS = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r", "formfeed": "\f", "backspace": "\b"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b", '"': '"', "\\": "\\", "/": "/"}
_CONSTANTS: dict[str, Any] = {"nil": None, "true": True, "false": False}


class EdnError(ValueError):
    """The text is not EDN; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


class _Open:
    """A collection that is being read."""

    def __init__(self, opener: str, line: int) -> None:
        self.opener = opener
        self.line = line
        self.items: list[Any] = []
        self.discard = 0

    def add(self, value: Any) -> None:
        if self.discard:
            self.discard -= 1
        else:
            self.items.append(value)

    def value(self) -> Any:
        if self.opener != "{":
            return self.items
        if len(self.items) % 2:
            raise EdnError(self.line, "a map needs an even number of forms")
        return {_map_key(key): value for key, value in zip(self.items[::2], self.items[1::2])}


def forms(text: str) -> Iterator[tuple[int, Any]]:
    """The top-level forms of `text` with the line each starts on; forms of an outermost vector or list are given one by one, so that a
    history may be either a sequence of maps or one vector of them.  Raises EdnError."""
    stack: list[_Open] = []
    top = _Open("[", 1)
    position, line = 0, 1
    unwrap = _first_opener(text) in ("[", "(")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise EdnError(line, f"unreadable EDN at {text[position:position + 20]!r}")
        kind, token, position = match.lastgroup, match[0], match.end()
        done = None
        if kind == "open":
            stack.append(_Open(token, line))
        elif kind == "close":
            done = _closed(stack, token, line)
        elif kind == "discard":
            (stack[-1] if stack else top).discard += 1
        elif kind not in ("space", "tag"):
            done = _Open("[", line)
            done.items.append(_scalar(str(kind), token, line))
        if done is not None:
            value = done.value() if kind == "close" else done.items[0]
            if unwrap and not stack and kind == "close":
                unwrap = False
            elif unwrap and len(stack) == 1 and not stack[0].discard:
                yield done.line, value
            elif stack:
                stack[-1].add(value)
            else:
                top.add(value)
                if top.items:
                    yield done.line, top.items.pop()
        line += token.count("\n")
    if stack:
        raise EdnError(stack[-1].line, f"the file ends inside the {stack[-1].opener!r} opened here")


def _first_opener(text: str) -> str | None:
    position = 0
    while (match := _TOKEN.match(text, position)) is not None:
        if match.lastgroup not in ("space", "tag"):
            return match[0]
        position = match.end()
    return None


def _closed(stack: list[_Open], token: str, line: int) -> _Open:
    if not stack or _CLOSER[stack[-1].opener] != token:
        raise EdnError(line, f"{token!r} closes nothing that is open")
    return stack.pop()


def _map_key(key: Any) -> str:
    return key if isinstance(key, str) else dumps(key)


def _scalar(kind: str, token: str, line: int) -> Any:
    if kind == "string":
        return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescape, token[1:-1], flags=re.DOTALL)
    if kind == "char":
        name = token[1:]
        return _CHARS.get(name) or (chr(int(name[1:], 16)) if len(name) == 5 else name)
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if (match := _INTEGER.fullmatch(token)) is not None:
        return int(match[1])
    if (match := _FLOAT.fullmatch(token)) is not None:
        return float(match[1])
    if token.startswith(":"):
        return token
    if token[0].isdigit():
        raise EdnError(line, f"unreadable number {token!r}")
    return token


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)


def dumps(value: Any) -> str:
    """One value as EDN: strings that look like keywords (`:ok`) are written as keywords, lists as vectors."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _KEYWORD.fullmatch(value) else _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dumps(key)} {dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(dumps, value)) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return f'"{escaped}"'
