"""National best bid and offer: the quotes of many exchanges into the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.conditions import quote_rules
from marketdash.errors import CapacityError
from marketdash.pipeline import columns, nbbo_kernels
from marketdash.schema import NAME

MOST_PARTICIPANTS = 64
"""The US tapes have about twenty; names beyond this are garbage in the column, and a book for each would not end."""

_SIDES = ("bid", "ask", "bid_size", "ask_size")


class NationalBest:
    """Keeps each exchange's quote, and passes on the best of all where it has changed.

    A quote that names an exchange is that participant's own. Of a side, NaN leaves it as it was, a price or size of 0
    withdraws it, and so does a condition by which the quote is not firm (`conditions.QUOTE_CONDITIONS`). The national
    best is the highest bid and the lowest offer; of participants at one price it has the largest size, as 17 CFR
    242.600 ("National best bid and national best offer") ranks them. It may be locked or crossed. Rows come out without
    exchange and conditions, a side that nobody quotes as NaN. Participants are forgotten when the trading day changes;
    a quote of a day before changes nothing.

    A quote without an exchange is a national best already and passes as it is; a side that is NaN is filled with what
    was told of it last. Quotes of an instrument are expected to be of one kind or the other.
    """

    def __init__(self, instruments: int) -> None:
        self._instruments = instruments
        self.reset()

    def reset(self) -> None:
        self._names: dict[str, int] = {}
        self._books = np.zeros((self._instruments, 8, len(_SIDES)))
        self._best = np.full((self._instruments, len(_SIDES)), np.nan)
        self._days = np.full(self._instruments, np.iinfo(np.int32).min, np.int32)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """All that this step knows, as copies."""
        return {
            "names": np.array(list(self._names), np.str_),
            "books": self._books.copy(),
            "best": self._best.copy(),
            "days": self._days.copy(),
        }

    def restore(self, kept: dict[str, npt.NDArray[Any]]) -> None:
        """Go back to where a snapshot was taken."""
        self._names = {str(name): place for place, name in enumerate(kept["names"])}
        self._books, self._best, self._days = kept["books"].copy(), kept["best"].copy(), kept["days"].copy()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        quotes = np.column_stack([columns.floats(batch, name) for name in _SIDES])
        told, passed = np.empty_like(quotes), np.empty(len(quotes), np.bool_)
        participants = self._participants(batch.column("exchange"))
        count, changed = nbbo_kernels.rank_quotes(
            columns.ids(batch), batch.column("trading_day").view(pa.int32()).to_numpy(), quotes, participants,
            _taken(batch.column("conditions")), self._days, self._books, self._best, told, passed,
        )  # fmt: skip
        if not count:
            return None
        if count < len(passed):
            batch, told, participants = batch.filter(pa.array(passed)), told[passed], participants[passed]
        if not changed:
            return batch
        sides = {name: np.ascontiguousarray(told[:, i]) for i, name in enumerate(_SIDES)}
        batch = columns.with_columns(batch, **sides)
        if (participants < 0).all():
            return batch
        rows = batch.num_rows
        return columns.with_columns(
            batch, exchange=pa.nulls(rows, NAME), conditions=pa.nulls(rows, pa.uint32())
        )

    def _participants(self, exchanges: pa.Array) -> npt.NDArray[np.int64]:
        """The place of each row's exchange in the books, -1 where none is named."""
        if exchanges.null_count == len(exchanges):
            return np.full(len(exchanges), -1, np.int64)
        indices = exchanges.indices.fill_null(-1).to_numpy()
        used = np.unique(indices[indices >= 0])
        places = np.full(len(exchanges.dictionary) + 1, -1, np.int64)
        places[used] = [self._place(exchanges.dictionary[int(index)].as_py()) for index in used]
        found: npt.NDArray[np.int64] = places[indices]
        return found

    def _place(self, name: str) -> int:
        place = self._names.get(name)
        if place is None:
            if len(self._names) >= MOST_PARTICIPANTS:
                hint = "The column exchange of quotes names the market that made the quote."
                raise CapacityError("Quotes", f"at most {MOST_PARTICIPANTS} exchanges", repr(name), hint)
            place = self._names[name] = len(self._names)
        if place >= self._books.shape[1]:
            self._books = np.concatenate([self._books, np.zeros_like(self._books)], axis=1)
        return place


def _taken(conditions: pa.Array) -> npt.NDArray[np.uint8]:
    """What the conditions of each quote take away from it."""
    taken = np.zeros(len(conditions), np.uint8)
    if conditions.null_count < len(conditions):
        masks, rules = conditions.fill_null(0).to_numpy(), quote_rules()
        for place in np.flatnonzero(rules):
            taken |= np.where(masks >> np.uint32(place) & 1, rules[place], 0).astype(np.uint8)
    return taken
