"""Cancelled and corrected trades: bars and last prices are those of the trades that hold."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.clock import to_us
from marketdash.conditions import HIGH_LOW, LAST, OPEN, VOLUME, bit, effects, tape_of
from marketdash.frames import BarStore, LastPrices
from marketdash.indicators import parse
from marketdash.instruments import Instrument, Universe
from marketdash.log import open_session
from marketdash.market import Market
from marketdash.pipeline import Graph
from marketdash.pipeline.bars import BuildBars, BuildTicks
from marketdash.pipeline.clean import Clean
from marketdash.pipeline.clean_ticks import CleanTicks
from marketdash.pipeline.correct import Correct
from marketdash.pipeline.sessions import SessionTable
from marketdash.schema import WIDTHS, conform
from marketdash.sources.replay import ReplaySource
from marketdash.testing.golden import assert_same, snapshot, write_log

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
UNIVERSE = Universe([Instrument(0, "NY", mic="XNYS", calendar="XNYS"), Instrument(1, "COIN")])
NAN = float("nan")
ODD = bit("odd lot")


class Row(NamedTuple):
    """A trade, or a correction of the one with this number; microseconds, and None for what is not told."""

    time: int
    known: int
    instrument: int
    seq: int
    price: float | None
    size: float | None
    mask: int | None
    corrects: bool = False


def batches(rows: list[Row], cut: int = 1000) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Neighbours of one topic together, at most `cut` of them; corrections are numbered as they come."""
    begin = 0
    while begin < len(rows):
        end = begin
        while end < len(rows) and end - begin < cut and rows[end].corrects == rows[begin].corrects:
            end += 1
        part = rows[begin:end]
        columns = {
            "time": times([row.time for row in part]), "known_at": times([row.known for row in part]),
            "instrument_id": [row.instrument for row in part],
            "price": pa.array([row.price for row in part], pa.float64()),
            "size": pa.array([row.size for row in part], pa.float64()),
            "conditions": pa.array([row.mask for row in part], pa.uint32()),
            "original_seq" if part[0].corrects else "seq": [row.seq for row in part],
        }  # fmt: skip
        if part[0].corrects:
            yield "corrections", conform("corrections", columns | {"seq": np.arange(begin, end)})
        else:
            yield "ticks", conform("ticks", columns)
        begin = end


def times(us: list[int]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.array(us, "M8[us]"), tz="UTC")


class Bench:
    """The steps from rows to bars and last prices, without the wiring."""

    def __init__(
        self,
        universe: Universe = UNIVERSE,
        recent: int = 1 << 12,
        lateness_us: int = 0,
        horizon_us: int = DAY,
    ) -> None:
        table = SessionTable(universe)
        self.store, self.last = BarStore(len(universe), tuple(WIDTHS)), LastPrices(len(universe))
        self.clean = CleanTicks(table, recent)
        self.build = BuildTicks(self.store, self.last, self.clean, lateness_us, horizon_us)
        self.correct = Correct(self.store, self.last, self.clean, lateness_us, horizon_us)
        self.told = Clean(table, "bars"), BuildBars(table, self.store)

    def push(self, rows: list[Row], cut: int = 1000) -> "Bench":
        for topic, batch in batches(rows, cut):
            if topic == "corrections":
                self.correct(batch)
            elif (good := self.clean(batch)) is not None:
                self.build(good)
        return self

    def tell(self, width: str, start: int, price: float, volume: float) -> "Bench":
        """A ready-made bar, known at its end."""
        columns = {name: [price] for name in ("open", "high", "low", "close")}
        batch = conform(
            "bars",
            {"time": times([start]), "instrument_id": [0], "width": [width], "volume": [volume], **columns},
        )
        good = self.told[0](batch)
        assert good is not None
        self.told[1](good)
        return self

    def bars(self, width: str, instrument: int = 0) -> list[tuple[float, ...]]:
        """Open, high, low, close, volume, turnover, count, revision of each bar."""
        bars = self.store.bars(instrument, width)
        columns = (
            bars.open,
            bars.high,
            bars.low,
            bars.close,
            bars.volume,
            bars.turnover,
            bars.count,
            bars.revision,
        )
        return [tuple(float(value) for value in row) for row in zip(*columns, strict=True)]

    @property
    def counts(self) -> dict[str, Any]:
        told = {
            name: count for name, count in self.correct.counts().items() if count and name != "quarantined"
        }
        return told | {reason: count for reason, count in self.correct.rejected.items() if count}


START = to_us("2018-11-21 15:00")


def trade(
    second: float, seq: int, price: float, size: float | None = 1.0, mask: int = 0, late: float = 0
) -> Row:
    time = START + int(second * SECOND)
    return Row(time, time + int(late * SECOND), 0, seq, price, size, mask)


def correction(
    second: float, seq: int, price: float | None = None, size: float | None = None, mask: int | None = None
) -> Row:
    """Without a price, a cancellation."""
    now = START + int(second * SECOND)
    return Row(now, now, 0, seq, price, size, mask, corrects=True)


