"""Whatever comes, and however it comes: the engine's bars against a plain model, and against themselves."""

import asyncio
import bisect
import math
import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import exchange_calendars
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdash.clock import to_us
from marketdash.conditions import HIGH_LOW, LAST, OPEN, VOLUME, bit, effects, tape_of
from marketdash.instruments import Instrument, Universe
from marketdash.log import SessionLog, open_session
from marketdash.market import Market
from marketdash.pipeline import Graph, kernels, nbbo_kernels
from marketdash.schema import WIDTHS, conform
from marketdash.sources.replay import ReplaySource
from marketdash.testing.clock import ManualWall, caught_up
from marketdash.testing.golden import assert_same, snapshot, write_log

SECOND, DAY = 1_000_000, 86_400_000_000
UNIVERSE = Universe(
    [
        Instrument(0, "NY", mic="XNYS", calendar="XNYS"),
        Instrument(1, "NASDAQ", mic="XNAS", calendar="XNYS"),
        Instrument(2, "HK", mic="XHKG", calendar="XHKG"),
        Instrument(3, "COIN", mic="", calendar="24/7", tick_size=1e-8),
    ]
)
# The regular open and close and the end of the post session of a half day in New York, a lunch in Hong Kong.
EDGES = [to_us(f"2018-11-23 {hour}") for hour in ("04:00", "05:00", "14:30", "18:00", "22:00")]
FIELDS = ("time", "end", "known", "open", "high", "low", "close", "volume", "turnover", "count", "revision")
SITE = ("session", "day")
HARD = settings(max_examples=40, deadline=None)
OFTEN = settings(max_examples=150, deadline=None)
SLOW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PRICED = [0, bit("opening trade"), bit("intermarket sweep"), bit("closing trade")]
UNPRICED = [
    bit("odd lot"), bit("out of sequence"), bit("sold last"), bit("official close"), bit("corrected close"),
    bit("odd lot") | bit("extended hours"), bit("average price"), bit("suspicious"),
]  # fmt: skip


class Trade(NamedTuple):
    """Microseconds, and what a tick has."""

    time: int
    known: int
    instrument: int
    price: float
    size: float
    mask: int
    seq: int


def batch_of(trades: list[Trade]) -> pa.RecordBatch:
    columns = [np.array(column) for column in zip(*trades, strict=True)] or [np.zeros(0)] * 7
    time, known, instrument, price, size, mask, seq = columns
    return conform(
        "ticks",
        {
            "time": pd.DatetimeIndex(time.astype("M8[us]"), tz="UTC"),
            "known_at": pd.DatetimeIndex(known.astype("M8[us]"), tz="UTC"),
            "instrument_id": instrument.astype(np.int32), "price": price.astype(float),
            "size": size.astype(float), "conditions": mask.astype(np.uint32), "seq": seq.astype(np.int64),
        },
    )  # fmt: skip


def pushed(graph: Graph, batch: pa.RecordBatch, cuts: list[int]) -> Graph:
    edges = sorted({0, batch.num_rows, *(cut for cut in cuts if cut < batch.num_rows)})
    for begin, end in pairwise(edges):
        graph.push("ticks", batch.slice(begin, end - begin))
    return graph


def bars_of(graph: Graph, fields: tuple[str, ...] = FIELDS + SITE) -> dict[str, Any]:
    """Every field of every bar, as bytes: equal means equal bit for bit."""
    shown = {}
    for width in graph.store.widths:
        for instrument in range(len(graph.universe)):
            bars = graph.store.bars(instrument, width)
            shown[f"{width} {instrument}"] = {name: getattr(bars, name).tobytes() for name in fields}
    return shown


def all_of(graph: Graph) -> dict[str, Any]:
    """Whatever can be read out of a graph that was given ticks."""
    waiting = graph.store.waiting.copy()
    waiting[waiting[:, :, 10] == 0] = 0  # what waits no more has left its numbers there
    return {
        **bars_of(graph),
        "last": graph.last.floats.tobytes() + graph.last.ints.tobytes(),
        "waiting": waiting.tobytes(),
        "ticks": repr(graph.frames["ticks"].table().to_pydict()),
        "rejected": {reason: rows for reason, rows in graph.cleaners["ticks"].rejected.items() if rows},
        "rejects": repr(graph.cleaners["ticks"].rejects),
        "late": [call.late.tolist() for call in graph._steps if hasattr(call, "late")],
    }


