"""What a checker answers: valid, invalid with evidence, or unknown (budget spent).  Never a bare bool.

Decides: the shape of verdicts and of evidence.  May not know: how a verdict was reached, files, figures.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["valid", "invalid", "unknown"]


class Evidence(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why a history is invalid.

    `problem` is one sentence.  `operations` are the positions, in the history that was checked, of what the reader needs to see; `offending`
    those that contradict each other.  `start_us` and `end_us` bound the smallest failing window found.  `prefix` is the longest
    linearizable prefix: the positions of the operations completed in it, by completion.
    """

    problem: str
    key: str | None = None
    operations: list[int] = []
    offending: list[int] = []
    start_us: int | None = None
    end_us: int | None = None
    prefix: list[int] = []


class Verdict(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to one question about one history.

    `states` counts configurations explored (0 where no search was needed).  `by_key` says that it was shown key by key: for
    linearizability this is exact (it composes), elsewhere it is weaker than the whole.  `note` says what a reader should know.
    """

    status: Status
    consistency: str = "linearizable"
    algorithm: str = ""
    ops: int = 0
    keys: int = 0
    states: int = 0
    by_key: bool = False
    note: str = ""
    evidence: Evidence | None = None

    def __bool__(self) -> bool:
        raise TypeError("a verdict is not a bool: it may be unknown; compare verdict.status")