# ---- against a plain model


@dataclass
class Print:
    """A trade as it holds now."""

    row: Row
    price: float
    size: float
    effects: int
    begins: bool
    void: bool = False

    @property
    def order(self) -> tuple[int, int]:
        return self.row.time, self.row.seq

    @property
    def now(self) -> int:
        return 0 if self.void else self.effects


@dataclass
class PlainBar:
    """What lies in a bar; of prints that are told not to, only the volume."""

    end: int
    prints: list[Print] = field(default_factory=list)
    without_price: list[Print] = field(default_factory=list)
    revision: int = 0
    shown: float = NAN

    @property
    def is_empty(self) -> bool:
        return not any(item.now & OPEN for item in self.prints)

    @property
    def values(self) -> tuple[float, ...]:
        sums = [item for item in [*self.prints, *self.without_price] if item.now & VOLUME]
        sized = [item for item in sums if item.size == item.size]
        volume = math.fsum(item.size for item in sized)
        turnover = math.fsum(item.price * item.size for item in sized)
        rest = (volume, turnover, float(len(sums)), float(self.revision))
        if self.is_empty:
            return (self.shown,) * 4 + rest
        opened = min((item for item in self.prints if item.now & OPEN), key=lambda item: item.order).price
        high = max(item.price for item in self.prints if item.now & HIGH_LOW)
        low = min(item.price for item in self.prints if item.now & HIGH_LOW)
        lasts = [item for item in self.prints if item.now & LAST]
        closed = max(lasts, key=lambda item: item.order).price if lasts else opened
        return opened, high, low, closed, *rest


SESSIONS = {  # start, end, whether it is regular, and the day
    0: [
        (to_us("2018-11-21 09:00"), to_us("2018-11-21 14:30"), False, 0),
        (to_us("2018-11-21 14:30"), to_us("2018-11-21 21:00"), True, 0),
        (to_us("2018-11-21 21:00"), to_us("2018-11-22 01:00"), False, 0),
        (to_us("2018-11-23 09:00"), to_us("2018-11-23 14:30"), False, 2),
        (to_us("2018-11-23 14:30"), to_us("2018-11-23 18:00"), True, 2),  # a half day
        (to_us("2018-11-23 18:00"), to_us("2018-11-23 22:00"), False, 2),
    ],
    1: [(to_us("2018-11-21") + i * DAY, to_us("2018-11-22") + i * DAY, True, i) for i in range(3)],
}


def session(instrument: int, time: int) -> tuple[int, int, bool, int]:
    return next(item for item in SESSIONS[instrument] if item[0] <= time < item[1])


def what_it_changes(instrument: int, time: int, mask: int) -> int:
    tape = tape_of(UNIVERSE[instrument].mic)
    return int(effects(mask, tape, session(instrument, time)[2]))


class PlainWidth:
    """The bars of one instrument and width: each trade is put somewhere when it comes, and found there ever after."""

    def __init__(self, instrument: int, width: str) -> None:
        self.instrument, self.width = instrument, width
        self.bars: dict[int, PlainBar] = {}
        self.waiting: list[Print] = []
        self.waiting_longer: list[Print] = []
        """Those that wait for the first bar of all, whose own bar never came to be."""
        self.wait_start = 0

    def bounds(self, time: int) -> tuple[int, int]:
        first, last, _, _ = session(self.instrument, time)
        if self.width == "1d":
            return first, last
        floor = time // WIDTHS[self.width] * WIDTHS[self.width]
        return max(floor, first), min(floor + WIDTHS[self.width], last)

    def takes(self, time: int) -> bool:
        return self.width != "1d" or session(self.instrument, time)[2]

    def add(self, item: Print, seen: int) -> None:
        if not self.takes(item.row.time):
            return
        start, end = self.bounds(item.row.time)
        head = max(self.bars, default=None)
        if start in self.bars:
            bar = self.bars[start]
            bar.prints.append(item)
            bar.revision += seen > end
        elif head is not None and start < head:
            before = max((other for other in self.bars if other < start), default=None)
            if item.effects & OPEN:
                self.bars[start] = PlainBar(end, [item])
            elif before is not None:
                self.bars[before].without_price.append(item)
                self.bars[before].revision += seen > self.bars[before].end
        else:
            self._newest(item, start, end, head)

    def _newest(self, item: Print, start: int, end: int, head: int | None) -> None:
        if self.is_waited and self.wait_start < start:
            if head is not None:
                self.bars[head].without_price += self.waiting + self.waiting_longer
                self.waiting, self.waiting_longer = [], []
            else:
                self.waiting, self.waiting_longer = [], self.waiting + self.waiting_longer
                self.wait_start = self.wait_start if item.effects & OPEN else start
        if not item.effects & OPEN:
            self.wait_start = self.wait_start if self.is_waited else start
            self.waiting.append(item)
            return
        self.bars[start] = PlainBar(end, [item])
        if self.is_waited and self.wait_start <= start:
            self.bars[start].prints += self.waiting
            self.bars[start].without_price += self.waiting_longer
            self.waiting, self.waiting_longer = [], []

    @property
    def is_waited(self) -> bool:
        return bool(self.waiting or self.waiting_longer)

    def correct(self, item: Print, begins_now: bool, seen: int) -> None:
        """The print has changed; one that can begin a bar now goes into its own."""
        if not self.takes(item.row.time):
            return
        start, _ = self.bounds(item.row.time)
        lies = next((at for at, bar in self.bars.items() if any(other is item for other in bar.prints)), None)
        aside = next(
            (at for at, bar in self.bars.items() if any(other is item for other in bar.without_price)), None
        )
        if begins_now and lies is None:
            if aside is not None:
                self._leave(self.bars[aside].without_price, item)
            if aside not in (None, start):
                self._changed(aside, seen)
            self._leave(self.waiting, item)
            self._leave(self.waiting_longer, item)
            if start in self.bars:
                self.bars[start].prints.append(item)
                self._changed(start, seen)
            else:
                self.add(item, seen)
        elif (at := lies if lies is not None else aside) is not None:
            self._changed(at, seen)

    @staticmethod
    def _leave(prints: list[Print], item: Print) -> None:
        prints[:] = [other for other in prints if other is not item]

    def _changed(self, start: int, seen: int) -> None:
        self.bars[start].revision += seen > self.bars[start].end
        order = sorted(self.bars)
        at = order.index(start)
        if at and self.bars[start].is_empty:
            self.bars[start].shown = self.bars[order[at - 1]].values[3]
        elif self.bars[start].is_empty:
            self.bars[start].shown = NAN
        price = self.bars[start].values[3]
        for other in order[at + 1 :]:
            bar = self.bars[other]
            if not bar.is_empty or bar.shown == price or (bar.shown != bar.shown and price != price):
                break
            bar.shown = price
            bar.revision += seen > bar.end


