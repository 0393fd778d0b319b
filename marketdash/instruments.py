"""What is traded: records with a stable integer id, found by symbol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from marketdash.errors import SchemaError, UnknownNameError

UNCLASSIFIED = "Unclassified"
"""The sector of an instrument whose data names none."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One thing that is traded.

    `id` is the row in its universe. `calendar` names the exchange calendar that rules its day, `mic`
    the market. `price_unit` is the unit of its prices (`GBp` is a hundredth of the `currency` GBP).
    `valid_from` and `valid_to` (ISO dates, empty = unbounded) say when the symbol meant this.
    """

    id: int
    symbol: str
    name: str = ""
    asset_class: str = "equity"
    mic: str = ""
    calendar: str = "24/7"
    currency: str = "USD"
    price_unit: str = ""
    tick_size: float = 0.01
    multiplier: float = 1.0
    sector: str = UNCLASSIFIED
    industry: str = ""
    valid_from: str = ""
    valid_to: str = ""
    expiry: str = ""
    strike: float = float("nan")
    right: str = ""
    underlying: str = ""

    @property
    def decimals(self) -> int:
        """Digits after the point that show one tick size.

        >>> Instrument(0, "ES", tick_size=0.25).decimals
        2
        """
        text = f"{self.tick_size:.8f}".rstrip("0")
        return max(len(text.partition(".")[2]), 0)


_SCHEMA = pa.schema(
    [
        pa.field(
            field.name,
            {"int": pa.int32(), "float": pa.float64(), "str": pa.utf8()}[str(field.type)],
            nullable=False,
        )
        for field in fields(Instrument)
    ]
)


class Universe(Sequence[Instrument]):
    """The instruments of one market, in the order of their ids, which count from 0.

    >>> Universe.of(["AAPL", "MSFT"]).id("msft")
    1
    """

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = tuple(instruments)
        if [item.id for item in self._instruments] != list(range(len(self._instruments))):
            raise SchemaError(
                "A universe", "the ids 0, 1, 2 … in order", [i.id for i in self._instruments][:8]
            )
        self.symbols: tuple[str, ...] = tuple(item.symbol for item in self._instruments)
        self._ids = {item.symbol.casefold(): item.id for item in self._instruments}
        if len(self._ids) < len(self._instruments):
            twice = [
                item.symbol for item in self._instruments if self._ids[item.symbol.casefold()] != item.id
            ]
            raise SchemaError("A universe", "each symbol once", ", ".join(twice[:5]))

    @classmethod
    def of(cls, symbols: Iterable[str], **common: Any) -> Universe:
        """Instruments that differ in nothing but their symbols."""
        return cls(Instrument(i, symbol, **common) for i, symbol in enumerate(symbols))

    def __len__(self) -> int:
        return len(self._instruments)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments)

    def __getitem__(self, key: Any) -> Any:
        return self._instruments[key]

    def __contains__(self, symbol: object) -> bool:
        return isinstance(symbol, str) and symbol.casefold() in self._ids

    def id(self, symbol: str) -> int:
        """The id of a symbol, or an error with the nearest symbols."""
        found = self._ids.get(symbol.casefold()) if isinstance(symbol, str) else None
        if found is None:
            raise UnknownNameError("symbol", symbol, self.symbols)
        return found

    def get(self, symbol: str) -> Instrument:
        """The instrument of a symbol, or an error with the nearest symbols."""
        return self._instruments[self.id(symbol)]

    def ids(self, symbols: Iterable[str] | None) -> np.ndarray[Any, np.dtype[np.int32]]:
        """The ids of these symbols; of all of them for None."""
        if symbols is None:
            return np.arange(len(self), dtype=np.int32)
        if isinstance(symbols, str):
            symbols = [symbols]
        return np.array([self.id(symbol) for symbol in symbols], dtype=np.int32)

    @cached_property
    def calendars(self) -> tuple[str, ...]:
        """Names of the calendars in use, the most common one first."""
        return tuple(name for name, _ in Counter(item.calendar for item in self).most_common())

    @cached_property
    def by_calendar(self) -> Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]:
        """Calendar name → the ids of its instruments."""
        names = np.array([item.calendar for item in self], dtype=object)
        return MappingProxyType({name: np.flatnonzero(names == name) for name in self.calendars})

    @cached_property
    def index(self) -> pd.Index[str]:  # type: ignore[override]  # a property, in pandas' sense
        """The symbols, as the index of a table with a row per instrument."""
        return pd.Index(self.symbols, dtype="str", name="symbol")

    @cached_property
    def sector_names(self) -> pd.Index[str]:
        """The sector of each instrument."""
        return pd.Index([item.sector for item in self], dtype="str")

    @cached_property
    def sectors(self) -> tuple[str, ...]:
        """The sectors, sorted; what has none comes last."""
        return tuple(
            sorted({item.sector for item in self._instruments}, key=lambda s: (s == UNCLASSIFIED, s))
        )

    def extended(self, instruments: Iterable[Instrument]) -> Universe:
        """This universe with more instruments, which take the next ids."""
        more = [replace(item, id=len(self) + i) for i, item in enumerate(instruments)]
        return Universe([*self._instruments, *more])

    def to_arrow(self) -> pa.Table:
        return pa.Table.from_pylist([asdict(item) for item in self._instruments], schema=_SCHEMA)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Universe:
        known = set(_SCHEMA.names)
        if missing := {"id", "symbol"} - set(table.column_names):
            raise SchemaError(
                "A table of instruments", "columns id and symbol", f"no {', '.join(sorted(missing))}"
            )
        rows = table.select([name for name in table.column_names if name in known]).to_pylist()
        # A null is what the record says when nothing is said: its default.
        return cls(
            Instrument(**{name: value for name, value in row.items() if value is not None}) for row in rows
        )
