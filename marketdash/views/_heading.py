"""The heading of a coloured map: title, chip where the market is not live, notes, and the colours' scale."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import panel as pn

from marketdash.market import Market
from marketdash.views import theme
from marketdash.views._numbers import MINUS, caption, stylesheet

_CSS = """
.map { flex-wrap: wrap; gap: 2px 8px; min-height: 0; line-height: 20px; }
.map .quiet { font-size: 12px; }
.map .scale { display: inline-flex; align-items: center; gap: 6px; white-space: nowrap; margin-left: auto; }
.map i { display: inline-block; width: 84px; height: 8px; border-radius: 4px; }
"""

_HTML = """
<div class="numbers"><div class="caption map">
  <h3>{title}</h3><span class="chip" style="--chip:{colour}" title="{why}">{label}</span>
  <span class="quiet">{notes}</span>
  <span class="quiet scale">{low}<i style="background:linear-gradient(90deg, {colours})"></i>{high}</span>
</div></div>
"""


class Heading:
    """A pane that is only sent when its text changes."""

    def __init__(self) -> None:
        sheets = [stylesheet("_numbers.css"), _CSS]
        self.pane: Any = pn.pane.HTML(  # type: ignore[no-untyped-call]
            "", stylesheets=sheets, sizing_mode="stretch_width", margin=(0, 0, 6, 0)
        )

    def tell(self, market: Market, title: str, notes: Iterable[str], scale: float) -> None:
        """Show this; `scale` is the change in per cent at both ends of the colours."""
        text = heading(market, title, notes, scale)
        if text != self.pane.object:
            self.pane.object = text


def heading(market: Market, title: str, notes: Iterable[str], scale: float) -> str:
    """The heading as HTML."""
    chip, colours = caption(market), ", ".join(theme.diverging(9))
    return _HTML.format(
        title=escape(title),
        colour=theme.STATE_COLOURS[chip["state"]],
        why=escape(chip["why"]),
        label=escape(chip["label"]),
        notes=escape(" · ".join(notes)),
        low=f"{MINUS}{scale:g}%",
        high=f"+{scale:g}%",
        colours=colours,
    )