class Plain:
    """Everything told again with lists and dictionaries."""

    def __init__(self) -> None:
        self.widths = {(i, width): PlainWidth(i, width) for i in range(len(UNIVERSE)) for width in WIDTHS}
        self.prints: dict[tuple[int, int], Print] = {}
        self.day = dict.fromkeys(range(len(UNIVERSE)), -1)
        self.before = dict.fromkeys(range(len(UNIVERSE)), NAN)

    def push(self, rows: list[Row]) -> "Plain":
        for row in rows:
            (self._correct if row.corrects else self._add)(row)
        return self

    def _add(self, row: Row) -> None:
        changes = what_it_changes(row.instrument, row.time, row.mask or 0)
        size = NAN if row.size is None else row.size
        item = Print(row, row.price or NAN, size, changes, changes & OPEN != 0)
        if changes & LAST:
            self._note_day(item)
        self.prints[row.instrument, row.seq] = item
        for plain in self._of(row.instrument):
            plain.add(item, row.known)

    def _correct(self, row: Row) -> None:
        if (item := self.prints.get((row.instrument, row.seq))) is None:
            return
        was = item.now
        if row.price is None:
            if item.void:
                return
            item.void = True
        else:
            size = item.size if row.size is None else row.size
            kind = (
                item.effects if row.mask is None else what_it_changes(row.instrument, item.row.time, row.mask)
            )
            same = (row.price, kind) == (item.price, item.effects) and (
                size == item.size or size != size != item.size
            )
            if same and not item.void:
                return
            item.price, item.size, item.effects, item.void = row.price, size, kind, False
        begins_now = not item.begins and item.now & OPEN != 0
        item.begins |= begins_now
        for plain in self._of(row.instrument):
            plain.correct(item, begins_now, row.known)
        self._correct_day(item, was)

    def _of(self, instrument: int) -> list[PlainWidth]:
        return [plain for (i, _), plain in self.widths.items() if i == instrument]

    def _lasts(self, instrument: int, *, regular: bool = False, before: int = 99) -> list[Print]:
        """The prints that have set a last price and hold, in their order."""
        found = [item for (i, _), item in self.prints.items() if i == instrument and item.now & LAST]
        fitting = [
            item for item in found
            if session(instrument, item.row.time)[3] < before and (session(instrument, item.row.time)[2] or not regular)
        ]  # fmt: skip
        return sorted(fitting, key=lambda item: item.order)

    def _note_day(self, item: Print) -> None:
        i, day = item.row.instrument, session(item.row.instrument, item.row.time)[3]
        others = [other for other in self._lasts(i) if other is not item]
        newest = not others or item.order >= others[-1].order
        if newest and day > self.day[i]:
            self.before[i] = others[-1].price if others else self.before[i]
            self.day[i] = day

    def _correct_day(self, item: Print, was: int) -> None:
        i = item.row.instrument
        if was & LAST:
            if session(i, item.row.time)[3] < self.day[i] and not self._lasts(
                i, regular=True, before=self.day[i]
            ):
                self.before[i] = ([NAN] + [other.price for other in self._lasts(i, before=self.day[i])])[-1]
        elif item.now & LAST:
            self._note_day(item)

    def last(self, instrument: int) -> tuple[float, float, float]:
        """Last price, regular close, previous close."""
        last, regular, previous = (
            [NAN] + [item.price for item in found]
            for found in (
                self._lasts(instrument),
                self._lasts(instrument, regular=True),
                self._lasts(instrument, regular=True, before=self.day[instrument]),
            )
        )
        return last[-1], regular[-1], previous[-1] if len(previous) > 1 else self.before[instrument]


