"""The strip: the whole market in a row of numbers, each with what it counts and how old that is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import param

from marketdash.instruments import Universe
from marketdash.market import STATES, Market, Values
from marketdash.views._numbers import (
    DASH,
    Money,
    TextComponent,
    age_text,
    caption,
    compact,
    pulse,
    rounded_age,
    signed,
    spelled,
    stylesheet,
)
from marketdash.views.base import View, view

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# An aggregate is no better than its worst input.
_FROM_BEST = ("live", "simulated", "replay", "delayed", "closed", "stale", "none")
_RANK = np.array([_FROM_BEST.index(state) for state in STATES], np.int8)
_STALE = STATES.index("stale")


@dataclass(frozen=True, slots=True)
class Part:
    """The inputs of a number: how many, the oldest one's age (microseconds, -1 if none), the worst state."""

    count: int
    age: int
    state: str

    @classmethod
    def nothing(cls) -> Part:
        return cls(0, -1, "none")

    @classmethod
    def of(cls, values: Values, used: Mask) -> Part:
        count = int(np.count_nonzero(used))
        if not count:
            return cls.nothing()
        return cls(count, int(values.age[used].max()), _FROM_BEST[int(_RANK[values.state[used]].max())])


@dataclass(frozen=True, slots=True)
class Mover:
    """One extreme: the instrument, its change as a fraction, and how old that is."""

    id: int
    change: float
    part: Part


@dataclass(frozen=True, slots=True)
class Summary:
    """The market in numbers; NaN and None where nothing is known.

    `change` is the mean change of the inputs of `breadth` as a fraction; `turnover` is the value of the
    inputs of `traded`, of which `traded_stale` are stale.
    """

    total: int
    priced: int
    stale: int
    breadth: Part
    change: float
    advancers: int
    decliners: int
    unchanged: int
    traded: Part
    traded_stale: int
    turnover: float
    best: Mover | None
    worst: Mover | None


def summarize(
    change: Floats,
    turnover: Floats,
    day: Ints,
    priced_ever: Mask,
    values: Values,
    exchange: Ints,
    money: Money,
) -> Summary:
    """Sum up all instruments; every array is by instrument id, `exchange` numbers the calendars.

    An instrument is priced today if its last price is of the newest trading day on its exchange. What is
    stale is left out of the mean, of the counts and of the movers, unless fewer than half would be left:
    then all are used and the number is stale. Turnover adds up whatever has traded today, since silence
    does not undo a trade.
    """
    newest = np.zeros(int(exchange.max(initial=-1)) + 1, np.int64)
    np.maximum.at(newest, exchange, np.where(priced_ever, day, 0))
    today = priced_ever & (day == newest[exchange])
    stale = today & (values.state == _STALE)
    compared = today & np.isfinite(change)
    fresh = compared & ~stale
    used = fresh if 2 * np.count_nonzero(fresh) >= np.count_nonzero(compared) else compared
    ids = np.flatnonzero(used)
    changes = change[ids]
    sold = today & money.counted & np.isfinite(turnover)
    sold_stale = sold & stale
    traded = Part.of(values, sold)
    if 2 * np.count_nonzero(sold_stale) < traded.count:
        traded = Part(traded.count, traded.age, Part.of(values, sold & ~stale).state)
    return Summary(
        total=len(change),
        priced=int(np.count_nonzero(today)),
        stale=int(np.count_nonzero(stale)),
        breadth=Part.of(values, used),
        change=float(changes.mean()) if len(ids) else float("nan"),
        advancers=int(np.count_nonzero(changes > 0)),
        decliners=int(np.count_nonzero(changes < 0)),
        unchanged=int(np.count_nonzero(changes == 0)),
        traded=traded,
        traded_stale=int(np.count_nonzero(sold_stale)),
        turnover=float(turnover[sold] @ money.scale[sold]) if traded.count else float("nan"),
        best=_mover(int(ids[changes.argmax()]), change, values) if len(ids) else None,
        worst=_mover(int(ids[changes.argmin()]), change, values) if len(ids) > 1 else None,
    )


