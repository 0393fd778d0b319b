"""What each instrument is worth now: its last price, the close before, best bid and ask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_FLOATS = ("last", "previous_close", "regular_close", "bid", "ask", "bid_size", "ask_size")
_INTS = (
    "time",
    "known_at",
    "quote_time",
    "day",
    "regular_time",
    "previous_time",
    "seq",
    "regular_seq",
    "previous_seq",
)


class LastMemory(NamedTuple):
    """The arrays of last prices, as kernels take them."""

    floats: npt.NDArray[np.float64]
    ints: npt.NDArray[np.int64]


class LastPrices:
    """Arrays over instruments, written in place by the pipeline.

    Prices are NaN until the first event. `time` and `known_at` (microseconds) belong to the last price,
    `quote_time` to bid and ask; `day` (days since 1970) is the trading day of the last price.
    `regular_close` is the last regular price, and `previous_close` that of the trading days before;
    `regular_time` and `previous_time` are theirs. The day's open, high, low and volume are those of its
    daily bar. Of events at one time, the one with the higher `seq` is the later one.
    """

    __slots__ = ("floats", "ints", "memory", "version")

    FLOATS, INTS = _FLOATS, _INTS

    def __init__(self, instruments: int) -> None:
        # One row per instrument, so that a tick touches few cache lines.
        self.floats = np.empty((instruments, len(_FLOATS)))
        self.ints = np.empty((instruments, len(_INTS)), np.int64)
        self.memory = LastMemory(self.floats, self.ints)
        self.version = 0
        self.reset()

    def reset(self) -> None:
        """Forget all prices."""
        self.floats[:] = np.nan
        self.ints[:] = 0
        self.version += 1

    def snapshot(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """A copy of all prices and times."""
        return self.floats.copy(), self.ints.copy()

    def restore(self, kept: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]) -> None:
        """Go back to the prices and times of a snapshot."""
        self.floats[:], self.ints[:] = kept
        self.version += 1

    def __len__(self) -> int:
        return len(self.floats)

    def prices(self, name: str) -> npt.NDArray[np.float64]:
        """A copy of a price or size column, by instrument id."""
        return self.floats[:, _FLOATS.index(name)].copy()

    def times(self, name: str) -> npt.NDArray[np.int64]:
        """A copy of a time column, by instrument id; 0 where there was no event yet."""
        return self.ints[:, _INTS.index(name)].copy()

    @property
    def change(self) -> npt.NDArray[np.float64]:
        """Change against the previous close, as a fraction; NaN where one of the two is unknown."""
        last, previous = self.prices("last"), self.prices("previous_close")
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(previous > 0, last / previous - 1.0, np.nan)