def run(make: Callable[[], Any]) -> Any:
    """A graph is made and used on a running loop."""

    async def main() -> Any:
        return make()

    return asyncio.run(main())


# ---- a stream in which everything happens

PRICES = st.sampled_from([99.0, 99.5, 100.0, 100.25, 101.0])
ABSURD = st.sampled_from([1.0] * 10 + [2.0, 2.01, 0.3])
SIZES = st.sampled_from([0.0, 1.0, 100.0, 0.1, 0.00000001, 0.3, float("nan")])
MOMENTS = st.tuples(st.sampled_from(EDGES), st.integers(-30, 30)).map(lambda at: at[0] + at[1] * 400_000)
DELAYS = st.sampled_from([0] * 6 + [1, 5 * SECOND, 70 * SECOND, 4000 * SECOND, DAY + 100 * SECOND])
ROW = st.tuples(
    MOMENTS, DELAYS, st.integers(0, 3), PRICES, ABSURD, SIZES, st.sampled_from(PRICED * 3 + UNPRICED)
)
ROWS = st.lists(ROW, min_size=1, max_size=60)


def warm_up(prices: int = 25) -> list[Trade]:
    """So many trades of each instrument that the next ones are judged."""
    start = EDGES[0] - DAY
    return [
        Trade(start + i * SECOND, start + i * SECOND, n, 100.0, 1.0, 0, i)
        for i in range(prices)
        for n in range(len(UNIVERSE))
    ]


def trades_of(rows: list[tuple[Any, ...]]) -> list[Trade]:
    """In the order in which they were known, numbered as they happened."""
    happened = sorted(range(len(rows)), key=lambda i: rows[i][0])
    number = {i: 1000 + place for place, i in enumerate(happened)}
    trades = [
        Trade(time, time + delay, n, price * absurd, size, mask, number[i])
        for i, (time, delay, n, price, absurd, size, mask) in enumerate(rows)
    ]
    return sorted(trades, key=lambda trade: trade.known)


@HARD
@given(
    rows=ROWS,
    moves=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.integers(1, 4)), max_size=2),
    again=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=30),
    read=st.booleans(),
)
def test_nothing_depends_on_how_a_stream_is_cut(
    rows: list[Any],
    moves: list[tuple[int, int, int]],
    again: list[tuple[int, int]],
    cuts: list[int],
    read: bool,
):
    """Conditions, absurd prints, rows that are sent again, late ones; and whether somebody reads complete bars."""
    trades = trades_of(rows)
    for number, (place, instrument, prints) in enumerate(moves):  # held, and set free by the third
        near = trades[min(place, len(trades) - 1)]
        far = near._replace(instrument=instrument, price=300.0 * (1 + number), mask=0)
        trades[place:place] = [far._replace(seq=2000 + 10 * number + i) for i in range(prints)]
    for begin, length in again:
        end = max(trade.known for trade in trades)
        trades += [trade._replace(known=end + 1) for trade in trades[begin : begin + length]]
    batch = batch_of(warm_up() + trades)

    def shown(cuts: list[int], read: bool) -> dict[str, Any]:
        graph, heard = Graph(UNIVERSE), []
        if read:
            graph.listen("bars", width="1min", complete=True, now_us=EDGES[0]).sink(heard.append)
        pushed(graph, batch, cuts)
        graph.advance(EDGES[-1] + 2 * DAY)
        complete = [row for part in heard for row in part.to_pylist()]
        return {**all_of(graph), **({"complete": repr(complete)} if read else {})}

    whole, parts = run(lambda: shown([], read)), run(lambda: shown(cuts, read))
    assert whole == parts
    assert whole == run(lambda: shown(list(range(batch.num_rows)), read)), "row by row"
    if read:
        del whole["complete"]
        assert whole == run(lambda: shown([], False)), "whoever reads changes nothing"