def _mover(instrument: int, change: Floats, values: Values) -> Mover:
    part = Part(1, int(values.age[instrument]), STATES[int(values.state[instrument])])
    return Mover(instrument, float(change[instrument]), part)


class StripNumbers(TextComponent):
    """The numbers in the browser: `numbers` is all they say, as JSON; the browser says `select`."""

    _esm = Path(__file__).with_name("_strip.js")
    texts = frozenset({"numbers"})

    numbers = param.String(doc="The texts of all numbers, as JSON.")


@view("strip")
class Strip(View):
    """The mean change, breadth, turnover, the number of prices and two movers; a click on one selects it."""

    title = "Market"
    reads = ("last", "bars")

    def __init__(self, market: Market, **params: Any) -> None:
        self._money = Money.of(market.universe)
        self._exchange = exchanges(market.universe)
        self.numbers: StripNumbers | None = None
        super().__init__(market, **params)

    def changed(self) -> tuple[int, int]:
        return pulse(self.market)

    def summary(self) -> Summary:
        """The market in numbers, now."""
        last = self.market.graph.last
        return summarize(
            last.change,
            self.market.day()["turnover"],
            last.times("day"),
            last.times("time") > 0,
            self.market.values(),
            self._exchange,
            self._money,
        )

    def draw(self) -> Any:
        self.numbers = StripNumbers(
            numbers=self._text(),
            stylesheets=[stylesheet("_numbers.css", "_strip.css")],
            sizing_mode="stretch_width",
            margin=0,
        )
        self.numbers.on_msg(lambda event: self._heard(event.data))
        return self.numbers

    def update(self) -> None:
        assert self.numbers is not None
        self.numbers.numbers = self._text()

    def _text(self) -> str:
        told = tell(self.summary(), self.market.universe, self._money)
        told["caption"] = {"title": self.title, **caption(self.market)}
        return json.dumps(told, separators=(",", ":"), allow_nan=False)

    def _heard(self, said: Any) -> None:
        if isinstance(said, dict) and (symbol := spelled(self.market.universe, said.get("select"))):
            self.symbol = symbol


def tell(summary: Summary, universe: Universe, money: Money) -> dict[str, Any]:
    """The numbers as texts: by name a value, its sign, its state, its age and what it counts."""
    breadth, traded = summary.breadth, summary.traded
    counted = _of(breadth.count, summary.total)
    sold = _of(traded.count, int(np.count_nonzero(money.counted)))
    turnover_note = sold if money.currencies < 2 else f"{money.currency} only, {sold}"
    if summary.traded_stale:
        turnover_note += f", {summary.traded_stale:,} stale"
    stale = f", {summary.stale:,} stale" if summary.stale else ""
    return {
        "index": _number(signed(summary.change * 100, unit="%"), breadth, counted, summary.change),
        "breadth": {
            "counts": [summary.advancers, summary.decliners, summary.unchanged] if breadth.count else [],
            **_number(DASH, breadth, counted),
        },
        "turnover": _number(compact(summary.turnover, money.currency), traded, turnover_note),
        "priced": _number(f"{summary.priced:,}", breadth, f"of {summary.total:,}{stale}"),
        "best": _moved(summary.best, universe),
        "worst": _moved(summary.worst, universe),
    }


def exchanges(universe: Universe) -> Ints:
    """A number for the calendar of each instrument."""
    numbers = {name: i for i, name in enumerate(universe.calendars)}
    return np.array([numbers[item.calendar] for item in universe], np.int64)


def _number(text: str, part: Part, note: str, sign: float = 0.0) -> dict[str, Any]:
    age = int(rounded_age(np.array([part.age]))[0])
    return {
        "text": text,
        "sign": (sign > 0) - (sign < 0),
        "state": part.state,
        "age": age_text(age) if age >= 0 else "",
        "note": note,
    }


def _moved(mover: Mover | None, universe: Universe) -> dict[str, Any]:
    if mover is None:
        return {"symbol": "", **_number(DASH, Part.nothing(), "")}
    item = universe[mover.id]
    number = _number(signed(mover.change * 100, unit="%"), mover.part, item.name, mover.change)
    return {"symbol": item.symbol, **number}


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,}"
