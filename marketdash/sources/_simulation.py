"""The simulated market itself: a model drawn from a seed, and the second that follows a state.

The log of a price is a base level plus a market, a sector and an own factor. Each factor is a random walk
pulled mildly to zero, and the log of its volatility is another. All of them stand in one vector: the market,
the sectors, then the instruments.

Randomness is counted, not carried: second k draws from a generator made of (seed, k). With the state it
starts from, a second is therefore a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.instruments import Universe
from marketdash.sources._simulation_names import SECTORS, sectors, universe

STEP_US = 1_000_000
"""One step; a whole number of them makes a minute, so that no step lies in two bars or two days."""
MOVES = 10
"""How often prices move within a step."""
DAY_SECONDS = 86_400
TICK_SIZE = 0.01
TICKS_PER_UNIT = 100.0  # dividing by it gives the float nearest to the decimal, multiplying by 0.01 does not
LOT = 100
TRADES = 1 / 3
"""The share of trades among the messages; the others are quotes."""
JUMPS_PER_DAY = 480.0
"""Jumps in one name, over the whole market."""
JUMP = 0.008

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Use(IntEnum):
    """What random numbers are for; each use has a sequence of its own."""

    MODEL = 0
    DAYS = 1
    MINUTES = 2
    BARS = 3
    STEPS = 4


def random(seed: int, use: Use, k: int) -> np.random.Generator:
    """The random numbers of (seed, use, k), whatever was drawn before.

    `k` stands in the counter's third word: 2**128 numbers lie between two neighbours.
    """
    return np.random.Generator(np.random.Philox(key=[seed, use], counter=[0, 0, k, 0]))


@dataclass(frozen=True)
class Model:
    """What does not change: who is traded, and how each price and each volatility moves."""

    seed: int
    universe: Universe
    weight: Floats  # share of the market's value
    sector: npt.NDArray[np.intp]
    base: Floats  # log price that the factors move around
    beta: Floats  # answer to the market
    tilt: Floats  # answer to the sector
    rate: Floats  # messages a second
    spread: Floats  # as a share of the price
    lots: Floats  # median of a trade, in round lots
    volatility: Floats  # of each factor's daily return
    pull: Floats  # of each factor's level towards zero, per day
    cluster: Floats  # standard deviation of each factor's log volatility
    fade: Floats  # of each factor's log volatility, per day

    @classmethod
    def draw(cls, seed: int, instruments: int, rate: float) -> Model:
        """The market of a seed; its instruments come by descending weight."""
        rng = random(seed, Use.MODEL, instruments)
        sector = sectors(instruments, rng)
        listed = universe(sector, rng, TICK_SIZE)
        weight = _shares(np.sort(np.exp(rng.normal(0, 1.25, instruments)))[::-1])
        price = np.clip(np.exp(rng.normal(4.3, 0.85, instruments)), 9.0, 420.0)
        busy = weight**0.7 * np.exp(rng.normal(0, 0.4, instruments))
        # Even the quietest name is heard of now and then: a floor at 8 % of the mean.
        busy = _shares(np.maximum(busy, 0.08 * busy.mean()))
        # A small company moves more on its own, and is dearer to trade.
        small = np.clip((weight * instruments) ** -0.12, 0.7, 1.8)
        own = 0.013 * small * np.exp(rng.normal(0, 0.25, instruments))
        return cls(
            seed=seed,
            universe=listed,
            weight=weight,
            sector=sector,
            base=np.log(price),
            beta=np.clip(rng.normal(1.0, 0.25, instruments), 0.3, 1.8),
            tilt=np.clip(rng.normal(1.0, 0.2, instruments), 0.4, 1.6),
            rate=rate * busy,
            spread=0.0003 * small**2 * np.exp(rng.normal(0, 0.3, instruments)),
            lots=np.maximum(15_000 / price / LOT, 0.5),
            volatility=_vector(0.011, 0.010, own),
            pull=np.log(2) / _vector(90.0, 60.0, np.full(instruments, 30.0)),
            cluster=_vector(0.35, 0.30, np.full(instruments, 0.45)),
            fade=np.log(2) * 1440 / _vector(30.0, 20.0, np.full(instruments, 12.0)),  # half-lives in minutes
        )

    def prices(self, level: Floats) -> Floats:
        """Log prices of the instruments at these levels of the factors (…, factors)."""
        return self.base + self.sum_up(level, self.beta, self.tilt)

    def sum_up(self, factors: Floats, beta: Floats, tilt: Floats) -> Floats:
        """Factors (…, factors) as they reach the instruments (…, instruments)."""
        own = 1 + len(SECTORS)
        return factors[..., :1] * beta + factors[..., 1:own][..., self.sector] * tilt + factors[..., own:]

    def scale(self, log_volatility: Floats) -> Floats:
        """Volatility of the daily return of each factor, in this state; on average what the model says."""
        return self.volatility * np.exp(log_volatility - self.cluster**2)

    def activity(self, log_volatility: Floats) -> Floats:
        """Messages a second of each instrument: more for those that move, the same over all."""
        moved = self.rate * np.clip(np.exp(0.8 * log_volatility[..., 1 + len(SECTORS) :]), 0.4, 6.0)
        return moved * (self.rate.sum() / moved.sum(axis=-1, keepdims=True))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class State:
    """Where the factors stand at the start of step `k`, and how many rows were written before it."""

    k: int
    level: Floats
    log_volatility: Floats
    rows: int


class Messages(NamedTuple):
    """Trades and quotes of one step in the order of their times; prices in ticks, sizes in shares."""

    time: Ints
    instrument: Ints
    trade: Flags
    bid: Ints
    ask: Ints
    price: Ints
    size: Ints
    other_size: Ints


def advance(model: Model, state: State) -> tuple[State, Messages]:
    """Play one step: the state after it, and what was traded and quoted."""
    rng = random(model.seed, Use.STEPS, state.k)
    level, log_volatility, shocks = _move(model, state, rng)
    messages = _messages(model, state, level, log_volatility, shocks, rng)
    following = State(state.k + 1, level[-1].copy(), log_volatility, state.rows + len(messages.time))
    return following, messages


def fading(model: Model, seconds: float) -> tuple[Floats, Floats]:
    """What is left of a log volatility after some seconds, and how large the news in it is."""
    left = np.exp(-model.fade * seconds / DAY_SECONDS)
    return left, model.cluster * np.sqrt(1 - left**2)


def jump_sizes(rng: np.random.Generator, count: int) -> Floats:
    """Log returns of jumps: either way, never small, sometimes large."""
    return rng.choice([-1.0, 1.0], count) * JUMP * (0.4 + rng.exponential(0.6, count))


def _move(model: Model, state: State, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    factors = len(state.level)
    left, news = fading(model, STEP_US / 1e6)
    log_volatility = state.log_volatility * left + news * rng.standard_normal(factors)
    shocks = rng.standard_normal((MOVES, factors))
    pulled = state.level * np.exp(-model.pull * STEP_US / 1e6 / DAY_SECONDS)
    moves = shocks * (model.scale(log_volatility) / np.sqrt(DAY_SECONDS * MOVES))
    if jumps := rng.poisson(JUMPS_PER_DAY / DAY_SECONDS):
        names = rng.integers(1 + len(SECTORS), factors, jumps)
        np.add.at(moves, (rng.integers(0, MOVES, jumps), names), jump_sizes(rng, jumps))
        log_volatility[names] += 1.0  # what jumped stays restless, and is traded more
    return pulled + np.cumsum(moves, axis=0), log_volatility, shocks


def _messages(
    model: Model,
    state: State,
    level: Floats,
    log_volatility: Floats,
    shocks: Floats,
    rng: np.random.Generator,
) -> Messages:
    count = rng.poisson(model.rate.sum() * STEP_US / 1e6)
    offset = np.sort(rng.integers(0, STEP_US, count))
    busy = np.cumsum(model.activity(log_volatility))
    instrument = np.searchsorted(busy, rng.random(count) * busy[-1], side="right")
    instrument = np.minimum(instrument, len(busy) - 1)  # the product may be rounded up to the last sum
    move = offset * MOVES // STEP_US
    mid = np.exp(model.prices(level)) * TICKS_PER_UNIT
    restless = np.exp(0.5 * log_volatility[1 + len(SECTORS) :])
    width = np.maximum(np.rint(model.spread * restless * mid[0]), 1.0)[instrument]
    bid = np.maximum(np.rint(mid[move, instrument] - width / 2), 1.0).astype(np.int64)
    ask = bid + width.astype(np.int64)
    # Who trades lifts the ask more often while the price rises.
    rising = shocks[move, instrument + 1 + len(SECTORS)]
    buys = rng.random(count) < 0.5 + 0.3 * np.tanh(rising)
    typical = model.lots[instrument]
    return Messages(
        time=state.k * STEP_US + offset,
        instrument=instrument,
        trade=rng.random(count) < TRADES,
        bid=bid,
        ask=ask,
        price=np.where(buys, ask, bid),
        size=_lots(typical, rng),
        other_size=_lots(typical, rng),
    )


def _lots(typical: Floats, rng: np.random.Generator) -> Ints:
    lots = np.rint(typical * np.exp(0.8 * rng.standard_normal(len(typical))))
    return np.maximum(lots, 1.0).astype(np.int64) * LOT


def _vector(market: float, sector: float, own: Any) -> Floats:
    return np.concatenate([[market], np.full(len(SECTORS), sector), own])


def _shares(values: Floats) -> Floats:
    return values / values.sum()  # type: ignore[no-any-return]
