"""Derive: when a bar has ended, the readings of the indicators that were asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from marketdash.frames.bars import BarStore, Ints
from marketdash.indicators.history import FIELDS, Floats
from marketdash.indicators.spec import Spec, compute
from marketdash.instruments import Universe
from marketdash.pipeline import columns
from marketdash.pipeline.ended import EndedTogether
from marketdash.pipeline.health import Health
from marketdash.pipeline.unread import Found, Unread
from marketdash.schema import NAME
from marketdash.schema import TIME as MOMENT


@dataclass
class Derivation:
    """One indicator at one width, the bars that it has not read, and how many of them a reading depends on."""

    spec: Spec
    unread: Unread
    lookback: int

    @property
    def width(self) -> str:
        return self.unread.width

    @cached_property
    def name(self) -> str:
        return str(self.spec)

    @cached_property
    def stage(self) -> str:
        return f"derive {self.spec} {self.width}"

    @cached_property
    def series(self) -> tuple[str, ...]:
        return self.spec.series

    @property
    def of_market(self) -> bool:
        return self.spec.indicator.scope == "market"


class Readings(NamedTuple):
    """Values of one output of an indicator: of the bars `rows`, which ended together."""

    ended: EndedTogether
    name: str
    output: str
    rows: Ints
    values: Floats


class Derive:
    """Computes each asked-for indicator on every bar that has ended.

    A reading is that of a chart of the instrument alone: it depends on as many of its bars as determine
    it (an EMA settles), never on how many happen to be kept or what else was traded. What sums up all of
    history gets all that may be kept. An indicator that raises costs only itself: it is counted on `health`
    and tried again at the next bar.
    """

    def __init__(self, universe: Universe, store: BarStore, health: Health, tz: str = "UTC") -> None:
        self.universe, self.store, self.health, self.tz = universe, store, health, tz
        self.derivations: list[Derivation] = []
        self._lookbacks: dict[str, dict[str, int]] = {}
        self._seq = 0

    @property
    def widths(self) -> set[str]:
        return {item.width for item in self.derivations}

    def add(self, spec: Spec, width: str, now_us: int) -> None:
        """Start deriving with the bars that end after `now_us`; asking twice changes nothing."""
        limit = self.store.ring(width).limit
        if any(item.spec == spec and item.width == width for item in self.derivations):
            return
        item = Derivation(spec, Unread(self.store, width, now_us), min(spec.reach or limit, limit))
        self.derivations.append(item)
        lookbacks = self._lookbacks.setdefault(width, {})
        for field in () if item.of_market else item.series or FIELDS:
            lookbacks[field] = max(lookbacks.get(field, 0), item.lookback)

    def reset(self) -> None:
        self._seq = 0
        for item in self.derivations:
            item.unread.reset()

    @property
    def is_whole(self) -> bool:
        """Whether no reading was left out because its indicator was asked for later than its bar had ended."""
        return all(item.unread.is_whole for item in self.derivations)

    def snapshot(self) -> Any:
        """What was read, by derivation, and the number of the next reading."""
        return self._seq, tuple(item.unread.snapshot() for item in self.derivations)

    def restore(self, kept: Any) -> None:
        """Go back to where a snapshot was taken of one that derives the same."""
        self._seq, unread = kept
        for item, part in zip(self.derivations, unread, strict=True):
            item.unread.restore(part)

    def advance(self, us: int) -> list[pa.RecordBatch]:
        """The readings of all bars that have ended at the moment `us` and were not read before.

        They come in the order of the bars' ends, one batch for each, so that it does not matter how often
        this is asked.
        """
        found = [(item, item.unread.take(us)) for item in self.derivations]
        parts = [bars.ends for _, bars in found if len(bars.ends)]
        ends: Ints = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        batches = []
        for end in ends:
            if readings := self._ended(int(end), found):
                batches.append(self._batch(readings))
        return batches

    def _ended(self, end: int, found: Iterable[tuple[Derivation, Found]]) -> list[Readings]:
        """The readings of the bars that have ended at the moment `end`, by indicator and output."""
        together: dict[tuple[str, bytes, bytes], EndedTogether] = {}
        readings = []
        for item, bars in found:
            rows = slice(*np.searchsorted(bars.ends, [end, end + 1]).tolist())
            ids, numbers = bars.ids[rows], bars.numbers[rows]
            if not len(ids):
                continue
            key = item.width, ids.tobytes(), numbers.tobytes()
            if key not in together:
                together[key] = self._together(item.width, ids, numbers)
            stage, begin = self.health.stage(item.stage), time.perf_counter()
            try:
                readings += self._readings(item, together[key])
            except Exception as error:
                stage.failed(error)
            else:
                stage.worked(len(ids), time.perf_counter() - begin)
        return readings

    def _together(self, width: str, ids: Ints, numbers: Ints) -> EndedTogether:
        lookbacks = self._lookbacks[width]
        return EndedTogether(self.universe, self.store, width, self.tz, ids, numbers, lookbacks)

    def _readings(self, item: Derivation, ended: EndedTogether) -> list[Readings]:
        if item.series and not item.of_market:
            newest = compute(item.spec, ended.windows.last(item.lookback))
            values = {name: table[0] for name, table in newest.items()}
        else:
            values = {output.name: np.full(len(ended.ids), np.nan) for output in item.spec.outputs}
            parts = ended.of_market if item.of_market else ended.histories
            for part in parts(item.lookback):
                for name, table in compute(item.spec, part.history).items():
                    values[name][part.bars] = table[part.row, part.columns]
        good = [(name, reading, np.flatnonzero(~np.isnan(reading))) for name, reading in values.items()]
        return [
            Readings(ended, item.name, name, rows, reading[rows]) for name, reading, rows in good if len(rows)
        ]

    def _batch(self, readings: Sequence[Readings]) -> pa.RecordBatch:
        lengths = [len(item.rows) for item in readings]
        length = sum(lengths)
        self._seq += length

        def taken(column: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            return np.concatenate([item.ended.bars[column][item.rows] for item in readings])

        return columns.batch_of(
            "readings",
            {
                "time": pa.array(taken("time")).view(MOMENT),
                "known_at": pa.array(np.maximum(taken("end"), taken("known_at"))).view(MOMENT),
                "seq": np.arange(self._seq - length, self._seq),
                "source": columns.same("derive", length),
                "instrument_id": np.concatenate([item.ended.ids[item.rows] for item in readings]).astype(
                    np.int32
                ),
                "width": _names([item.ended.width for item in readings], lengths),
                "indicator": _names([item.name for item in readings], lengths),
                "output": _names([item.output for item in readings], lengths),
                "value": np.concatenate([item.values for item in readings]),
            },
        )


def _names(names: Sequence[str], lengths: Sequence[int]) -> pa.Array:
    """A column in which each name is repeated."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    codes = np.repeat(np.array([places[name] for name in names], np.int16), lengths)
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(places))).cast(NAME)