def test_a_long_resend_after_a_reconnect_is_dropped_row_for_row_and_new_rows_in_it_are_taken():
    """Hundreds of rows come again, with those in between that had been lost, while others were held."""
    rng = np.random.default_rng(0)
    trades = [
        Trade(EDGES[2] + i * 100_000, EDGES[2] + i * 100_000, int(n), 100.0 + step / 8, 1.0 + i % 7, 0, i)
        for i, (n, step) in enumerate(zip(rng.integers(0, 4, 3000), rng.integers(-8, 9, 3000), strict=True))
    ]
    trades[1500] = trades[1500]._replace(price=900.0)
    lost = set(range(1200, 2400, 3))
    seen = [trade for i, trade in enumerate(trades) if i not in lost]
    resent = [trade._replace(known=trades[-1].known + 1) for trade in trades[1000:2900]]

    def shown(trades: list[Trade], cuts: list[int]) -> tuple[Any, Any]:
        graph = pushed(Graph(UNIVERSE), batch_of(trades), cuts)
        return bars_of(graph, ("open", "high", "low", "close", "volume", "count")), dict(
            graph.cleaners["ticks"].rejected
        )

    bars, rejected = run(lambda: shown(trades, []))
    again, counted = run(lambda: shown(seen + resent, list(range(0, 5000, 77))))
    assert again == bars
    assert rejected == {"far from the last prices": 1}
    assert counted == {"far from the last prices": 1, "duplicate": len(resent) - len(lost)}


@pytest.mark.parametrize("cuts", [[], [601, 1102], [1], list(range(1, 1103))])
def test_a_print_that_is_held_is_found_again_or_not_however_many_rejects_came_in_how_many_batches(
    cuts: list[int],
):
    """The last thousand rows that were stopped are kept, to the row; what is older stays a reject."""
    rows = [Trade(EDGES[2], EDGES[2], 77, 1.0, 1.0, 0, 5000 + i) for i in range(1103)]
    for i in (0, 1101, 1102):
        rows[i] = rows[i]._replace(instrument=0, price=300.0)

    def shown() -> tuple[Any, Any]:
        graph = pushed(Graph(UNIVERSE), batch_of(warm_up()), [])
        pushed(graph, batch_of(rows), cuts)
        (day,) = graph.store.bars(0, "1d").count[-1:].tolist()
        return dict(graph.cleaners["ticks"].rejected), day

    assert run(shown) == ({"unknown instrument": 1100, "far from the last prices": 1}, 2)


# ---- a plain model


