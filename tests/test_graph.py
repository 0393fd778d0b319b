"""The graph: streams of bars and ticks, branches that fail, and nothing that stays behind."""

import asyncio
import gc
import warnings
import weakref
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from marketdash.clock import to_us
from marketdash.frames import BarStore
from marketdash.indicators import parse
from marketdash.instruments import Universe
from marketdash.pipeline import Graph
from marketdash.pipeline.nodes import guard
from marketdash.schema import conform
from marketdash.testing.golden import few_instruments, random_bars, random_ticks

ALWAYS = few_instruments(2, ("24/7",))
START = pd.Timestamp("2018-11-24 10:00", tz="UTC")
US = START.value // 1000


def ticks(
    *rows: tuple[float, float], known: list[float] | None = None, instrument: int = 0
) -> pa.RecordBatch:
    """Trades as (seconds after ten, price)."""
    seconds = [row[0] for row in rows]
    return conform(
        "ticks",
        {
            "time": [START + pd.Timedelta(seconds=second) for second in seconds],
            "known_at": [START + pd.Timedelta(seconds=second) for second in known or seconds],
            "instrument_id": [instrument] * len(rows),
            "price": [row[1] for row in rows],
            "size": [1.0] * len(rows),
        },
    )


def minute_bars(minutes: list[float], known: list[float] | None = None) -> pa.RecordBatch:
    """Bars of a minute by their number, each known when it ended or `known` minutes after ten."""
    times = [START + pd.Timedelta(minutes=minute) for minute in minutes]
    ends = [START + pd.Timedelta(minutes=minute) for minute in (known or [minute + 1 for minute in minutes])]
    price = [100.0 + minute for minute in minutes]
    columns = {"open": price, "high": price, "low": price, "close": price, "volume": [1.0] * len(price)}
    return conform(
        "bars",
        {
            "time": times,
            "known_at": ends,
            "instrument_id": [0] * len(price),
            "width": ["1min"] * len(price),
            **columns,
        },
    )