EDGES = [to_us(f"2018-11-{edge}") for edge in ("21 14:30", "21 21:00", "23 13:59:50", "23 14:30")]
MOMENTS = st.tuples(st.sampled_from(EDGES), st.integers(-20, 20)).map(lambda at: at[0] + at[1] * 400_000)
PRICES = st.sampled_from([99.99, 100.0, 100.01, 100.3])
SIZES = st.sampled_from([1.0, 100.0, 0.1, 0.3, 1e-8, 0.0])
DELAYS = st.sampled_from([0] * 5 + [1, 5 * SECOND, 70 * SECOND, HOUR])
MASKS = st.sampled_from([0] * 4 + [ODD, ODD, bit("opening trade")])
TICKS = st.lists(st.tuples(MOMENTS, DELAYS, st.integers(0, 1), PRICES, SIZES, MASKS), min_size=1, max_size=30)
CORRECTIONS = st.lists(
    st.tuples(
        st.integers(0, 29),
        st.integers(0, 30),
        st.none() | PRICES,
        st.none() | SIZES,
        st.none() | MASKS,
        st.booleans(),
    ),
    max_size=25,
)


def told(ticks: list[tuple[Any, ...]], corrections: list[tuple[Any, ...]]) -> list[Row]:
    """Trades in the order in which they are known, each correction after the trade that it speaks of."""
    came = sorted(ticks, key=lambda tick: tick[0] + tick[1])
    rows = [Row(time, time + delay, i, n, *what) for n, (time, delay, i, *what) in enumerate(came)]
    places: dict[int, list[Row]] = {}
    for target, later, price, size, mask, wrong in corrections:
        original = rows[target % len(rows)]
        place = min(original.seq + later, len(rows) - 1)
        i = original.instrument if not wrong or later else 1 - original.instrument
        known = rows[place].known
        places.setdefault(place, []).append(
            Row(known, known, i, original.seq, price, size, mask, corrects=True)
        )
    return [row for place, tick in enumerate(rows) for row in (tick, *places.get(place, ()))]


def assert_as_plain(bench: Bench, plain: Plain) -> None:
    for (instrument, width), expected in plain.widths.items():
        bars = bench.bars(width, instrument)
        wanted = [expected.bars[start].values for start in sorted(expected.bars)]
        assert repr(bars) == repr(wanted), f"{width} of {UNIVERSE.symbols[instrument]}"
        assert bench.store.bars(instrument, width).time.tolist() == sorted(expected.bars)
        names = ("last", "regular_close", "previous_close")
        prices = tuple(float(bench.last.prices(name)[instrument]) for name in names)
        assert repr(prices) == repr(plain.last(instrument))


@settings(max_examples=30)
@given(ticks=TICKS, corrections=CORRECTIONS, cut=st.sampled_from([1, 3, 1000]))
def test_bars_and_last_prices_are_those_of_the_trades_that_hold(
    ticks: list[tuple[Any, ...]], corrections: list[tuple[Any, ...]], cut: int
):
    rows = told(ticks, corrections)
    bench = Bench().push(rows, cut)
    assert_as_plain(bench, Plain().push(rows))
    assert "partial" not in bench.counts


@settings(max_examples=20)
@given(ticks=TICKS, corrections=CORRECTIONS, recent=st.sampled_from([4, 16, 4096]))
def test_however_the_rows_are_cut_the_same_comes_out(
    ticks: list[tuple[Any, ...]], corrections: list[tuple[Any, ...]], recent: int
):
    rows = told(ticks, corrections)
    one, two = (Bench(recent=recent).push(rows, cut) for cut in (1, 1000))
    for width in WIDTHS:
        for i in range(len(UNIVERSE)):
            for left, right in zip(one.store.bars(i, width), two.store.bars(i, width), strict=True):
                assert np.asarray(left).tobytes() == np.asarray(right).tobytes(), width
    assert (
        one.last.floats.tobytes() + one.last.ints.tobytes()
        == two.last.floats.tobytes() + two.last.ints.tobytes()
    )
    assert one.counts == two.counts