@cache
def segments(calendar: str) -> tuple[list[int], list[tuple[int, str, int, int, int]]]:
    """Where stretches of time begin, and their end, session, trading day, and the day's open and close."""
    hour = 3600 * SECOND
    if calendar == "24/7":
        days = range(EDGES[0] // DAY - 40, EDGES[0] // DAY + 40)
        return [day * DAY for day in days], [
            ((day + 1) * DAY, "regular", day, day * DAY, (day + 1) * DAY) for day in days
        ]
    schedule = exchange_calendars.get_calendar(calendar).schedule.loc["2018-11-05":"2018-12-15"]
    found, before = [], to_us("2018-11-01")
    for day, row in schedule.iterrows():
        opened, closed = to_us(row["open"]), to_us(row["close"])
        pre, post = opened, closed
        if calendar == "XNYS":
            pre = to_us(f"{day:%Y-%m-%d} 04:00", "America/New_York")
            post = min(to_us(f"{day:%Y-%m-%d} 20:00", "America/New_York"), closed + 4 * hour)
        halves = [(opened, closed, "regular")]
        if not pd.isna(row["break_start"]):
            noon, back = to_us(row["break_start"]), to_us(row["break_end"])
            halves = [(opened, noon, "regular"), (noon, back, "overnight"), (back, closed, "regular")]
        parts = [(before, pre, "overnight"), (pre, opened, "pre"), *halves, (closed, post, "post")]
        number = to_us(day) // DAY
        found += [(start, (end, name, number, opened, closed)) for start, end, name in parts if start < end]
        before = post
    return [start for start, _ in found], [about for _, about in found]


def bounds(calendar: str, t: int, width: int) -> tuple[int, int, str, int]:
    """Start, end, session and trading day of the bar that holds a moment."""
    starts, about = segments(calendar)
    place = bisect.bisect_right(starts, t) - 1
    end, session, day, opened, closed = about[place]
    if width == DAY:
        return opened, closed, session, day
    floor = t // width * width  # the zones of these exchanges are whole hours from Greenwich
    return max(floor, starts[place]), min(floor + width, end), session, day


class Bar:
    """All that belongs to it, each with what it may change."""

    def __init__(self, end: int, session: str, day: int) -> None:
        self.end, self.session, self.day, self.revision = end, session, day, 0
        self.parts: list[tuple[Trade, int]] = []

    def row(self, start: int) -> dict[str, Any]:
        def of(effect: int) -> list[Trade]:
            return [trade for trade, changed in self.parts if changed & effect]

        opened = sorted(of(OPEN), key=lambda trade: (trade.time, trade.seq))
        closed = sorted(of(LAST), key=lambda trade: (trade.time, trade.seq)) or opened[:1]
        sized = [trade for trade in of(VOLUME) if not math.isnan(trade.size)]
        return {
            "time": start, "end": self.end, "known": max(trade.known for trade, _ in self.parts),
            "open": opened[0].price, "close": closed[-1].price,
            "high": max(trade.price for trade in of(HIGH_LOW)), "low": min(trade.price for trade in of(HIGH_LOW)),
            "volume": math.fsum(trade.size for trade in sized),
            "turnover": math.fsum(trade.price * trade.size for trade in sized),
            "count": len(of(VOLUME)), "revision": self.revision,
            "session": ("pre", "regular", "post", "overnight").index(self.session), "day": self.day,
        }  # fmt: skip


class Plain:
    """Bars of one instrument and width by lists and dictionaries, one trade after the other as they are known."""

    def __init__(self, instrument: Instrument, width: int, lateness: int) -> None:
        self.instrument, self.width, self.lateness = instrument, width, lateness
        self.bars: dict[int, Bar] = {}
        self.waiting: tuple[int, list[tuple[Trade, int]]] = 0, []

    def add(self, trade: Trade) -> str:
        start, end, session, day = bounds(self.instrument.calendar, trade.time, self.width)
        if self.width == DAY and session != "regular":
            return "not of the day"
        regular = session == "regular"
        changed = int(effects(trade.mask, tape_of(self.instrument.mic), regular)[()])
        newest = max(self.bars, default=-1)
        late = trade.known > end + self.lateness
        if start in self.bars:
            return self.add_to(self.bars[start], trade, changed, late)
        if start > newest:
            if not changed & OPEN:
                self.wait(start, trade, changed)
                return "taken"
            self.settle(start)
            bar = self.bars[start] = Bar(end, session, day)
            since, parts = self.waiting
            if parts and since <= start:
                bar.parts += [(one, may if since == start else may & VOLUME) for one, may in parts]
                self.waiting = 0, []
        elif not changed & OPEN:
            before = [other for other in self.bars if other < start]
            if not before:
                return "too late"
            return self.add_to(self.bars[max(before)], trade, changed & VOLUME, late)
        else:
            bar = self.bars[start] = Bar(end, session, day)
        bar.parts.append((trade, changed))
        return "taken"

    def add_to(self, bar: Bar, trade: Trade, changed: int, late: bool) -> str:
        bar.parts.append((trade, changed))
        bar.revision += late
        return "revised" if late else "taken"

    def wait(self, start: int, trade: Trade, changed: int) -> None:
        self.settle(start)
        since, parts = self.waiting
        if parts and since < start:  # before the first bar of all
            parts = [(one, may & VOLUME) for one, may in parts]
        self.waiting = max(start, since) if parts else start, [*parts, (trade, changed)]

    def settle(self, start: int) -> None:
        """What has waited longer than its bar's time belongs to the bar before."""
        since, parts = self.waiting
        if parts and since < start and self.bars:
            self.bars[max(self.bars)].parts += [(trade, changed & VOLUME) for trade, changed in parts]
            self.waiting = 0, []


@OFTEN
@given(
    rows=ROWS,
    lateness=st.sampled_from([0, 2 * SECOND, 30 * SECOND]),
    horizon=st.sampled_from([60 * SECOND, DAY]),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_bars_are_those_of_a_plain_model(rows: list[Any], lateness: int, horizon: int, cuts: list[int]):
    trades = trades_of([(*row[:4], 1.0, *row[5:]) for row in rows])
    graph = run(
        lambda: pushed(Graph(UNIVERSE, lateness_us=lateness, horizon_us=horizon), batch_of(trades), cuts)
    )
    models = {
        (item.id, width): Plain(item, us, lateness) for item in UNIVERSE for width, us in WIDTHS.items()
    }
    revised = too_late = 0
    for trade in trades:
        if trade.known > trade.time + horizon:
            too_late += 1
            continue
        became = [models[trade.instrument, width].add(trade) for width in WIDTHS]
        revised += "revised" in became
        too_late += "too late" in became and not {"taken", "revised"} & set(became)
    for (instrument, width), model in models.items():
        expected = [model.bars[start].row(start) for start in sorted(model.bars)]
        bars = graph.store.bars(instrument, width)
        for name in FIELDS + SITE:
            shown = getattr(bars, name).tolist()
            assert shown == [row[name] for row in expected], (
                f"{name} of {width} of {UNIVERSE[instrument].symbol}"
            )
    (build,) = (call for call in graph._steps if type(call).__name__ == "BuildTicks")
    assert build.late.tolist() == [revised, too_late]


OPENING, ODD = bit("opening trade"), bit("odd lot")


@pytest.mark.parametrize("lateness", [0, 90 * SECOND])
def test_a_bar_of_opening_trades_alone_closes_where_it_opened(lateness: int):
    """An odd lot before them gives it a volume, and no price; in whatever order they come."""
    start = EDGES[2]
    trades = [
        Trade(start + i, start + SECOND, 0, 100.0 + i, 1.0, mask, i)
        for i, mask in enumerate([ODD, OPENING, OPENING])
    ]
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0]):
        batch = batch_of([trades[i] for i in order])
        graph = run(lambda batch=batch: pushed(Graph(UNIVERSE, lateness_us=lateness), batch, [1, 2]))
        for width in WIDTHS:
            bars = graph.store.bars(0, width)
            shown = bars.open, bars.high, bars.low, bars.close, bars.volume
            assert [column.tolist() for column in shown] == [[101.0], [102.0], [101.0], [101.0], [3.0]]


