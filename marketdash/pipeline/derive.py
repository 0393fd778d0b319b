"""Derive: when a bar has ended, the readings of the indicators that were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.frames.bars import TIME, BarStore, Ints
from marketdash.indicators.history import BarHistory, Floats
from marketdash.indicators.spec import Spec, compute
from marketdash.instruments import Universe
from marketdash.pipeline import columns
from marketdash.pipeline.health import Health
from marketdash.pipeline.unread import Unread
from marketdash.schema import NAME
from marketdash.schema import TIME as MOMENT


@dataclass
class Derivation:
    """One indicator at one width, and the bars that it has not read."""

    spec: Spec
    unread: Unread

    @property
    def width(self) -> str:
        return self.unread.width

    @property
    def stage(self) -> str:
        return f"derive {self.spec} {self.width}"


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
        self._seq = 0

    @property
    def widths(self) -> set[str]:
        return {item.width for item in self.derivations}

    def add(self, spec: Spec, width: str, now_us: int) -> None:
        """Start deriving with the bars that end after `now_us`; asking twice changes nothing."""
        self.store.ring(width)
        if not any(item.spec == spec and item.width == width for item in self.derivations):
            self.derivations.append(Derivation(spec, Unread(self.store, width, now_us)))

    def reset(self) -> None:
        self._seq = 0
        for item in self.derivations:
            item.unread.reset()

    def advance(self, us: int) -> list[pa.RecordBatch]:
        """The readings of all bars that have ended at the moment `us` and were not read before.

        They come in the order of the bars' ends, so that it does not matter how often this is asked.
        """
        found = [(item, item.unread.take(us)) for item in self.derivations]
        parts = [bars.ends for _, bars in found]
        ends: Ints = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        batches = []
        for end in ends:
            for item, bars in found:
                rows = bars.ends == end
                if not rows.any():
                    continue
                stage = self.health.stage(item.stage)
                try:
                    batch = self._readings(item, bars.ids[rows], bars.numbers[rows])
                except Exception as error:
                    stage.failed(error)
                    continue
                stage.worked(int(rows.sum()), 0.0)
                if batch.num_rows:
                    batches.append(batch)
        return batches

    def _readings(self, item: Derivation, ids: Ints, numbers: Ints) -> pa.RecordBatch:
        bars = self.store.gather(item.width, ids, numbers)
        parts = self._of_market if item.spec.indicator.scope == "market" else self._by_instrument
        values = {output.name: np.full(len(ids), np.nan) for output in item.spec.outputs}
        for rows, history, place, column in parts(item, ids, numbers, bars):
            for name, table in compute(item.spec, history).items():
                values[name][rows] = table[place, column]
        good = {name: np.flatnonzero(~np.isnan(reading)) for name, reading in values.items()}
        which = np.concatenate(list(good.values()))
        self._seq += len(which)
        length = len(which)
        return columns.batch_of(
            "readings",
            {
                "time": pa.array(bars["time"][which]).view(MOMENT),
                "known_at": pa.array(np.maximum(bars["end"], bars["known_at"])[which]).view(MOMENT),
                "seq": np.arange(self._seq - length, self._seq),
                "source": columns.same("derive", length),
                "instrument_id": ids[which].astype(np.int32),
                "width": columns.same(item.width, length),
                "indicator": columns.same(str(item.spec), length),
                "output": _outputs(good),
                "value": np.concatenate([values[name][found] for name, found in good.items()]),
            },
        )

    def _lookback(self, item: Derivation) -> int:
        limit = self.store.ring(item.width).limit
        return min(item.spec.reach or limit, limit)

    def _by_instrument(
        self, item: Derivation, ids: Ints, numbers: Ints, bars: dict[str, npt.NDArray[np.int64]]
    ) -> Iterator[tuple[Ints, BarHistory, Ints, Ints]]:
        """Rows, the history of their instruments, and the place and columns of the rows' bars in it.

        Instruments whose bars start at the same times share a history without holes. In a liquid market
        these are nearly all, so there are few histories to compute.
        """
        ring, lookback = self.store.ring(item.width), self._lookback(item)
        back = numbers[:, None] + np.arange(1 - lookback, 1)
        kept = back >= np.maximum(ring.total[ids] - ring.capacity, 0)[:, None]
        starts = np.where(kept, ring.ints[ids[:, None], back % ring.capacity, TIME], 0)
        alike: dict[bytes, list[int]] = {}
        for row in range(len(ids)):  # 3 ms for 2,500 instruments
            alike.setdefault(starts[row].tobytes(), []).append(row)
        for rows in alike.values():
            members = ids[rows]
            times, fields = self.store.aligned(item.width, members, numbers[rows] + 1, lookback)
            place = np.full(len(rows), len(times) - 1)
            yield np.array(rows), self._history(item, members, times, fields), place, np.arange(len(rows))

    def _of_market(
        self, item: Derivation, ids: Ints, numbers: Ints, bars: dict[str, npt.NDArray[np.int64]]
    ) -> Iterator[tuple[Ints, BarHistory, Ints, Ints]]:
        """All rows at once, with the history of all instruments: of each, the bars that had ended by then."""
        members = np.arange(len(self.universe))
        stop = self.store.complete(item.width, int(bars["end"].max()))
        times, fields = self.store.aligned(item.width, members, stop, self._lookback(item))
        history = self._history(item, members, times, fields)
        yield np.arange(len(ids)), history, np.searchsorted(times, bars["time"]), ids

    def _history(self, item: Derivation, members: Ints, times: Ints, fields: dict[str, Floats]) -> BarHistory:
        turnover, volume = fields.pop("turnover"), fields["volume"]
        with np.errstate(invalid="ignore", divide="ignore"):
            fields["vwap"] = np.where(volume > 0, turnover / volume, np.nan)
        symbols = [self.universe.symbols[i] for i in members]
        return BarHistory.from_arrays(times, symbols, item.width, self.tz, copy=False, **fields)


def _outputs(rows: Mapping[str, Ints]) -> pa.Array:
    places = np.repeat(np.arange(len(rows), dtype=np.int16), [len(found) for found in rows.values()])
    return pa.DictionaryArray.from_arrays(places, pa.array(list(rows))).cast(NAME)
