"""What the views made of numbers share: captions, ages, amounts, what may be added up, and the look."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import panel as pn

from marketdash.instruments import Universe
from marketdash.market import STATES, Market
from marketdash.views import theme

MINUS, DASH, NBSP = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"

SUBUNITS = {"GBp": 0.01, "GBX": 0.01, "ZAc": 0.01, "ILA": 0.01, "USX": 0.01}
"""Price units that are a part of their currency → how much of it."""

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹"}
_THOUSANDS = ("", "K", "M", "B", "T")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_TROUBLE = ("starting", "retrying", "stalled")


def pulse(market: Market) -> tuple[int, int]:
    """What `View.changed` returns where ages are shown: it moves with prices and with market seconds."""
    # Each part only grows within an epoch, so the sum grows whenever one of them does.
    return market.epoch, market.version + market.clock.now_us() // 1_000_000 + market.closed


def caption(market: Market) -> dict[str, str]:
    """The chip beside a title: `label`, `state` (the label is empty for what is live) and `why`."""
    status = market.status
    if market.closed:
        return {"label": "CLOSED", "state": "closed", "why": status.message}
    if status.state in _TROUBLE:
        state = "none" if status.state == "starting" else "stale"
        return {"label": status.state.upper(), "state": state, "why": status.message}
    mode = market.source.mode
    if mode != "live":
        return {"label": market.label, "state": mode, "why": market.source.entitlement.note}
    if not market.calendar.is_open(market.clock.now_us()):
        return {"label": "CLOSED", "state": "closed", "why": f"{market.calendar.name} is closed."}
    return {"label": "", "state": "live", "why": ""}


def spelled(universe: Universe, symbol: Any) -> str:
    """A symbol as the universe spells it; empty if it is not there."""
    return str(universe.get(symbol).symbol) if symbol in universe else ""


def rounded_age(us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ages (microseconds) as the seconds that are told: whole seconds, minutes, hours or days; -1 stays."""
    seconds = us // 1_000_000
    unit = np.select([seconds >= size for size, _ in _UNITS[:-1]], [size for size, _ in _UNITS[:-1]], 1)
    return np.where(us < 0, -1, seconds // unit * unit)


def age_text(seconds: float) -> str:
    """An age as a person says it.

    >>> age_text(185), age_text(-1)
    ('3\\xa0min', '–')
    """
    for size, name in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f}{NBSP}{name}"
    return DASH if seconds < 0 else f"0{NBSP}s"


def signed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A change with its sign; what rounds to zero has none, what is unknown is a dash.

    >>> signed(-0.4213, unit="%"), signed(float("nan"))
    ('−0.42%', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):,.{digits}f}"
    zero = not text.strip("0.,")
    return f"{'' if zero else '+' if value > 0 else MINUS}{text}{unit}"


def compact(value: float | None, currency: str = "") -> str:
    """An amount in three digits at most.

    >>> compact(1_234_000_000, "USD"), compact(950, "CHF")
    ('$1.2B', 'CHF\\xa0950')
    """
    if value is None or not math.isfinite(value):
        return DASH
    size, step = abs(value), 0
    # 999.6 would read 1000, so it is already one of the next.
    while size >= 999.5 and step < len(_THOUSANDS) - 1:
        size, step = size / 1000, step + 1
    number = f"{size:.1f}" if step and size < 99.95 else f"{size:,.0f}"
    sign = _SIGNS.get(currency, f"{currency}{NBSP}" if currency else "")
    return f"{MINUS if value < 0 else ''}{sign}{number}{_THOUSANDS[step]}"


@dataclass(frozen=True)
class Money:
    """What may be added up: what is in the most common currency, as `scale` times price times size."""

    currency: str
    currencies: int
    counted: npt.NDArray[np.bool_]
    scale: npt.NDArray[np.float64]

    @classmethod
    def of(cls, universe: Universe) -> Money:
        names = [item.currency for item in universe]
        common = Counter(names).most_common(1)[0][0] if names else ""
        scale = [SUBUNITS.get(item.price_unit, 1.0) * item.multiplier for item in universe]
        counted = np.array([name == common for name in names], np.bool_)
        return cls(common, len(set(names)), counted, np.array(scale, np.float64))


class TextComponent(pn.custom.JSComponent):
    """A component whose `texts` are params that Python writes and the browser only reads.

    For any change Panel works out the theme anew, looks for models in it and listens for an answer, which
    takes ten times as long as the change; a text needs none of it.
    """

    _constants: ClassVar[dict[str, Any]] = {"states": list(STATES), "colours": theme.STATE_COLOURS}
    texts: ClassVar[frozenset[str]] = frozenset()

    @property
    def _linked_properties(self) -> tuple[str, ...]:
        return tuple(name for name in super()._linked_properties if name not in self.texts)

    def _update_properties(self, *events: Any, doc: Any) -> dict[str, Any]:
        if self.texts.issuperset(event.name for event in events):
            return {event.name: event.new for event in events}
        return super()._update_properties(*events, doc=doc)

    def _update_model(
        self, events: Any, msg: dict[str, Any], root: Any, model: Any, doc: Any, comm: Any
    ) -> None:
        if self.texts.issuperset(msg):
            model.data.update(**msg)
        else:
            super()._update_model(events, msg, root, model, doc, comm)


@cache
def stylesheet(*names: str) -> str:
    """The style files of these names that lie beside this one, with the theme's colours as variables."""
    colours = {"up": theme.UP, "down": theme.DOWN, "flat": theme.FLAT, "accent": theme.ACCENT}
    variables = "".join(f"--md-{name}: {colour};" for name, colour in colours.items())
    sheets = [f":host {{ {variables} --md-font: {theme.FONT}; }}"]
    return "\n".join(sheets + [Path(__file__).with_name(name).read_text("utf-8") for name in names])
