"""The heading of a coloured map: title, chip where the market is not live, notes, and the colours' scale."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from bokeh.models.widgets import Div

from marketdash.market import Market
from marketdash.views import theme
from marketdash.views._numbers import MINUS, caption, pulse, stylesheet

STATUSES = ("starting", "running", "retrying", "stalled", "ended", "closed")
_CSS = """
.bk-clearfix { display: block; width: 100%; }
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


def beat(market: Market) -> tuple[int, int]:
    """What `View.changed` returns where a heading is shown: a `pulse` that the status moves as well."""
    epoch, moved = pulse(market)
    return epoch, moved * len(STATUSES) + STATUSES.index(market.status.state)


class Heading:
    """What stands above a map; only sent when it changes."""

    def __init__(self) -> None:
        # A Bokeh model rather than a Panel pane, which in a notebook asks the network for style sheets anew
        # whenever it changes.
        self.model = Div(
            stylesheets=[stylesheet("_numbers.css"), _CSS], sizing_mode="stretch_width", margin=(0, 0, 6, 0)
        )

    def tell(self, market: Market, title: str, notes: Iterable[str], scale: float) -> None:
        """Show this; `scale` is the change in per cent at both ends of the colours."""
        text = heading(market, title, notes, scale)
        if text != self.model.text:
            self.model.text = text


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
