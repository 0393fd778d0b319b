"""Bars that look like a market's, made from a seed."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from marketdash.indicators import INDICATORS, BarHistory

START_US = 1_704_205_800_000_000  # 2024-01-02 14:30 UTC, when New York opens
MINUTE_US = 60_000_000

MakeBars = Callable[..., BarHistory]


def make(count: int, instruments: int = 2, *, seed: int = 7, holes: float = 0.0) -> BarHistory:
    """Prices walk at random in ticks of a cent; `holes` is the share of bars that are missing."""
    random = np.random.default_rng(seed)
    shape = (count, instruments)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, shape), axis=0))
    opened = close * np.exp(random.normal(0, 0.001, shape))
    high = np.maximum(opened, close) * (1 + np.abs(random.normal(0, 0.001, shape)))
    low = np.minimum(opened, close) * (1 - np.abs(random.normal(0, 0.001, shape)))
    fields = {"open": opened, "high": high, "low": low, "close": close, "vwap": (high + low + close) / 3}
    fields = {name: values.round(2) for name, values in fields.items()}
    fields["volume"] = random.integers(100, 10_000, shape).astype(float)
    missing = random.random(shape) < holes
    for values in fields.values():
        values[missing] = np.nan
    times = START_US + MINUTE_US * np.arange(count)
    return BarHistory.from_arrays(times, [f"S{j}" for j in range(instruments)], "1min", **fields)


@pytest.fixture(scope="session")
def make_bars() -> MakeBars:
    return make


@pytest.fixture(scope="session")
def bars() -> BarHistory:
    return make(320, 3)


@pytest.fixture(scope="session")
def long_bars() -> BarHistory:
    return make(4000, 1, seed=11)


@pytest.fixture(scope="session")
def holed_bars() -> BarHistory:
    return make(480, 3, holes=0.15)


@pytest.fixture
def scratch() -> Iterator[None]:
    """Forget the indicators that the test registers."""
    before = set(INDICATORS)
    yield
    for name in set(INDICATORS) - before:
        INDICATORS.remove(name)