def test_volume_that_waits_for_the_first_bar_brings_no_price_of_its_own_time():
    moved = bit("out of sequence")
    rows = [(0, moved, 500.0), (3, 0, 100.0)]
    trades = [
        Trade(EDGES[2] + t * SECOND, EDGES[2] + t * SECOND, 0, price, 7.0, mask, t) for t, mask, price in rows
    ]
    graph = run(lambda: pushed(Graph(UNIVERSE), batch_of(trades), []))
    assert graph.store.bars(0, "1s").high.tolist() == [100.0]
    assert graph.store.bars(0, "1s").volume.tolist() == [14.0]
    assert graph.store.bars(0, "5s").high.tolist() == [500.0], "it is in these five seconds"


# ---- order


BUCKET = 90 * SECOND


@OFTEN
@given(rows=ROWS, data=st.data())
def test_a_stream_in_any_order_within_the_lateness_gives_the_same_bars(rows: list[Any], data: st.DataObject):
    """Rows that are told together, at most the lateness after they happened, may come in any order.

    That holds for trades which may open a bar, bit for bit, in every field, and nothing counts as revised.
    """
    trades = [
        trade._replace(known=trade.time // BUCKET * BUCKET + BUCKET, mask=PRICED[trade.mask % len(PRICED)])
        for trade in trades_of([(*row[:4], 1.0, *row[5:]) for row in rows])
    ]
    trades.sort(key=lambda trade: (trade.known, trade.time, trade.seq))
    shuffled = sorted(data.draw(st.permutations(trades)), key=lambda trade: trade.known)
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=6))

    def shown(trades: list[Trade], cuts: list[int]) -> tuple[Any, ...]:
        graph = pushed(Graph(UNIVERSE, lateness_us=BUCKET), batch_of(trades), cuts)
        (build,) = (call for call in graph._steps if type(call).__name__ == "BuildTicks")
        prices = graph.last.floats.tobytes(), graph.last.ints.tobytes()
        return bars_of(graph), prices, build.late.tolist(), graph.cleaners["ticks"].rejected

    in_order = run(lambda: shown(trades, []))
    assert run(lambda: shown(shuffled, cuts)) == in_order
    assert in_order[2] == [0, 0]
    revisions = [np.frombuffer(fields["revision"], np.int64) for fields in in_order[0].values()]
    assert not any(column.any() for column in revisions)


