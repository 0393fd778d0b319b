"""A market that never closes and belongs to nobody: hundreds of invented companies, by a seed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from marketdash.calendars import DAY_US, REGULAR
from marketdash.clock import Clock, SystemClock, to_us
from marketdash.errors import SettingsError, UnknownNameError
from marketdash.schema import NAME, TIME, TOPICS, Batch, Event, width_us
from marketdash.sources._simulation import STEP_US, TICKS_PER_UNIT, TRADES, Ints, Messages, Model, advance
from marketdash.sources._simulation_past import Bars, day_bars, in_order, minute_bars, past_of
from marketdash.sources.base import BaseSource, Entitlement, source

PULL_US = 100_000
"""How often the stream looks at the clock."""
CATCH_UP_US = STEP_US
"""How much of a backlog is handed over before others on the loop get their turn."""
MINUTE_US = width_us("1min")


@source("simulated")
class SimulatedSource(BaseSource):
    """Trades and quotes of a simulated market, and the bars of its past.

    The same seed, number of instruments, rate and origin give the same rows, however they are asked for.
    `rate` counts trades and quotes together, per second, over all instruments. `argument` is a seed, or
    options by name; it wins over the keywords. The market starts at `origin`, or else at the minute that
    is under way; `minutes` and `days` say how many closed bars lie before it.

    >>> SimulatedSource("instruments=20,rate=50", origin="2024-03-01 14:30").universe.sectors[0]
    'Communication Services'
    """

    name = "simulated"
    mode = "simulated"
    slow_history = False
    entitlement = Entitlement(note="Simulated: no real market")

    def __init__(
        self,
        argument: str = "",
        *,
        seed: int = 7,
        instruments: int = 330,
        rate: float = 2500.0,
        clock: Clock | None = None,
        origin: Any = None,
        minutes: int = 1440,
        days: int = 250,
    ) -> None:
        given = {"seed": seed, "instruments": instruments, "rate": rate, "minutes": minutes, "days": days}
        chosen = {name: _number(name, value) for name, value in (given | _named(argument)).items()}
        self.minutes, self.days = int(chosen["minutes"]), int(chosen["days"])
        self.model = Model.draw(int(chosen["seed"]), int(chosen["instruments"]), chosen["rate"])
        clock = clock or SystemClock()
        super().__init__(self.model.universe, clock=clock)
        # From the start of the minute, so that the first live minute is whole; a given origin is kept.
        start = clock.now_us() // MINUTE_US * MINUTE_US if origin is None else to_us(origin)
        self.origin_us = start // STEP_US * STEP_US
        self.weights = self.model.weight
        # Eight times the mean wait for a trade in the quietest name.
        self.cadence = max(5.0, 8.0 / (TRADES * float(self.model.rate.min())))
        past = past_of(self.model, self.origin_us, self.minutes, self.days)
        self._state = past.state(self.origin_us // STEP_US, len(self.universe) * (self.minutes + self.days))
        self._reached = self.origin_us
        self._handed_us: int | None = None
        """When the event was known that is being handled, which may not be written yet."""
        self._step: list[tuple[str, Batch, Ints]] = []
        self._outbox: deque[Event] = deque()

    def __repr__(self) -> str:
        size, rate = len(self.universe), self.model.rate.sum()
        return f"<SimulatedSource seed {self.model.seed}: {size} instruments, {rate:,.0f} messages/s>"

    def history(self) -> Iterable[Event]:
        """Closed bars of the past, ordered by known-at: the days, then the minutes around the midnights."""
        past = past_of(self.model, self.origin_us, self.minutes, self.days)
        minutes = minute_bars(self.model, past)
        days = day_bars(self.model, past, minutes)
        if not self.minutes:
            minutes = minutes.rows(0, 0)
        found: list[Event] = []
        seq = 0
        for width, bars in in_order(days, minutes):
            found.append(("bars", _bars_batch(width, bars, seq)))
            seq += found[-1][1].num_rows
        return found

    def events(self, until_us: int) -> list[Event]:
        """What is known at `until_us` and was not returned before: ticks and quotes, step by step."""
        found: list[Event] = []
        while True:
            for i, (topic, batch, times) in enumerate(self._step):
                rows = int(np.searchsorted(times, until_us, side="right"))
                if rows:
                    found.append((topic, batch.slice(0, rows)))
                    self._step[i] = (topic, batch.slice(rows), times[rows:])
            if self._state.k * STEP_US > until_us:
                self._reached = max(self._reached, until_us)
                return found
            first_seq = self._state.rows
            self._state, messages = advance(self.model, self._state)
            self._step = list(_message_batches(messages, first_seq))

    def complete_until(self, now_us: int) -> int:
        """The moment up to which events were made and taken."""
        if self._handed_us is not None:
            return min(now_us, self._handed_us - 1)
        return min(now_us, self._reached)

    async def batches(self) -> AsyncIterator[Event]:
        """Follow the clock; after a stall, all that was missed comes in batches of at most a second."""
        while True:
            now = self.clock.now_us()
            for start in range(self._reached, now, STEP_US):
                # Kept here until taken: what a failing reader leaves behind comes after the restart.
                self._outbox.extend(self.events(min(start + STEP_US, now)))
                while self._outbox:
                    event = self._outbox.popleft()
                    self._handed_us = _first_known(event)
                    yield event
                    self._handed_us = None
                await asyncio.sleep(0)
            await asyncio.sleep((PULL_US - now % PULL_US) / 1e6)


_LIMITS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "seed": (int, 0, 2**32 - 1),
    "instruments": (int, 1, 5000),
    "rate": (float, 0.01, 1_000_000),
    "minutes": (int, 0, 10_080),
    "days": (int, 0, 2500),
}


def _named(argument: str) -> dict[str, str]:
    parts = [part.strip() for part in argument.split(",")] if argument.strip() else []
    if len(parts) == 1 and "=" not in parts[0]:
        return {"seed": parts[0]}
    options = {}
    for part in parts:
        name, equals, value = (item.strip() for item in part.partition("="))
        if not equals:
            hint = "Write simulated:7 or simulated:instruments=50,rate=100,seed=7."
            raise SettingsError(f"The source simulated:{argument}", "a seed, or name=value", repr(part), hint)
        if name not in _LIMITS:
            raise UnknownNameError("option of the simulated source", name, _LIMITS)
        options[name] = value
    return options


def _number(name: str, value: Any) -> float:
    kind, low, high = _LIMITS[name]
    try:
        number = kind(value)
        usable = low <= number <= high and (isinstance(value, str) or number == value)
    except (TypeError, ValueError, OverflowError):
        usable = False
    if not usable:
        expected = f"a {'whole ' if kind is int else ''}number from {low:,} to {high:,}"
        hint = "Write simulated:7 or simulated:instruments=50,rate=100,seed=7."
        raise SettingsError(f"The option {name!r} of the simulated source", expected, repr(value), hint)
    return number


def _first_known(event: Event) -> int:
    return int(event[1].column("known_at")[0].value)


def _message_batches(messages: Messages, first_seq: int) -> Iterator[tuple[str, Batch, Ints]]:
    seq = first_seq + np.arange(len(messages.time))
    for topic, rows in (("ticks", messages.trade), ("quotes", ~messages.trade)):
        time = messages.time[rows]
        columns: dict[str, Any] = {"instrument_id": messages.instrument[rows].astype(np.int32)}
        size = messages.size[rows].astype(np.float64)
        if topic == "ticks":
            columns |= {"price": messages.price[rows] / TICKS_PER_UNIT, "size": size}
            columns["conditions"] = pa.nulls(len(time), pa.uint32())
        else:
            columns |= {
                "bid": messages.bid[rows] / TICKS_PER_UNIT,
                "ask": messages.ask[rows] / TICKS_PER_UNIT,
            }
            columns |= {"bid_size": size, "ask_size": messages.other_size[rows].astype(np.float64)}
            columns |= {"exchange": pa.nulls(len(time), NAME), "conditions": pa.nulls(len(time), pa.uint32())}
        yield topic, _batch(topic, time, time, seq[rows], columns), time


def _bars_batch(width: str, bars: Bars, first_seq: int) -> Batch:
    length, instruments = width_us(width), bars.open.shape[1]
    time = np.repeat(bars.number * length, instruments)
    columns: dict[str, Any] = {
        name: getattr(bars, name).ravel()
        for name in ("open", "high", "low", "close", "vwap", "volume", "count")
    }
    columns["instrument_id"] = np.tile(np.arange(instruments, dtype=np.int32), len(bars.number))
    columns["width"] = _same(width, len(time))
    columns["revision"] = np.zeros(len(time), np.int32)
    return _batch("bars", time, time + length, first_seq + np.arange(len(time)), columns)


def _batch(topic: str, time: Ints, known_at: Ints, seq: Ints, columns: dict[str, Any]) -> Batch:
    # In the schema at once: conform costs more than a whole step of the market.
    stamp = pa.array(time).view(TIME)
    columns |= {
        "time": stamp,
        "known_at": stamp if known_at is time else pa.array(known_at).view(TIME),
        "seq": seq,
        "source": _same("simulated", len(time)),
        "session": np.full(len(time), REGULAR, np.int8),
        "trading_day": pa.array((time // DAY_US).astype(np.int32)).view(pa.date32()),
    }
    schema = TOPICS[topic].schema
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def _same(name: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int16), pa.array([name])).cast(NAME)
