"""The past of a simulated market: where it stands at its origin, and the bars that led there.

The level at each midnight depends on the seed and the date alone, and the minutes of a day are bound to the
midnights at both of its ends: who opens the market again tomorrow finds the same days behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marketdash.sources._simulation import (
    DAY_SECONDS,
    JUMPS_PER_DAY,
    LOT,
    TICKS_PER_UNIT,
    TRADES,
    Floats,
    Ints,
    Model,
    State,
    Use,
    fading,
    jump_sizes,
    random,
)

DAY_MINUTES = 1440
MINUTE_US = 60_000_000
ERA = 512
"""The walk over the days starts one to two eras early, at the same day for all origins of an era."""


@dataclass(frozen=True)
class Past:
    """Levels of the factors at the ends of days and minutes; row 0 stands before the first bar."""

    first_day: int
    days: Floats
    day_volatility: Floats
    first_minute: int
    minutes: Floats
    minute_volatility: Floats

    def state(self, k: int, rows: int) -> State:
        """The market's state after the last minute, as the state before step `k`."""
        return State(k, self.minutes[-1].copy(), self.minute_volatility[-1].copy(), rows)


@dataclass(frozen=True)
class Bars:
    """Bars of one width, one row per bar's number and one column per instrument; prices in money."""

    number: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    vwap: Floats
    volume: Floats
    count: Ints

    def rows(self, start: int, stop: int) -> Bars:
        """Some of the bars, by position."""
        return Bars(**{name: column[start:stop] for name, column in vars(self).items()})


