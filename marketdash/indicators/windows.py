"""The last bars of several instruments, each by itself: all that the newest value of most indicators needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from marketdash.indicators.history import Floats

Ints = npt.NDArray[np.int64]
Rows = list[Floats]


class Windows:
    """For each of N instruments its last bars, at most `lookback` of them, however many it has.

    `fields[name]` has the shape (N, T): row i ends with the last bars of instrument i, `counts[i]` in all, and
    what stands before them means nothing. `unbroken[name][i]` says how many of its last values are finite in
    a row. An indicator computes the value at each instrument's last bar alone: one row, of shape (1, N).
    """

    def __init__(
        self,
        symbols: Sequence[str],
        counts: Ints,
        fields: Mapping[str, Floats],
        unbroken: Mapping[str, Ints],
        lookback: int,
    ) -> None:
        self.symbols, self.lookback = symbols, lookback
        self.counts = np.minimum(counts, lookback)
        self._fields, self._unbroken = fields, unbroken
        self._rows: dict[tuple[str, int], Rows] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """One value for each of N instruments: (1, N)."""
        return 1, len(self.symbols)

    def last(self, n: int) -> Windows:
        """The last `n` bars, or all if there are fewer."""
        windows = Windows(self.symbols, self.counts, self._fields, self._unbroken, min(n, self.lookback))
        windows._rows = self._rows
        return windows

    def rows(self, field: str) -> Rows:
        """The field's values of each instrument, oldest first, as arrays of one dimension."""
        key = field, self.lookback
        if key not in self._rows:
            values = self._fields[field]
            if (self.counts == self.lookback).all():
                self._rows[key] = list(values[:, values.shape[1] - self.lookback :])
            else:
                ends = values.shape[1] - self.counts
                self._rows[key] = [row[end:] for row, end in zip(values, ends.tolist(), strict=True)]
        return self._rows[key]

    def are_finite(self, fields: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether all of an instrument's values of these fields are finite: shape (N,)."""
        found: npt.NDArray[np.bool_] = np.logical_and.reduce(
            [self._unbroken[field] >= self.counts for field in fields]
        )
        return found


__all__ = ["Windows"]
