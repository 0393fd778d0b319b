"""Markets under a test's hand: a clock that it moves, prices that it feeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pandas as pd

from marketdash.clock import to_us
from marketdash.instruments import Universe
from marketdash.market import Market
from marketdash.schema import Event
from marketdash.sources.base import BaseSource

FRIDAY = "2024-03-01 15:00:00+00:00"


class Hand:
    """A clock that only a test moves."""

    def __init__(self, now: str = FRIDAY) -> None:
        self.us = to_us(pd.Timestamp(now))

    def now_us(self) -> int:
        return self.us

    def now(self) -> pd.Timestamp:
        return pd.Timestamp(self.us, unit="us", tz="UTC")

    def move(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


class Silent(BaseSource):
    """A source that says nothing by itself: the test feeds its market."""

    name, stall_after, slow_history, cadence = "silent", None, False, 10.0

    def __init__(self, universe: Universe, clock: Hand, mode: str = "live") -> None:
        super().__init__(universe, clock=clock)
        self.mode = mode

    async def batches(self) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield "ticks", None  # type: ignore[misc]


class Scene:
    """A market of a few instruments under a test's hand."""

    def __init__(self, universe: Universe, now: str = FRIDAY, mode: str = "live") -> None:
        self.clock = Hand(now)
        self.market = Market(Silent(universe, self.clock, mode)).start()

    def trade(self, prices: dict[str, float], size: float = 100.0) -> None:
        ids = self.market.universe.ids(prices)
        time = [self.clock.now()] * len(ids)
        self.market.feed(
            "ticks",
            {"instrument_id": ids, "time": time, "price": [*prices.values()], "size": [size] * len(ids)},
        )

    def days(self, closes: pd.DataFrame, volume: float = 1000.0) -> None:
        """Daily bars, one row of closes per day, before today."""
        rows = closes.rename_axis("time").reset_index().melt("time", var_name="symbol", value_name="close")
        price = {name: rows["close"] for name in ("open", "high", "low")}
        frame = pd.DataFrame({"time": rows["time"], "width": "1d", "volume": volume, **price})
        frame["close"] = rows["close"]
        frame["instrument_id"] = self.market.universe.ids(rows["symbol"])
        frame["known_at"] = frame["time"] + pd.Timedelta(days=1)
        self.market.feed("bars", frame)