@settings(max_examples=15)
@given(ticks=TICKS, corrections=CORRECTIONS)
def test_volumes_are_right_even_where_memory_is_short(
    ticks: list[tuple[Any, ...]], corrections: list[tuple[Any, ...]]
):
    """Trades that begin bars, since only the way of those tells where the volume of the others went."""
    priced = [(*tick[:5], 0) for tick in ticks]
    kept = [(target, later, price, size, None, False) for target, later, price, size, *_ in corrections]
    rows = told(priced, kept)
    bench, plain, forgotten = Bench(recent=8), Plain(), 0
    for row in rows:
        before = bench.correct.rejected["unknown original"]
        bench.push([row])
        if bench.correct.rejected["unknown original"] == before:
            plain.push([row])
        else:
            forgotten += 1
    assert forgotten == bench.correct.rejected["unknown original"]
    for (instrument, width), expected in plain.widths.items():
        wanted = [expected.bars[start].values[4:] for start in sorted(expected.bars)]
        assert repr([bar[4:] for bar in bench.bars(width, instrument)]) == repr(wanted), width


# ---- one thing after the other


def minute(bench: Bench) -> tuple[float, ...]:
    """Open, high, low, close, volume and count of the first minute."""
    bar = bench.bars("1min")[0]
    return (*bar[:5], bar[6])


def test_a_cancelled_trade_leaves_no_trace_but_a_revision():
    bench = Bench().push(
        [trade(0, 1, 10.0), trade(1, 2, 90.0, 0.1), trade(2, 3, 11.0, 0.2), correction(90, 2)]
    )
    assert minute(bench) == (10.0, 11.0, 10.0, 11.0, 1.2, 2.0)
    assert [bar[-1] for bar in bench.bars("1min")] == [1.0], "it had ended"
    assert [bar[-1] for bar in bench.bars("5min")] == [0.0]
    bars = bench.store.bars(0, "5min")
    assert bars.known.tolist() == [START + 90 * SECOND]
    assert bench.counts == {"applied": 1, "revised": 1}
    assert bench.last.prices("last")[0] == 11.0


def test_the_last_price_is_that_of_the_newest_trade_that_holds():
    bench = Bench().push(
        [trade(0, 1, 10.0), trade(5, 2, 11.0), trade(9, 3, 12.0, mask=ODD), correction(10, 2)]
    )
    assert (bench.last.prices("last")[0], bench.last.times("time")[0]) == (10.0, START)
    assert bench.last.times("known_at")[0] == START + 10 * SECOND
    bench.push([correction(11, 2, 13.0)])
    assert (bench.last.prices("last")[0], bench.last.times("time")[0]) == (13.0, START + 5 * SECOND)
    bench.push([correction(12, 1), correction(12, 2)])
    assert math.isnan(bench.last.prices("last")[0])


def test_a_lateness_keeps_a_bar_from_being_revised():
    rows = [trade(0, 1, 10.0), trade(1, 2, 11.0), correction(70, 2)]
    assert [Bench(lateness_us=late).push(rows).bars("1min")[0][-1] for late in (0, 10 * SECOND)] == [1.0, 0.0]


def test_a_correction_works_on_the_newest_values_and_a_cancellation_on_a_corrected_trade():
    bench = Bench().push([trade(0, 1, 10.0), trade(1, 2, 11.0, 5.0)])
    bench.push([correction(2, 2, 12.0)])
    assert minute(bench) == (10.0, 12.0, 10.0, 12.0, 6.0, 2.0)
    bench.push([correction(3, 2, 13.0, 7.0)])
    assert minute(bench) == (10.0, 13.0, 10.0, 13.0, 8.0, 2.0)
    bench.push([correction(4, 2)])
    assert minute(bench) == (10.0, 10.0, 10.0, 10.0, 1.0, 1.0)
    bench.push([correction(5, 2, 9.0)])  # and puts it in again
    assert minute(bench) == (10.0, 10.0, 9.0, 9.0, 8.0, 2.0)
    assert bench.counts == {"applied": 4, "revised": 3}, "the second had ended by the second correction"


def test_what_is_known_already_is_a_duplicate():
    bench = Bench().push([trade(0, 1, 10.0), trade(1, 2, 11.0, None), correction(2, 1), correction(3, 1)])
    bench.push(
        [
            correction(4, 2, 11.0),
            correction(5, 2, 12.0),
            correction(6, 2, 12.0),
            correction(7, 2, 12.0, mask=0),
        ]
    )
    assert bench.counts == {"applied": 2, "revised": 2, "duplicate": 4}


def test_a_corrected_trade_that_is_sent_again_as_it_was_is_a_duplicate():
    first, second = trade(0, 1, 10.0), trade(1, 2, 11.0)
    bench = Bench().push([first, second, correction(2, 1), correction(2, 2, 12.0), first, second])
    assert minute(bench) == (12.0, 12.0, 12.0, 12.0, 1.0, 1.0)
    assert bench.clean.rejected == {"duplicate": 2}