def past_of(model: Model, origin_us: int, minutes: int, days: int) -> Past:
    """The past of a market that starts at `origin_us`, with so many closed minutes and days."""
    last = origin_us // MINUTE_US
    first = last - max(minutes, 1)
    today = last // DAY_MINUTES
    covered = range(first // DAY_MINUTES, (last - 1) // DAY_MINUTES + 1)
    first_day = min(today - days, covered[0])
    levels, volatility = _days(model, first_day, today)
    walks = [
        _minutes(
            model, day, levels[day - first_day], levels[day - first_day + 1], volatility[day - first_day]
        )
        for day in covered
    ]
    start = first - covered[0] * DAY_MINUTES
    stop = last - covered[0] * DAY_MINUTES
    level = np.concatenate([walks[0][0][:1], *(walk[0][1:] for walk in walks)])[start : stop + 1]
    moved = np.concatenate([walk[1] for walk in walks])[start:stop]
    shown = today - days - first_day
    return Past(
        first_day=today - days,
        days=levels[shown : shown + days + 1],
        day_volatility=volatility[shown : shown + days],
        first_minute=first,
        minutes=level,
        minute_volatility=moved,
    )


def minute_bars(model: Model, past: Past) -> Bars:
    """Closed bars of one minute up to the origin."""
    rng = random(model.seed, Use.BARS, past.first_minute)
    trades = model.activity(past.minute_volatility) * TRADES * 60
    return _bars(model, past.first_minute, past.minutes, past.minute_volatility, 60, trades, rng)


def day_bars(model: Model, past: Past, minutes: Bars) -> Bars:
    """Closed bars of a day; one whose minutes are known too, holds them."""
    rng = random(model.seed, Use.BARS, past.first_day)
    trades = model.activity(past.day_volatility) * TRADES * DAY_SECONDS
    bars = _bars(model, past.first_day, past.days, past.day_volatility, DAY_SECONDS, trades, rng)
    days = minutes.number // DAY_MINUTES
    for day in np.unique(days[days < past.first_day + len(bars.number)]).tolist():
        row, of_day = day - past.first_day, days == day
        if row >= 0:
            bars.high[row] = np.maximum(bars.high[row], minutes.high[of_day].max(axis=0))
            bars.low[row] = np.minimum(bars.low[row], minutes.low[of_day].min(axis=0))
            bars.volume[row] = np.maximum(bars.volume[row], minutes.volume[of_day].sum(axis=0))
            bars.count[row] = np.maximum(bars.count[row], minutes.count[of_day].sum(axis=0))
    return bars


def in_order(days: Bars, minutes: Bars) -> Iterator[tuple[str, Bars]]:
    """The bars of both widths in as few runs as their order by known-at allows, without empty runs."""
    ends = (days.number + 1) * DAY_MINUTES
    first = int(np.searchsorted(ends, minutes.number[0] + 1)) if len(minutes.number) else len(ends)
    runs = [("1d", days.rows(0, first))]
    done = 0
    for day in range(first, len(ends)):
        stop = int(np.searchsorted(minutes.number, ends[day]))
        runs += [("1min", minutes.rows(done, stop)), ("1d", days.rows(day, day + 1))]
        done = stop
    runs.append(("1min", minutes.rows(done, len(minutes.number))))
    return (run for run in runs if len(run[1].number))


def _days(model: Model, first: int, today: int) -> tuple[Floats, Floats]:
    # Level before the first day and after each day up to today; log volatility of each day.
    factors = len(model.volatility)
    start = (first // ERA - 1) * ERA
    left, news = np.exp(-np.log(2) / 10), 0.5 * model.cluster
    held = np.exp(-model.pull)
    level, moved = np.zeros(factors), np.zeros(factors)
    levels, volatility = np.empty((today - first + 2, factors)), np.empty((today - first + 1, factors))
    for day in range(start, today + 1):
        rng = random(model.seed, Use.DAYS, day)
        moved = moved * left + news * np.sqrt(1 - left**2) * rng.standard_normal(factors)
        # Five degrees of freedom: the tails of daily returns. The divisor makes the variance one.
        shock = rng.standard_t(5, factors) / np.sqrt(5 / 3)
        if day >= first:
            levels[day - first], volatility[day - first] = level, moved
        level = level * held + model.volatility * np.exp(moved - news**2) * shock
    levels[-1] = level
    return levels, volatility


def _minutes(model: Model, day: int, start: Floats, end: Floats, mood: Floats) -> tuple[Floats, Floats]:
    # A day's walk by minutes, from the level at its first midnight to that at its second one.
    rng = random(model.seed, Use.MINUTES, day)
    factors = len(start)
    left, news = fading(model, 60)
    volatility = rng.standard_normal((DAY_MINUTES, factors))
    volatility[0] *= model.cluster
    volatility[1:] *= news
    jumps = rng.poisson(JUMPS_PER_DAY)
    when = rng.integers(0, DAY_MINUTES, jumps)
    names = rng.integers(factors - len(model.universe), factors, jumps)
    np.add.at(volatility, (when, names), 1.0)
    # Each minute needs the one before it; over the factors it is one operation. 4 ms a day.
    for minute in range(1, DAY_MINUTES):
        volatility[minute] += left * volatility[minute - 1]
    moves = rng.standard_normal((DAY_MINUTES, factors))
    moves *= model.scale(volatility)
    moves *= np.exp(mood) / np.sqrt(DAY_MINUTES)
    np.add.at(moves, (when, names), jump_sizes(rng, jumps))
    walk = np.concatenate([start[None], moves]).cumsum(axis=0)
    walk += np.linspace(0, 1, DAY_MINUTES + 1)[:, None] * (end - walk[-1])
    walk[-1] = end  # exactly, so that a day and its last minute close at one price
    return walk, volatility


def _bars(
    model: Model,
    first: int,
    levels: Floats,
    volatility: Floats,
    seconds: int,
    trades: Floats,
    rng: np.random.Generator,
) -> Bars:
    price = model.prices(levels)
    before, after = price[:-1], price[1:]
    deviation = model.scale(volatility)
    variance = model.sum_up(deviation**2, model.beta**2, model.tilt**2) * (seconds / DAY_SECONDS)
    # The exact law of the extremes of a Brownian path between two known ends.
    reach_up, reach_down = (
        np.sqrt((after - before) ** 2 + 2 * variance * rng.standard_exponential(before.shape))
        for _ in range(2)
    )
    cents = _cents(price)
    opened, closed = cents[:-1], cents[1:]
    high = np.maximum(_cents((before + after + reach_up) / 2), np.maximum(opened, closed))
    low = np.minimum(_cents((before + after - reach_down) / 2), np.minimum(opened, closed))
    count = np.maximum(np.rint(trades + np.sqrt(trades) * rng.standard_normal(trades.shape)), 1.0)
    # 1.38: the mean of log-normal sizes over their median. The fewer the trades, the less sure their mean.
    lots = np.maximum(model.lots * 1.38, 1.0) * np.exp(
        rng.standard_normal(trades.shape) * 0.9 / np.sqrt(count)
    )
    return Bars(
        number=first + np.arange(len(before)),
        open=opened / TICKS_PER_UNIT,
        high=high / TICKS_PER_UNIT,
        low=low / TICKS_PER_UNIT,
        close=closed / TICKS_PER_UNIT,
        vwap=(opened + high + low + closed) / (4 * TICKS_PER_UNIT),
        volume=np.maximum(np.rint(count * lots), count) * LOT,
        count=count.astype(np.int64),
    )


def _cents(log_price: Floats) -> Floats:
    return np.maximum(np.rint(np.exp(log_price) * TICKS_PER_UNIT), 1.0)
