"""The data of a page: marked in its sections as they are made, packed into one piece when it is written.

Decides: how data stands in a page: a line for each piece (name, tab, JSON), deflated (RFC 1950) and in base64, which every browser since 2023 unpacks by
itself (DecompressionStream).  May not know: what the data is.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

EMBEDDED = re.compile(r"<script type='application/json' id='([^']+)'>(.*?)</script>", re.DOTALL)


def embedded(name: str, value: Any) -> str:
    """A value as JSON in a section, safe inside a script element and without a line break; `write_page` takes it out and packs it."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f"<script type='application/json' id='{name}'>{text.replace('<', chr(92) + 'u003c')}</script>"


def packed(name: str, text: str) -> str:
    """A text as an element that shows nothing."""
    return f"<script type='text/plain' id='{name}'>{base64.b64encode(zlib.compress(text.encode(), 6)).decode()}</script>"


def unpacked(page: str) -> dict[str, Any]:
    """What a page holds, by name: what `embedded` put in."""
    found = re.search(r"<script type='text/plain' id='packed-data'>(.*?)</script>", page)
    lines = zlib.decompress(base64.b64decode(found[1])).decode().split("\n") if found else []
    return {name: json.loads(text) for name, _, text in (line.partition("\t") for line in lines)}