def test_a_correction_of_what_nobody_knows_is_counted_and_kept():
    bench = Bench(recent=2).push([trade(0, 1, 10.0), trade(1, 2, 11.0), trade(2, 3, 12.0)])
    before = bench.bars("1min")
    bench.push([correction(3, 1), correction(3, 99, 5.0), correction(3, -1)])
    assert bench.bars("1min") == before
    assert bench.counts == {"unknown original": 3}
    kept = bench.correct.rejects
    assert [row["original_seq"] for row in kept] == [1, 99, -1]
    assert {row["topic"] for row in kept} == {"corrections"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"instrument": 7}, "unknown instrument"),
        ({"instrument": -1}, "unknown instrument"),
        ({"price": 0.0}, "impossible price"),
        ({"price": -1.0}, "impossible price"),
        ({"price": math.inf}, "impossible price"),
        ({"size": -1.0}, "impossible size"),
        ({"size": math.inf}, "impossible size"),
        ({"time": 5}, "impossible time"),
        ({"time": START + HOUR}, "impossible time"),
    ],
)
def test_a_correction_that_cannot_be_true_changes_nothing(wrong: dict[str, Any], reason: str):
    bench = Bench().push([trade(0, 1, 10.0)])
    before, bad = bench.bars("1s"), correction(2, 1, 11.0)._replace(**wrong)
    bench.push([bad, correction(3, 1, 12.0), bad])
    assert before == [(10.0,) * 4 + (1.0, 10.0, 1.0, 0.0)]
    assert bench.bars("1s") == [(12.0,) * 4 + (1.0, 12.0, 1.0, 1.0)]
    assert bench.counts == {"applied": 1, "revised": 1, reason: 2}


def test_a_price_that_is_not_a_number_cancels_like_none():
    assert minute(Bench().push([trade(0, 1, 10.0), trade(1, 2, 11.0), correction(2, 2, NAN)])) == (
        10.0,
    ) * 4 + (1.0, 1.0)


# ---- bars that nobody has traded in


def test_a_bar_whose_trades_are_all_cancelled_shows_the_close_before_it():
    bench = Bench().push(
        [trade(0, 1, 10.0), trade(61, 2, 99.0), trade(62, 3, 5.0, mask=ODD), trade(125, 4, 11.0)]
    )
    bench.push([correction(130, 2)])
    assert [bar[:5] for bar in bench.bars("1min")] == [
        (10.0,) * 4 + (1.0,),
        (10.0,) * 4 + (1.0,),
        (11.0,) * 4 + (1.0,),
    ]
    assert [bar[6] for bar in bench.bars("1min")] == [1.0, 1.0, 1.0], "the odd lot is still there"
    bench.push([trade(63, 5, 8.0, late=70)])
    assert bench.bars("1min")[1][:5] == (8.0,) * 4 + (2.0,)


def test_before_the_first_price_there_is_none():
    bench = Bench().push([trade(0, 1, 10.0), correction(1, 1)])
    assert repr(bench.bars("1min")) == repr([(NAN,) * 4 + (0.0,) * 4])
    bench.push([trade(2, 2, 8.0), trade(3, 3, 9.0)])
    assert bench.bars("1min") == [(8.0, 9.0, 8.0, 9.0, 2.0, 17.0, 2.0, 0.0)]


@pytest.mark.parametrize("order", [1, -1])
def test_many_bars_in_a_row_are_emptied_in_whatever_order(order: int):
    """More than there is room for in the notes of the past."""
    number = 4500
    bad = [trade(10 + i, i, 10.4) for i in range(2, number)]
    cancelled = [correction(number + 20, i) for i in range(2, number)][::order]
    bench = Bench(recent=1 << 13).push(
        [trade(0, 1, 10.0), *bad, trade(number + 15, number, 10.2), *cancelled]
    )
    bars = bench.store.bars(0, "1s")
    assert len(bars) == number
    assert set(bars.open.tolist()) | set(bars.high.tolist()) == {10.0, 10.2}
    assert bars.volume.tolist() == [1.0, *[0.0] * (number - 2), 1.0]


# ---- where memory ends


def test_a_trade_that_takes_the_place_of_the_one_before_it_in_memory_is_not_its_own_successor():
    other = trade(0, 0, 5.0)._replace(instrument=1)
    rows = [trade(0, 1, 10.0), *(other._replace(seq=i) for i in range(3)), trade(1, 2, 11.0)]
    bench = Bench(recent=4).push([*rows, trade(1, 2, 11.0), correction(2, 2)])
    assert bench.counts["applied"] == 1
    assert bench.clean.rejected["duplicate"] == 1


def test_prices_stay_where_they_are_not_certain_and_that_is_counted():
    rows = [trade(i / 10, i, price) for i, price in enumerate([10.0, 10.2, 9.8, 10.1, 10.3, 10.0])]
    bench = Bench(recent=4).push([*rows, correction(2, 4)])  # the high; the first two are forgotten
    assert minute(bench) == (10.0, 10.3, 9.8, 10.0, 5.0, 5.0)
    assert bench.counts == {"applied": 1, "partial": 1, "revised": 1}
    bench.push([correction(3, 3)])  # neither open, high, low nor close
    assert minute(bench) == (10.0, 10.3, 9.8, 10.0, 4.0, 4.0)
    bench.push([correction(4, 4, 10.6)])  # a higher high is one
    assert minute(bench) == (10.0, 10.6, 9.8, 10.0, 5.0, 5.0)
    assert bench.counts["partial"] == 1