class Heard(list):
    """What came out of a stream of bars: (minute or second, close, count) by row."""

    def __call__(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            self.append(((pd.Timestamp(row["time"]) - START).total_seconds(), row["close"]))


def shown(batches: list[pa.RecordBatch], name: str = "close") -> list[object]:
    return [value for batch in batches for value in batch.column(name).to_pylist()]


async def test_changed_bars_come_whenever_they_change_and_only_then():
    graph, heard = Graph(ALWAYS), Heard()
    graph.listen("bars", width="1min").sink(heard)
    graph.push("ticks", ticks((0, 1.0), (10, 2.0)))
    graph.push("ticks", ticks((70, 3.0)))
    assert heard == [(0.0, 2.0), (60.0, 3.0)]
    heard.clear()
    graph.push("ticks", ticks((5, 9.0), known=[80]))  # late: an older bar changes, the newest does not
    assert heard == [(0.0, 2.0)]
    heard.clear()
    graph.push("ticks", ticks((-100, 0.5), known=[81]))  # later still: a bar that was not there
    assert heard == [(-120.0, 0.5)]
    heard.clear()
    graph.push(
        "quotes", conform("quotes", {"time": [START], "instrument_id": [0], "bid": [1.0], "ask": [2.0]})
    )
    graph.push("ticks", ticks((75, 4.0), instrument=1))
    assert heard == [(60.0, 4.0)], "only the other instrument has changed"


async def test_a_bar_that_a_trade_leaves_alone_is_not_sent():
    graph, heard = Graph(few_instruments(1, ("XNYS",))), Heard()
    graph.listen("bars", width="1d").sink(heard)
    moments = pd.to_datetime(["2018-11-21 15:00", "2018-11-21 22:00"], utc=True)
    for moment in moments:  # the second one comes after hours
        graph.push("ticks", conform("ticks", {"time": [moment], "instrument_id": [0], "price": [1.0]}))
    assert len(heard) == 1


async def test_a_complete_bar_comes_once_when_it_has_ended_and_again_when_it_is_revised():
    graph, heard = Graph(ALWAYS), Heard()
    graph.listen("bars", width="1min", complete=True).sink(heard)
    graph.push("ticks", ticks((0, 1.0), (30, 2.0)))
    graph.advance(US + 59_999_999)
    assert heard == []
    graph.advance(US + 60_000_000)
    assert heard == [(0.0, 2.0)]
    graph.push("ticks", ticks((40, 7.0), known=[61]))
    graph.push("ticks", ticks((130, 3.0), (250, 4.0)))
    graph.advance(US + 10**9)
    graph.advance(US + 10**9)
    assert heard == [(0.0, 2.0), (0.0, 7.0), (120.0, 3.0), (240.0, 4.0)]


async def test_a_bar_is_complete_when_the_lateness_has_passed_and_late_trades_until_then_revise_nothing():
    graph, heard = Graph(ALWAYS, lateness_us=5_000_000), Heard()
    graph.listen("bars", width="1min", complete=True).sink(heard)
    graph.push("ticks", ticks((0, 1.0), (30, 2.0), (62, 3.0)))
    graph.advance(US + 64_999_999)
    assert heard == []
    graph.push("ticks", ticks((40, 7.0), known=[64]))
    graph.advance(US + 65_000_000)
    assert heard == [(0.0, 7.0)]
    assert graph.store.bars(0, "1min").revision.tolist() == [0, 0]
    graph.push("ticks", ticks((50, 8.0), known=[66]))
    graph.advance(US + 10**9)
    assert heard == [(0.0, 7.0), (0.0, 8.0), (60.0, 3.0)]
    assert graph.store.bars(0, "1min").revision.tolist() == [1, 0]


async def test_a_trade_beyond_the_horizon_changes_nothing_and_is_counted():
    graph, heard = Graph(ALWAYS, horizon_us=100_000_000), Heard()
    graph.listen("bars", width="1min", complete=True).sink(heard)
    graph.push("ticks", ticks((0, 1.0), (70, 2.0), known=[0, 70]))
    graph.push("ticks", ticks((10, 7.0), known=[110]))
    graph.push("ticks", ticks((20, 9.0), known=[121]))
    graph.advance(US + 10**9)
    assert heard == [(0.0, 1.0), (0.0, 7.0), (60.0, 2.0)]
    assert graph.store.bars(0, "1min").high.tolist() == [7.0, 2.0]
    counted = graph.health.summary()["bars of ticks"]
    assert (counted["revised"], counted["late"]) == (1, 1)


async def test_a_bar_that_comes_to_be_late_is_complete_once_too():
    graph, heard = Graph(ALWAYS), Heard()
    graph.listen("bars", width="1min", complete=True).sink(heard)
    graph.push("ticks", ticks((0, 1.0), (130, 2.0)))
    graph.push("ticks", ticks((70, 9.0), (75, 8.0), known=[140, 141]))
    graph.advance(US + 10**9)
    assert heard == [(0.0, 1.0), (60.0, 8.0), (120.0, 2.0)]


@pytest.mark.parametrize("width", ["1min", "5min"])
async def test_complete_bars_do_not_depend_on_how_rows_were_cut(width: str):
    universe = few_instruments(4, ("XNYS", "XLON"))
    bars = random_bars(universe, "1min", "2018-11-23 16:00", "2018-11-23 18:30", seed=1)
    trades = random_ticks(universe, "2018-11-23 16:00", "2018-11-23 18:30", 1500, seed=2)
    for topic, rows in (("bars", bars), ("ticks", trades)):
        batch, results = conform(topic, rows), []
        for size in (1, 13, 10_000):
            graph, heard = Graph(universe, finest="1min"), []
            graph.listen("bars", width=width, complete=True).sink(heard.append)
            for i in range(0, batch.num_rows, size):
                graph.push(topic, batch.slice(i, size))
            graph.advance(to_us("2018-11-24"))
            results.append(
                pd.concat([item.to_pandas() for item in heard], ignore_index=True).astype(
                    {"source": "str", "width": "str"}
                )
            )
        for other in results[1:]:
            pd.testing.assert_frame_equal(results[0], other, check_exact=True)
        assert not results[0].duplicated(["instrument_id", "time", "revision"]).any()
        latest = results[0].drop_duplicates(["instrument_id", "time"], keep="last")
        kept = pd.concat(
            [
                pd.DataFrame({"instrument_id": i, **graph.store.bars(i, width)._asdict()})
                for i in range(len(universe))
            ]
        )
        assert len(latest) == len(kept), "each bar came"
        latest = latest.sort_values(["instrument_id", "time"])
        assert latest["close"].tolist() == kept["close"].tolist(), "and its last revision"
        assert latest["revision"].tolist() == kept["revision"].tolist()


async def test_after_a_reset_everything_comes_again():
    graph, changed, complete = Graph(ALWAYS), Heard(), Heard()
    graph.listen("bars", width="1min").sink(changed)
    graph.listen("bars", width="1min", complete=True, now_us=US + 10**9).sink(complete)
    for _ in range(2):
        graph.push("ticks", ticks((0, 1.0), (70, 2.0)))
        graph.advance(US + 120_000_000)
        graph.reset()
    assert changed == [(0.0, 1.0), (60.0, 2.0)] * 2
    assert complete == [(0.0, 1.0), (60.0, 2.0)], "at first only what ends later was asked for"


async def test_who_listens_later_hears_what_comes_later():
    graph, changed, complete = Graph(ALWAYS), Heard(), Heard()
    graph.push("ticks", ticks((0, 1.0), (70, 2.0)))
    graph.listen("bars", width="1min").sink(changed)
    graph.listen("bars", width="1min", complete=True, now_us=US + 80_000_000).sink(complete)
    graph.push("ticks", ticks((80, 3.0)))
    graph.push(
        "bars", minute_bars([-10, -9, -8], known=[2, 2, 2])
    )  # history that comes after the stream began
    graph.advance(US + 10**9)
    assert changed[0] == (60.0, 3.0)
    assert complete == [(60.0, 3.0)]


async def test_ready_made_bars_that_come_late_are_read_when_they_come():
    for cut in (1, 100):
        graph, heard = Graph(ALWAYS, finest="1min"), Heard()
        graph.add_indicator(parse("SMA(2)"), "1min", US)
        graph.listen("bars", width="1min", complete=True, now_us=US).sink(heard)
        batch = minute_bars([0, 1, 2, 3], known=[1.5, 2.5, 3.5, 4.5])
        for i in range(0, 4, cut):
            graph.push("bars", batch.slice(i, cut))
        assert heard == [(0.0, 100.0), (60.0, 101.0), (120.0, 102.0)], "the last may have others beside it"
        graph.advance(US + int(4.5 * 60e6))
        assert heard[-1] == (180.0, 103.0)
        readings = graph.frames["readings"].table()
        assert readings["value"].to_pylist() == [100.5, 101.5, 102.5]
        known = readings["known_at"].cast(pa.int64()).to_numpy()
        assert ((known - US) / 60e6).tolist() == [2.5, 3.5, 4.5]


async def test_all_bars_that_end_at_once_are_read():
    graph = Graph(ALWAYS, finest="1min")
    graph.add_indicator(parse("SMA(2)"), "1min", US)
    graph.push("bars", minute_bars([0, 1, 2, 3, 4], known=[5] * 5))
    graph.advance(US + 10**9)
    assert graph.frames["readings"].table()["value"].to_pylist() == [100.5, 101.5, 102.5, 103.5]


async def test_an_indicator_that_fails_costs_only_itself_and_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    graph = Graph(ALWAYS)
    good, bad = parse("SMA(2)"), parse("EMA(2)")
    graph.add_indicator(bad, "1min", US)
    graph.add_indicator(good, "1min", US)
    real = type(bad.indicator).compute
    broken = True

    def compute(self, bars, params=None):
        if self.name == "EMA" and broken:
            raise ValueError("not now")
        return real(self, bars, params)

    monkeypatch.setattr(type(bad.indicator), "compute", compute)
    graph.push("ticks", ticks((0, 1.0), (60, 2.0), (120, 3.0), (180, 4.0)))
    assert [stage.name for stage in graph.health.failing] == ["derive EMA(2) 1min"]
    broken = False
    graph.push("ticks", ticks((240, 5.0)))
    assert graph.health.failing == []
    found = graph.frames["readings"].table().to_pandas()
    assert found.groupby("indicator", observed=True)["value"].apply(list).to_dict() == {
        "SMA(2)": [1.5, 2.5],
        "EMA(2)": [2.5],
    }


# ---- branches


async def test_a_branch_that_raises_costs_only_itself_and_is_tried_again():
    graph, good, tried = Graph(ALWAYS), [], []

    def bad(batch: object) -> None:
        tried.append(batch)
        raise RuntimeError("no")

    stream = graph.listen("ticks")
    stream.map(bad).sink(print)
    stream.sink(good.append)
    for second in (0, 1):
        graph.push("ticks", ticks((second, 1.0)))
    assert (len(tried), len(good)) == (2, 2)
    assert graph.health.stage("listeners of ticks: bad").errors == 2
    assert [stage.name for stage in graph.health.failing] == ["listeners of ticks: bad"]
    assert graph.health.stage("listeners of ticks: append").errors == 0
    assert len(graph.frames["ticks"]) == 2
    assert graph.store.bars(0, "1d").count.tolist() == [2]


async def test_an_async_branch_that_raises_costs_only_itself_and_is_tried_again():
    graph, tried = Graph(ALWAYS), []

    async def bad(batch: object) -> None:
        tried.append(batch)
        await asyncio.sleep(0)
        if len(tried) < 3:
            raise RuntimeError("no")

    graph.listen("ticks").sink(bad)
    for second in range(3):
        await asyncio.wait(graph.push("ticks", ticks((second, 1.0))))
    assert len(tried) == 3
    stage = graph.health.stage("listeners of ticks: bad")
    assert (stage.errors, stage.consecutive_errors, stage.last_error) == (2, 0, "RuntimeError: no")


async def test_what_a_branch_awaits_is_done_in_order_and_not_at_once():
    graph, done = Graph(ALWAYS), []

    async def slow(batch: pa.RecordBatch) -> None:
        await asyncio.sleep(0.02 / (1 + len(done)))
        done.extend(batch.column("price").to_pylist())

    graph.listen("ticks").sink(slow)
    pending = [
        item for second in range(4) for item in graph.push("ticks", ticks((second, float(second + 1))))
    ]
    assert done == []
    await asyncio.wait(set(pending))
    assert done == [1.0, 2.0, 3.0, 4.0]


async def test_a_branch_that_never_ends_is_told_on_health_and_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(guard, "BACKLOG", 5)
    graph = Graph(ALWAYS)
    graph.listen("ticks").sink(lambda batch: asyncio.sleep(3600))
    for second in range(20):
        graph.push("ticks", ticks((second, 1.0)))
        await asyncio.sleep(0)
    stage = graph.health.stage("listeners of ticks: <lambda>")
    assert "5 rows that wait" in stage.last_error
    totals, reasons = stage.counts()
    assert (totals["queue"], totals["dropped"]) == (5, 14), "one is awaited"
    assert list(reasons.values()) == [14]
    assert len(graph.frames["ticks"]) == 20
    graph.close()
    await asyncio.sleep(0)


async def test_a_branch_whose_own_task_is_cancelled_goes_on():
    graph, done = Graph(ALWAYS), []

    async def cancelled_once(batch: object) -> None:
        done.append(batch)
        if len(done) == 1:
            raise asyncio.CancelledError

    graph.listen("ticks").sink(cancelled_once)
    for second in range(3):
        await asyncio.wait(graph.push("ticks", ticks((second, 1.0))))
    assert len(done) == 3
    assert graph.health.stage("listeners of ticks: cancelled_once").errors == 1


async def test_a_step_that_raises_loses_one_batch_and_says_so(monkeypatch: pytest.MonkeyPatch):
    graph = Graph(ALWAYS)
    step = graph.outputs["ticks"].upstream.upstream  # bars of ticks
    real, broken = step.call, True

    class Failing:
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            if broken:
                raise MemoryError("full")
            return real(batch)

    step.call = Failing()
    graph.push("ticks", ticks((0, 1.0)))
    assert graph.health.failing[0].last_error == "MemoryError: full"
    broken = False
    graph.push("ticks", ticks((1, 2.0)))
    assert graph.health.failing == []
    assert graph.store.bars(0, "1d").count.tolist() == [1]


async def test_nothing_is_sent_to_a_stream_that_nobody_holds():
    graph = Graph(ALWAYS)
    stream = graph.listen("bars", width="1min")
    graph.listen("bars", width="1min", complete=True)  # dropped at once
    gc.collect()
    graph.push("ticks", ticks((0, 1.0), (90, 2.0)))
    graph.advance(US + 10**9)
    assert len(graph._changed) == 1
    assert graph._ended == []
    del stream
    gc.collect()
    graph.push("ticks", ticks((100, 1.0)))
    assert graph._changed == []


async def test_a_closed_graph_leaves_nothing_behind():
    graph = Graph(ALWAYS)
    graph.listen("ticks").sink(print)
    graph.listen("bars", width="1min").map(lambda batch: batch).sink(lambda batch: None)
    graph.listen("ticks").sink(lambda batch: asyncio.sleep(3600))
    graph.push("ticks", ticks((0, 1.0)))
    kept = weakref.ref(graph.store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that was never awaited
        graph.close()
        graph.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        graph = None
        gc.collect()
    assert kept() is None, "streamz keeps every sink for ever, and with it all bars of a closed replay"


# ---- batches


@pytest.mark.parametrize("topic", ["ticks", "quotes", "bars", "readings", "health"])
async def test_an_empty_batch_changes_nothing(topic: str):
    from marketdash.schema import TOPICS

    graph = Graph(ALWAYS)
    graph.add_indicator(parse("SMA(2)"), "1min", US)
    heard: list[object] = []
    graph.listen("ticks").sink(heard.append)
    assert graph.push(topic, conform(topic, TOPICS[topic].schema.empty_table())) == []
    assert heard == []
    assert graph.health.failing == []


async def test_a_batch_of_impossible_rows_goes_nowhere():
    graph, heard = Graph(ALWAYS), []
    graph.add_indicator(parse("SMA(2)"), "1min", US)
    graph.listen("ticks").sink(heard.append)
    rows = 3000
    wild = {
        "time": pd.DatetimeIndex(np.full(rows, 2**55).astype("M8[us]"), tz="UTC"),
        "instrument_id": np.arange(rows),
        "price": np.full(rows, np.nan),
    }
    graph.push("ticks", conform("ticks", wild))
    assert heard == []
    assert sum(graph.cleaners["ticks"].rejected.values()) == rows
    graph.push("ticks", ticks((0, 1.0), (60, 3.0), (120, 5.0), (180, 7.0)))
    assert graph.frames["readings"].table()["value"].to_pylist() == [2.0], (
        "a wild time must not stop the readings"
    )


async def test_a_batch_of_a_million_rows_gives_the_same_bars():
    rows, universe = 1_000_000, Universe.of([f"S{i}" for i in range(50)], calendar="XNYS")
    trades = conform("ticks", random_ticks(universe, "2018-11-23 14:00", "2018-11-23 19:00", rows))
    whole, parts = Graph(universe), Graph(universe)
    whole.push("ticks", trades)
    for i in range(0, rows, 50_000):
        parts.push("ticks", trades.slice(i, 50_000))
    for width in ("1s", "1min", "1d"):
        for name, values in whole.store.rows(width, np.arange(50)).items():
            np.testing.assert_array_equal(values, parts.store.rows(width, np.arange(50))[name])
    np.testing.assert_array_equal(whole.last.floats, parts.last.floats)
    assert whole.frames["ticks"].table().num_rows == 50_000


async def test_bars_of_several_widths_may_come_in_one_batch_in_their_own_order():
    day = random_bars(
        few_instruments(1, ("24/7",)), "1min", "2018-11-24 10:00", "2018-11-24 11:00", missing=0
    )
    fives = random_bars(
        few_instruments(1, ("24/7",)), "5min", "2018-11-24 10:00", "2018-11-24 11:00", seed=1, missing=0
    )
    rows = conform("bars", pd.concat([day, fives]).sort_values("known_at", kind="stable"))
    stores: list[BarStore] = []
    for size in (1, 1000):
        graph = Graph(few_instruments(1, ("24/7",)), finest="1min")
        for i in range(0, rows.num_rows, size):
            graph.push("bars", rows.slice(i, size))
        stores.append(graph.store)
    for width in ("1min", "5min", "15min", "1h", "1d"):
        one, many = (store.bars(0, width) for store in stores)
        for name in one._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


@pytest.mark.parametrize(
    ("topic", "make"), [("ticks", lambda: ticks((0, 1.0))), ("bars", lambda: minute_bars([0]))]
)
async def test_what_was_not_asked_for_is_not_computed(
    topic: str, make: Callable[[], pa.RecordBatch], monkeypatch: pytest.MonkeyPatch
):
    graph = Graph(ALWAYS, finest="1min")
    monkeypatch.setattr(graph.derive, "advance", lambda us: pytest.fail("nobody asked"))
    graph.push(topic, make())
    assert graph.advance(US + 10**9) == []
