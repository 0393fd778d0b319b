"""Clocks that move only when a test says so."""

from __future__ import annotations

import asyncio
import time

import pandas as pd

from marketdash.clock import ReplayClock, to_timestamp, to_us
from marketdash.market import Market
from marketdash.sources.replay import ReplaySource

PATIENCE_S = 30.0


class ManualWall:
    """A wall clock in seconds: `ReplaySource(log, wall=wall)` plays when `wall.advance(…)` is called.

    >>> wall = ManualWall()
    >>> wall.advance(1.5)
    >>> wall()
    1.5
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class ManualClock:
    """A market's clock for tests of live sources.

    >>> clock = ManualClock("2018-11-16 15:00")
    >>> clock.advance(90)
    >>> clock.now().isoformat()
    '2018-11-16T15:01:30+00:00'
    """

    def __init__(self, start: object = "2018-11-16 15:00") -> None:
        self.us = to_us(start)

    def now_us(self) -> int:
        return self.us

    def now(self) -> pd.Timestamp:
        return to_timestamp(self.us)

    def set(self, when: object) -> None:
        """Set the time, which may also go back."""
        self.us = to_us(when)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.us += round(seconds * 1e6)


def is_caught_up(market: Market) -> bool:
    """Whether a replay has written all that its clock has reached."""
    source, now = market.source, market.clock.now_us()
    return not isinstance(source, ReplaySource) or source.complete_until(now) == now


async def caught_up(market: Market) -> None:
    """Wait on the market's own loop until a replay stands where its clock stands."""
    deadline = time.monotonic() + PATIENCE_S
    _wake(market)
    while not is_caught_up(market):
        await asyncio.sleep(0)
        assert time.monotonic() < deadline, f"{market} does not catch up with its clock"
    market.advance()


def wait_caught_up(market: Market) -> None:
    """As `caught_up`, for a market that runs on a thread of its own."""
    deadline = time.monotonic() + PATIENCE_S
    _wake(market)
    while not is_caught_up(market):
        time.sleep(0.001)
        assert time.monotonic() < deadline, f"{market} does not catch up with its clock"
    market.feed("ticks", {"time": _NO_TIMES, "instrument_id": [], "price": []})  # a turn of its loop


def _wake(market: Market) -> None:
    if isinstance(market.clock, ReplayClock):
        market.clock.pace = market.clock.pace  # whoever waits for the clock looks at it again


_NO_TIMES = pd.DatetimeIndex([], tz="UTC")