def test_wider_bars_are_made_from_narrower_ones_when_their_trades_are_forgotten():
    rows = [trade(10 * i, i, 10.0 + i / 10) for i in range(6)]
    bench = Bench(recent=2).push([*rows, correction(55, 5)])
    assert minute(bench) == (10.0, 10.4, 10.0, 10.4, 5.0, 5.0)
    assert bench.bars("1h")[0][:4] == (10.0, 10.4, 10.0, 10.4)
    assert "partial" not in bench.counts


def test_a_last_price_whose_trade_is_forgotten_is_found_in_the_bars():
    other = trade(1, 9, 5.0)._replace(instrument=1)
    bench = Bench(recent=2).push([trade(0, 1, 10.0), other, trade(5, 2, 11.0), correction(6, 2)])
    assert (bench.last.prices("last")[0], bench.last.times("time")[0]) == (10.0, START)


# ---- beside ready-made bars


def test_a_ready_made_bar_and_wider_ones_are_not_changed():
    bench = Bench().push([trade(0, 1, 10.0), trade(1, 2, 12.0)]).tell("1min", START, 20.0, 99.0)
    wide = {width: bench.bars(width) for width in ("1min", "5min", "1d")}
    bench.push([correction(70, 2)])
    assert bench.bars("5s")[0][:5] == (10.0,) * 4 + (1.0,)
    assert repr({width: bench.bars(width) for width in wide}) == repr(wide)
    assert bench.bars("1min")[0][4] == 99.0


# ---- prints that were held


def warmed() -> list[Row]:
    return [trade(-60 + i, 100 + i, 10.0) for i in range(25)]


def test_a_held_print_that_is_cancelled_is_dropped():
    far = [trade(1, 1, 99.0), trade(2, 2, 99.1), trade(4, 3, 99.2)]
    bench = Bench().push([*warmed(), far[0], correction(1.5, 1), far[1]])
    assert bench.counts == {"settled": 1}
    bench.push([far[2]])
    assert bench.last.prices("last")[0] == 10.0, "only two agree"
    assert bench.clean.rejects[0]["reason"] == "withdrawn by its source"
    bench.push([trade(5, 4, 99.0)])
    assert bench.last.prices("last")[0] == 99.0
    assert [bar[6] for bar in bench.bars("1min")][-1] == 3.0, (
        "and the one that was withdrawn is not among them"
    )


def test_a_held_print_that_is_corrected_is_a_trade_like_any_other():
    bench = Bench().push([*warmed(), trade(1, 1, 99.0, 3.0), trade(2, 2, 10.0), correction(3, 1, 10.2)])
    assert minute(bench)[4] == 25.0
    assert bench.bars("1min")[-1][:5] == (10.2, 10.2, 10.0, 10.0, 4.0)
    assert bench.counts == {"applied": 1, "settled": 1}
    assert bench.clean.rejected["far from the last prices"] == 0


def test_a_cancelled_price_is_none_that_others_are_judged_by():
    moved = [trade(1 + i, i, 99.0) for i in range(3)]
    bench = Bench().push([*warmed(), *moved, *(correction(5, i) for i in range(3)), trade(6, 10, 10.1)])
    assert bench.last.prices("last")[0] == 10.1


def test_a_corrected_price_is_believed_however_far_it_is():
    bench = Bench().push([*warmed(), trade(1, 1, 10.0), correction(2, 1, 500.0)])
    assert bench.last.prices("last")[0] == 500.0


def test_a_trade_that_was_too_late_for_its_bars_has_nothing_to_take_back():
    bench = Bench(horizon_us=HOUR).push(
        [trade(0, 1, 10.0), trade(1, 2, 11.0, late=4000), correction(4001, 2)]
    )
    assert minute(bench) == (10.0,) * 4 + (1.0, 1.0)
    assert bench.counts == {"settled": 1}


# ---- the days


def at(moment: str, seq: int, price: float) -> Row:
    time = to_us(moment)
    return Row(time, time, 0, seq, price, 1.0, 0)


