"""Settings of the majority register (Attiya, Bar-Noy and Dolev 1995); apart from the replica, which is compiled, as a struct is not."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from capray.replica import Settings


class AbdSettings(Settings, frozen=True, kw_only=True):
    """How a read ends."""

    write_back: Annotated[
        bool,
        Meta(description="a read stores what it found at a majority before it answers; ABD 1995: true; false: one round, and reads may go backwards"),
    ] = True
