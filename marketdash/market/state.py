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


def judge(
    universe: Universe, last: LastPrices, now_us: int, *, mode: str, cadence: float, running: bool
) -> Values:
    """Judge every last price by its exchange's calendar.

    A price is stale when its exchange was open for more than three times the source's cadence (and a
    minute) since; when the source is not running, no price is better than stale. In closed hours a live
    price is a closing price.
    """
    times = last.times("time")
    priced = times > 0
    age = np.where(priced, np.maximum(now_us - times, 0), -1)
    trading_age = np.zeros(len(universe), np.int64)
    opened = np.zeros(len(universe), np.bool_)
    for name, ids in _by_calendar(universe).items():
        trading_age[ids] = _open_time(name, times[ids], priced[ids], now_us)
        opened[ids] = calendar(name).is_open(now_us)
    state = np.full(len(universe), STATES.index(mode), np.int8)
    if mode in ("live", "delayed"):
        state[~opened] = CLOSED
        if not running:
            state[:] = STALE
    limit = max(STALE_AFTER_CADENCES * cadence, STALE_AT_LEAST_S) * 1e6
    state[trading_age > limit] = STALE
    state[~priced] = NONE
    return Values(age, trading_age, state)


def _by_calendar(universe: Universe) -> dict[str, npt.NDArray[np.int64]]:
    names = np.array([item.calendar for item in universe])
    return {str(name): np.flatnonzero(names == name) for name in universe.calendars}


def _open_time(
    name: str, times: npt.NDArray[np.int64], priced: npt.NDArray[np.bool_], now_us: int
) -> npt.NDArray[np.int64]:
    # Instruments share few distinct times in a quiet market and are near now in a busy one: only what is
    # older than a day needs the calendar's sum, once per distinct time.
    result = np.zeros(len(times), np.int64)
    recent = priced & (now_us - times <= 0)
    rest = priced & ~recent
    if not rest.any():
        return result
    exchange = calendar(name)
    oldest = int(times[rest].min())
    regular = exchange.regular(max(oldest, now_us - 400 * DAY_US), now_us)
    if not regular:
        return result
    starts = np.array([start for start, _ in regular])
    ends = np.minimum(np.array([end for _, end in regular]), now_us)
    before = np.concatenate([[0], np.cumsum(ends - starts)])
    row = np.searchsorted(starts, times[rest], side="right") - 1
    inside = np.where(row >= 0, np.clip(times[rest] - starts[np.maximum(row, 0)], 0, None), 0)
    length = (ends - starts)[np.maximum(row, 0)]
    passed = np.where(row >= 0, before[np.maximum(row, 0)] + np.minimum(inside, length), 0)
    result[rest] = before[-1] - passed
    return result