def test_previous_close_and_daily_bar_follow_and_the_day_does_not_go_back():
    rows = [
        at("2018-11-21 20:00", 1, 10.0), at("2018-11-21 20:59", 2, 11.0), at("2018-11-21 22:00", 3, 12.0),
        at("2018-11-23 15:00", 4, 13.0),
    ]  # fmt: skip
    bench = Bench().push(rows)
    names = ("last", "regular_close", "previous_close")

    def cancel(seq: int) -> list[float]:
        now = to_us("2018-11-23 15:01")
        bench.push([Row(now, now, 0, seq, None, None, None, corrects=True)])
        return [float(bench.last.prices(name)[0]) for name in names]

    assert cancel(2) == [13.0, 13.0, 10.0]
    assert [bar[:5] for bar in bench.bars("1d")] == [(10.0,) * 4 + (1.0,), (13.0,) * 4 + (1.0,)]
    assert [bar[-1] for bar in bench.bars("1d")] == [1.0, 0.0]
    assert cancel(4) == [12.0, 10.0, 10.0]
    assert bench.bars("1d")[1][:5] == (10.0,) * 4 + (0.0,)
    assert bench.last.times("day").tolist()[0] == (
        np.datetime64("2018-11-23") - np.datetime64("1970-01-01")
    ).astype(int)
    assert cancel(1) == [12.0, pytest.approx(NAN, nan_ok=True), 12.0]


# ---- in a graph, a log and a market


def run(make: Callable[[], Any]) -> Any:
    """A graph is made and used on a running loop."""

    async def main() -> Any:
        return make()

    return asyncio.run(main())


def test_listeners_hear_of_the_bars_that_a_correction_changes():
    def listen() -> tuple[list[Any], Graph]:
        graph, heard = Graph(UNIVERSE), []
        graph.listen("bars", width="1min").sink(
            lambda batch: heard.extend(
                (row["time"], row["close"], row["revision"]) for row in batch.to_pylist()
            )
        )
        for topic, batch in batches([trade(0, 1, 10.0), trade(1, 2, 12.0), trade(70, 3, 11.0)]):
            graph.push(topic, batch)
        heard.clear()
        for topic, batch in batches([correction(71, 2)]):
            graph.push(topic, batch)
        return heard, graph

    heard, graph = run(listen)
    assert heard == [(pd.Timestamp(START, unit="us", tz="UTC"), 10.0, 1)]
    assert graph.health.summary()["correct ticks"]["applied"] == 1
    assert graph.health.summary()["correct ticks"]["revised"] == 1


def test_a_bar_that_has_ended_is_read_before_a_later_correction_changes_it():
    rows = [trade(0, 1, 10.0), trade(61, 2, 12.0), trade(90, 3, 11.0), correction(125, 3), trade(130, 4, 9.0)]

    def readings(cut: int) -> list[float]:
        graph = Graph(UNIVERSE)
        graph.add_indicator(parse("SMA(1)"), "1min", START)
        for topic, batch in batches(rows, cut):
            graph.push(topic, batch)
        graph.advance(START + HOUR)
        return graph.frames["readings"].table()["value"].to_pylist()

    assert run(lambda: readings(1)) == run(lambda: readings(1000)) == [10.0, 11.0, 9.0]


def recorded(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    trades = [trade(float(i), i, 10.0 + float(rng.integers(-20, 20)) / 64) for i in range(600)]
    corrections = [
        correction(float(seq + 1 + rng.integers(0, 90)), int(seq), *(() if seq % 2 else (10.5,)))
        for seq in sorted(rng.choice(500, 120, replace=False).tolist())
    ]
    topics = dict(batches(trades)) | dict(batches(sorted(corrections, key=lambda row: row.known)))
    write_log(folder / "log", UNIVERSE, topics)
    return folder / "log"


def test_a_seek_gives_what_playing_gives(tmp_path: Path):
    log = open_session(recorded(tmp_path))

    def market(start: int) -> Market:
        return Market(ReplaySource(log, start=start, playing=False)).start()

    moments = [START + second * SECOND for second in (30, 95, 333, 700)]
    with market(START) as played, market(moments[-1]) as sought:
        shown = []
        for moment in moments:
            played.clock.seek(moment)
            shown.append(snapshot(played))
        for moment, expected in reversed(list(zip(moments, shown, strict=True))):
            sought.clock.seek(moment)
            assert_same(expected, snapshot(sought), f"at {moment}")
        assert played.graph.cleaners["corrections"].counts()["applied"] == 120
        assert len(played.frame("corrections")) == 120
        assert played.frame("corrections")["original_seq"].is_unique
        assert len(played.frame("ticks")) == 600, "as they came"


def test_a_correction_of_the_same_moment_comes_after_its_trade(tmp_path: Path):
    topics = dict(batches([trade(0, 50, 10.0), trade(1, 51, 12.0)])) | dict(batches([correction(1, 51)]))
    write_log(tmp_path / "log", UNIVERSE, topics)
    with Market(ReplaySource(open_session(tmp_path / "log"), playing=False)).start() as market:
        market.clock.seek(START + 5 * SECOND)
        assert market.frame("last")["last"]["NY"] == 10.0


def test_what_was_stopped_can_be_read():
    universe = UNIVERSE

    def graph() -> Graph:
        made = Graph(universe)
        for topic, batch in batches([trade(0, 1, 10.0), correction(1, 9)]):
            made.push(topic, batch)
        return made

    made = run(graph)
    assert [row["reason"] for row in made.cleaners["corrections"].rejects] == ["unknown original"]
    assert made.frames["corrections"].table().num_rows == 0