@HARD
@given(rows=ROWS, data=st.data())
def test_trades_that_make_no_price_keep_their_volume_in_whatever_order_they_come(
    rows: list[Any], data: st.DataObject
):
    """They go to their own bar or, if it has no price when the next one begins, to the bar before."""
    trades = [
        trade._replace(known=trade.time // BUCKET * BUCKET + BUCKET, size=float(np.nan_to_num(trade.size)))
        for trade in trades_of(
            [(*row[:4], 1.0, *row[5:-1], row[-1] if i % 2 else 0) for i, row in enumerate(rows)]
        )
    ]
    trades = [trade for trade in trades if trade.mask in (0, bit("odd lot"))]
    first = {
        n: min(trade.time for trade in trades if trade.instrument == n)
        for n in {t.instrument for t in trades}
    }
    # An instrument begins with a price, else that volume has no bar before; and ends with one, else it still waits.
    opening = [Trade(t - SECOND, t, n, 100.0, 1.0, 0, n) for n, t in first.items()]
    closing = [Trade(EDGES[-1] + DAY, EDGES[-1] + DAY, n, 100.0, 1.0, 0, 9000 + n) for n in first]
    shuffled = sorted(data.draw(st.permutations(trades)), key=lambda trade: trade.known)
    graph = run(
        lambda: pushed(Graph(UNIVERSE, lateness_us=BUCKET), batch_of([*opening, *shuffled, *closing]), [])
    )
    told = [*opening, *trades, *closing]
    for n in first:
        mine = [trade for trade in told if trade.instrument == n]
        sized = {width: mine for width in ("1s", "5s", "1min", "5min", "15min", "1h")}
        for width, shares in sized.items():
            bars = graph.store.bars(n, width)
            assert math.fsum(bars.volume) == pytest.approx(math.fsum(t.size for t in shares), rel=1e-15)
            assert int(bars.count.sum()) == len(shares)
            priced = [
                t for t in mine if t.mask == 0 or effects(t.mask, tape_of(UNIVERSE[n].mic), False) & OPEN
            ]
            assert len(bars) <= len({bounds(UNIVERSE[n].calendar, t.time, WIDTHS[width])[0] for t in priced})


SUMMANDS = st.lists(
    st.sampled_from([1e16, 9e15, 1e-3, 0.1, 0.3, 1e-8, 1 / 3, 1e9 + 0.7, 3.0, 2.0**-20]),
    min_size=1,
    max_size=80,
)


@OFTEN
@given(sizes=SUMMANDS, data=st.data())
def test_sums_are_those_of_exact_arithmetic_in_whatever_order_and_however_cut(
    sizes: list[float], data: st.DataObject
):
    """A volume has one rounding and not one per trade: it is what `math.fsum` of the sizes gives."""
    shuffled = data.draw(st.permutations(sizes))
    cuts = data.draw(st.lists(st.integers(0, 80), max_size=10))
    start = EDGES[2]
    for order in (sizes, shuffled):
        trades = [Trade(start + i, start + i, 3, 7.0, size, 0, i) for i, size in enumerate(order)]
        graph = run(lambda trades=trades: pushed(Graph(UNIVERSE), batch_of(trades), cuts))
        for width in WIDTHS:
            bars = graph.store.bars(3, width)
            assert bars.volume.tolist() == [math.fsum(sizes)]
            assert bars.turnover.tolist() == [math.fsum(7.0 * size for size in sizes)]


# ---- replays


def hard_day(seed: int) -> pd.DataFrame:
    """A day with everything in it, as rows that a log can hold; what is sent again is known later."""
    rng, rows = np.random.default_rng(seed), 900
    edges = np.array(EDGES[2:4])
    time = edges[rng.integers(0, len(edges), rows)] + rng.integers(-3000, 3000, rows) * 50_000
    delay = np.where(rng.random(rows) < 0.2, rng.integers(0, 200, rows) * SECOND, rng.integers(0, 5, rows))
    sent = np.argsort(time + delay, kind="stable")
    time, delay = time[sent], delay[sent]
    masks = np.array([*PRICED * 3, *UNPRICED])
    price = 100.0 + rng.integers(-8, 9, rows) / 8
    price[rng.random(rows) < 0.02] *= 3
    price[400:404] *= 2  # held, and set free
    day = pd.DataFrame(
        {
            "time": time, "known_at": time + delay, "instrument_id": rng.integers(0, 4, rows).astype(np.int32),
            "price": price, "size": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 500, rows) / 8),
            "conditions": masks[rng.integers(0, len(masks), rows)].astype(np.uint32), "seq": np.arange(rows),
        }
    )  # fmt: skip
    day.loc[400:403, ["instrument_id", "conditions"]] = 1, 0
    again = day.iloc[300:500].assign(known_at=day["known_at"].max() - 40 * SECOND)
    return pd.concat([day, again], ignore_index=True).assign(
        **{
            name: lambda table, name=name: pd.to_datetime(table[name], unit="us", utc=True)
            for name in ("time", "known_at")
        }
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> SessionLog:
    return write_log(tmp_path_factory.mktemp("logs") / "hard", UNIVERSE, {"ticks": hard_day(1)})


def opened(log: SessionLog, wall: ManualWall, *, rows: int = 8192, pace: float = 60.0) -> Market:
    market = Market(ReplaySource(log, start=log.timeline.start, pace=pace, rows=rows, wall=wall)).start()
    return market.derive("SMA(3)", "1min").derive("RSI(3)", "15min")


async def sought(log: SessionLog, moment: int) -> dict[str, pd.DataFrame]:
    with opened(log, ManualWall()) as market:
        market.clock.pause()
        market.clock.seek(moment)
        return snapshot(market)


async def test_the_hard_day_has_what_is_hard(log: SessionLog):
    shown = await sought(log, log.timeline.end)
    reasons = shown["rejected"]["reason"].value_counts()
    assert reasons["duplicate"] > 100
    assert reasons["far from the last prices"] > 3
    freed = shown["ticks"].query("price > 180 and symbol == 'NASDAQ'")
    assert len(freed) >= 4, "prices that were held were set free"
    assert shown["bars 1s"]["revision"].sum() > 30
    assert len(shown["readings"]) > 20


@SLOW
@given(
    places=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    rows=st.sampled_from([1, 7, 8192]),
    seeks=st.lists(st.floats(0, 1), max_size=2),
)
def test_seeks_pauses_and_batches_show_what_was_played(
    log: SessionLog, places: list[float], rows: int, seeks: list[float]
):
    async def play() -> None:
        wall = ManualWall()
        with opened(log, wall, rows=rows) as market:
            clock = market.clock
            for place in sorted(places):
                target = clock.timeline.at(int(place * clock.timeline.length))
                ahead = clock.timeline.active(target) - clock.timeline.active(clock.now_us())
                wall.advance(max(ahead, 0) / 1e6 / clock.pace)
                await caught_up(market)
                clock.pause()
                wall.advance(100)
                await caught_up(market)
                expected = await sought(log, clock.now_us())
                assert_same(expected, snapshot(market), f"played to {place}")
                for seek in seeks:
                    clock.seek(clock.timeline.at(int(seek * clock.timeline.length)))
                clock.seek(clock.timeline.at(int(place * clock.timeline.length)))
                assert_same(await sought(log, clock.now_us()), snapshot(market), f"{place} after {seeks}")
                clock.play()

    asyncio.run(play())


async def test_a_recording_of_the_hard_day_replays_to_the_same_frames(log: SessionLog, tmp_path: Path):
    wall = ManualWall()
    with Market(ReplaySource(log, start=log.timeline.start, pace=60, rows=37, wall=wall)) as market:
        recording = market.record(tmp_path)
        market.start().derive("SMA(3)", "1min").derive("RSI(3)", "15min")
        for _ in range(3):
            wall.advance(log.timeline.length / 60e6 / 3)
            await caught_up(market)
        market.clock.pace = math.inf
        wall.advance(1)
        await caught_up(market)
        expected, path = snapshot(market), recording.stop()
    again = open_session(path)
    assert again.topics["ticks"].num_rows == log.topics["ticks"].num_rows
    assert_same(expected, await sought(again, again.timeline.end))


# ---- steps that fail


def steps_of(graph: Graph) -> dict[str, Any]:
    nodes, found = [*graph.roots.values()], {}
    for node in nodes:
        nodes += node.downstreams
        if hasattr(node, "call"):
            found[node.stage] = node
    return found


QUOTED = conform(
    "quotes",
    {
        "time": pd.to_datetime(EDGES[2] + np.arange(60) * SECOND, unit="us", utc=True),
        "known_at": pd.to_datetime(EDGES[2] + np.arange(60) * SECOND, unit="us", utc=True),
        "instrument_id": np.arange(60, dtype=np.int32) % 4,
        "bid": 100.0 + np.arange(60) / 64,
        "ask": 101.0 + np.arange(60) / 64,
    },
)
BESIDE = {
    "clean ticks": ("quotes",),
    "bars of ticks": ("quotes", "rejected"),
    "frame of ticks": ("quotes", "rejected", "bars"),
    "clean quotes": ("ticks", "rejected", "bars"),
    "best of quotes": ("ticks", "rejected", "bars"),
    "last of quotes": ("ticks", "rejected", "bars"),
    "frame of quotes": ("ticks", "rejected", "bars"),
}


@pytest.mark.parametrize("stage", BESIDE)
@settings(max_examples=8, deadline=None)
@given(
    rows=ROWS,
    fails=st.lists(st.booleans(), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 60), max_size=8, unique=True),
)
def test_a_step_that_fails_changes_nothing_beside_it_and_loses_only_its_batches(
    stage: str, rows: list[Any], fails: list[bool], cuts: list[int]
):
    batch = batch_of(trades_of(rows))
    edges = sorted({0, 60, *cuts})

    def shown(failing: bool) -> dict[str, Any]:
        graph = Graph(UNIVERSE)
        node, calls = steps_of(graph)[stage], []
        real = node.call

        def call(part: pa.RecordBatch) -> pa.RecordBatch | None:
            calls.append(part.num_rows)
            if failing and fails[(len(calls) - 1) % len(fails)]:
                raise RuntimeError("no")
            return real(part)

        node.call = call
        for begin, end in pairwise(edges):
            graph.push("quotes", QUOTED.slice(begin, end - begin))
            if begin < batch.num_rows:
                graph.push("ticks", batch.slice(begin, end - begin))
        failed = sum(fails[i % len(fails)] for i in range(len(calls))) if failing else 0
        assert graph.health.stage(stage).errors == failed
        assert [item.name for item in graph.health.stages.values() if item.errors] == [stage] * (failed > 0)
        assert len(graph.health.failing) == int(
            failing and bool(calls) and fails[(len(calls) - 1) % len(fails)]
        )
        return {
            "ticks": repr(graph.frames["ticks"].table().to_pydict()),
            "quotes": repr(graph.frames["quotes"].table().to_pydict()),
            "rejected": repr(graph.cleaners["ticks"].rejected),
            "bars": bars_of(graph),
        }

    good, beside = run(lambda: shown(False)), run(lambda: shown(True))
    for name in BESIDE[stage]:
        assert good[name] == beside[name], name


# ---- compiled code


def test_compiled_code_is_made_anew_when_any_file_changes_from_which_it_may_be_made(tmp_path: Path):
    """Else the kernels of one file would go on calling what another file had before."""
    home = Path(kernels.__file__).parents[1]
    copy = tmp_path / "marketdash"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("__pycache__", "*.js", "*.css"))
    assert kernels.sources_hash(copy) == kernels.sources_hash(home)
    for name in ("pipeline/nbbo_kernels.py", "frames/bars.py", "conditions.py"):
        before = kernels.sources_hash(copy)
        (copy / name).write_text((copy / name).read_text("utf-8") + "#", "utf-8")
        assert kernels.sources_hash(copy) != before
    stamps = {
        made._cache._cache_file._source_stamp
        for module in (kernels, nbbo_kernels)
        for made in vars(module).values()
        if hasattr(made, "_cache")
    }
    assert len(stamps) == 1
