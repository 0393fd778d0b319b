"""What a view is: it draws once, then patches what changed when its pump says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import panel as pn
import param

from marketdash.market import Market
from marketdash.registry import Registry
from marketdash.views.cell import in_cell
from marketdash.views.pump import Pump

VIEWS: Registry[type[View]] = Registry("view", home="marketdash.views")

V = TypeVar("V", bound="type[View]")


class View(pn.viewable.Viewer):
    """Draws one market for one screen.

    A subclass implements `draw`, which is called once and returns anything that Panel can show, and
    `update`, which is called at the display rate while something may have changed and patches what it
    drew. Both run where the document may be touched. A view belongs to one document: make a new one for
    each session and each cell.
    """

    title: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ("bars",)
    period: ClassVar[float] = 0.0
    """Least seconds between two updates; 0 means every display tick."""

    symbol = param.String(default="", doc="The instrument that is selected on this screen.")

    def __init__(self, market: Market, **params: Any) -> None:
        self.market = market
        self._drawn: Any = None
        self._cell: Any = None
        self._seen: tuple[int, int] = (-1, -1)
        self._due = 0.0
        self.pump: Pump | None = None
        super().__init__(**params)

    def draw(self) -> Any:
        """Return what is shown, from a snapshot of the market; called once."""
        raise NotImplementedError

    def update(self) -> None:
        """Bring what is shown up to date; after a jump of the clock `jumped` is True."""

    @property
    def jumped(self) -> bool:
        """Whether the market's clock was set since the last update, so that everything must be drawn anew."""
        return self._seen[0] != self.market.epoch

    def changed(self) -> tuple[int, int]:
        """What `update` compares: the market's epoch, and a number that grows with what this view reads."""
        return self.market.epoch, self.market.version

    def tick(self) -> bool:
        """Update if something changed and the period has passed; returns whether it did."""
        now, state = time.monotonic(), self.changed()
        jumped = state[0] != self._seen[0]
        if self._drawn is None or state == self._seen or (now < self._due and not jumped):
            return False
        self.update()
        self._seen, self._due = state, now + self.period
        return True

    def refresh(self) -> None:
        """Update at the next tick even if the market has not changed; a view calls it when a choice changed."""
        self._seen = (self._seen[0], -1)
        self._due = 0.0
        if self.pump is not None:
            self.pump.wake()

    @property
    def drawn(self) -> Any:
        """What `draw` returned, as a Panel object."""
        if self._drawn is None:
            state = self.changed()
            self._drawn = pn.panel(self.draw(), sizing_mode="stretch_width")
            self._seen = state
        return self._drawn

    def redraw(self) -> None:
        """Draw everything anew at the next tick, as after a jump of the clock."""
        self._seen = (-1, -1)
        self._due = 0.0

    def __panel__(self) -> Any:
        if self.pump is None and pn.state.curdoc is None:
            # Shown by itself in a cell: nobody else will pump it.
            if self._cell is None:
                self._cell = in_cell(self)
            return self._cell
        return self.drawn if self._cell is None else self._cell


def view(name: str) -> Callable[[V], V]:
    """Register a view: `@view("depth")` puts it below the others on the page, and makes `md.view("depth", market)`."""

    def register(cls: V) -> V:
        VIEWS.add(name, cls)
        return cls

    return register
