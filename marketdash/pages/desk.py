"""What a page asks of the process that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from marketdash.market import Market


@dataclass(frozen=True)
class Choice:
    """One market that a viewer may pick: its source, how it is called, and what is special about it."""

    source: str
    title: str
    note: str = ""


class Desk(Protocol):
    """Hands out markets: a live one is shared by all viewers, a replay belongs to the one who asked."""

    @property
    def default(self) -> str: ...

    def choices(self) -> list[Choice]: ...

    def take(self, source: str, principal: str) -> Market:
        """The market of this source; give it back with `give_back`."""
        ...

    def give_back(self, market: Market, principal: str) -> None: ...
