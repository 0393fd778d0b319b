"""How far a number can be trusted: its age, and the state that a screen must show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.calendars import DAY_US, calendar
from marketdash.frames import LastPrices
from marketdash.instruments import Universe

STATES = ("none", "live", "delayed", "stale", "closed", "replay", "simulated")
NONE, LIVE, DELAYED, STALE, CLOSED, REPLAY, SIMULATED = range(len(STATES))

STALE_AFTER_CADENCES = 3.0
STALE_AT_LEAST_S = 60.0
MONTH_US = 30 * DAY_US
REMEMBERED_US = 400 * DAY_US
"""How far back the age of a price is told in trading time; an older price has this age."""


@dataclass(frozen=True)
class Status:
    """What the source is doing: `starting running retrying stalled ended closed`, and why."""

    state: str = "starting"
    message: str = ""


class Values(NamedTuple):
    """Age and state of every instrument's last price.

    `age` is microseconds from the price to the market's now (-1 without a price), `trading_age` only
    the part in which the exchange was open; `state` holds indices into `STATES`.
    """

    age: npt.NDArray[np.int64]
    trading_age: npt.NDArray[np.int64]
    state: npt.NDArray[np.int8]


class Judge:
    """Judges every last price by its exchange's calendar.

    A price is stale when its exchange was open for more than three times the source's cadence (and a
    minute) since; when the source is not running, no price is better than stale. In closed hours a live
    price is a closing price.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self._hours = {name: _Hours(name) for name in universe.calendars}

    def values(self, last: LastPrices, now_us: int, *, mode: str, cadence: float, running: bool) -> Values:
        """The age and state of every price, now."""
        times = last.times("time")
        priced = times > 0
        age = np.where(priced, np.maximum(now_us - times, 0), -1)
        trading_age = np.zeros(len(times), np.int64)
        closed = np.zeros(len(times), np.bool_)
        for name, hours in self._hours.items():
            ids = self.universe.by_calendar[name]
            alone = len(self._hours) == 1  # then there is nothing to pick out
            trading_age[ids] = hours.open_since(times if alone else times[ids], now_us)
            closed[ids] = not hours.is_open(now_us)
        state = np.full(len(times), STATES.index(mode), np.int8)
        if mode in ("live", "delayed"):
            state[closed] = CLOSED
            if not running:
                state[:] = STALE
        limit = max(STALE_AFTER_CADENCES * cadence, STALE_AT_LEAST_S) * 1e6
        state[trading_age > limit] = STALE
        state[~priced] = NONE
        trading_age[~priced] = 0
        return Values(age, trading_age, state)


class _Hours:
    """The regular sessions of one calendar around now, added up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._from = self._until = 0

    def _cover(self, now_us: int) -> None:
        if self._from + REMEMBERED_US <= now_us < self._until:
            return
        # A month further on both sides, so that a moving "now" stays inside for a while.
        self._from, self._until = now_us - REMEMBERED_US - MONTH_US, now_us + MONTH_US
        regular = calendar(self.name).regular(self._from, self._until)
        self._opens, self._closes = np.array(regular, np.int64).reshape(-1, 2).T.copy()
        # One session of no length before all, so that there is one before every moment.
        self._opens = np.insert(self._opens, 0, self._from - 1)
        self._closes = np.insert(self._closes, 0, self._from - 1)
        self._before = np.concatenate([[0], np.cumsum(self._closes - self._opens)[:-1]])

    def is_open(self, now_us: int) -> bool:
        self._cover(now_us)
        return bool(now_us < self._closes[np.searchsorted(self._opens, now_us, side="right") - 1])

    def open_since(self, times: npt.NDArray[np.int64], now_us: int) -> npt.NDArray[np.int64]:
        """How long the exchange was open between each moment and now."""
        self._cover(now_us)
        times = np.maximum(times, now_us - REMEMBERED_US)
        open_now, opened = self._open_until(np.array([now_us])), self._open_until(times)
        since: npt.NDArray[np.int64] = np.maximum(open_now - opened, 0)
        return since

    def _open_until(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        # Most prices are of the session that is on or was the last: they need no search.
        row = np.full(len(times), np.searchsorted(self._opens, times.max(initial=0), side="right") - 1)
        older = times < self._opens[row]
        row[older] = np.maximum(np.searchsorted(self._opens, times[older], side="right") - 1, 0)
        inside = np.clip(times, self._opens[row], self._closes[row]) - self._opens[row]
        return self._before[row] + inside  # type: ignore[no-any-return]
