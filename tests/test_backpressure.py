"""Back-pressure: what is pushed waits in bounds, is conflated or dropped with a reason, and costs nobody else."""

import asyncio
import itertools
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import until

from marketdash.clock import to_us
from marketdash.inbox import LOOSE, Inbox, Lane, joined, latest
from marketdash.market import Market
from marketdash.pipeline import Graph
from marketdash.pipeline.nodes import guard
from marketdash.schema import TOPICS, conform
from marketdash.sources.base import StreamedSource
from marketdash.testing.clock import ManualClock
from marketdash.testing.golden import few_instruments, random_quotes, random_ticks

ALWAYS = few_instruments(3, ("24/7",))
NOON = pd.Timestamp("2018-11-23 17:00", tz="UTC")
TRADES = conform("ticks", random_ticks(ALWAYS, "2018-11-23 17:00", "2018-11-23 18:00", 4000))
QUOTES = conform("quotes", random_quotes(ALWAYS, "2018-11-23 17:00", "2018-11-23 18:00", 400))
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def trades(*numbers: int) -> dict[str, list[Any]]:
    """Trades as a source decodes them, each with its number as the size."""
    moments = [(NOON + pd.Timedelta(milliseconds=number)).to_pydatetime() for number in numbers]
    return {
        "time": moments,
        "instrument_id": [number % 3 for number in numbers],
        "price": [100.0] * len(numbers),
        "size": [float(number) for number in numbers],
    }


def quotes(*rows: tuple[int, float]) -> pa.RecordBatch:
    """Quotes as (instrument, bid)."""
    ids, bids = [row[0] for row in rows], [row[1] for row in rows]
    columns = {"instrument_id": ids, "bid": bids, "ask": [bid + 1 for bid in bids]}
    return conform("quotes", {"time": [NOON] * len(rows), **columns})


def numbers(batches: Iterable[pa.RecordBatch]) -> list[int]:
    return [int(size) for batch in batches for size in batch.column("size").to_pylist()]


async def drained(inbox: Inbox) -> list[tuple[str, pa.RecordBatch]]:
    """All that waits, as the market would read it."""
    over = asyncio.get_running_loop().create_future()
    over.set_result(None)
    return [event async for event in inbox.events(until=over)]


# ---- what waits


@FAST
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["rows", "batch"]), st.integers(0, 12)),
            st.tuples(st.just("take"), st.integers(1, 10)),
            st.tuples(st.just("nonsense"), st.integers(1, 3)),
        ),
        max_size=60,
    ),
    limit=st.integers(1, 30),
)
def test_every_trade_is_taken_in_order_or_waits_or_was_dropped_as_a_whole_batch_with_a_reason(
    actions: list[tuple[str, int]], limit: int
):
    lane, count, put, refused, found = Lane("ticks", limit), itertools.count(), 0, [], []
    largest = limit
    for what, size in actions:
        if what == "take":
            if (taken := lane.take(size)) is not None:
                assert taken[1].num_rows <= size
                found.append(taken[1])
            continue
        put += size
        largest = max(largest, size)  # a lane that is empty takes a batch of any size
        if what == "nonsense":
            lane.put({"time": ["soon"] * size, "instrument_id": [0] * size, "price": [1.0] * size}, 1.0)
            continue
        given = [next(count) for _ in range(size)]
        rows = trades(*given)
        if not lane.put(conform("ticks", rows) if what == "batch" else rows, 1.0):
            refused += given
        assert lane.rows <= largest
    while (taken := lane.take(7)) is not None:
        found.append(taken[1])
    offered = next(count)
    assert numbers(found) == [number for number in range(offered) if number not in set(refused)]
    assert lane.rows == 0
    assert len(numbers(found)) + sum(lane.dropped.values()) == put
    reasons = {reason for reason, rows in lane.dropped.items() if rows}
    assert all("rows would wait" in reason or "did not fit" in reason for reason in reasons)


@FAST
@given(
    parts=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=40),
    limit=st.integers(12, 40),
)
def test_the_last_quote_of_every_instrument_is_never_lost_and_the_others_are_counted(
    parts: list[list[int]], limit: int
):
    lane, bid, newest = Lane("quotes", limit, ("instrument_id",)), itertools.count(1), {}
    for ids in parts:
        rows = [(i, float(next(bid))) for i in ids]
        newest.update(rows)
        assert lane.put(quotes(*rows), 1.0)
        assert lane.rows <= limit
    found: list[pa.RecordBatch] = []
    while (taken := lane.take(5)) is not None:
        found.append(taken[1])
    kept = [
        row
        for batch in found
        for row in zip(*(batch[name].to_pylist() for name in ("instrument_id", "bid")), strict=True)
    ]
    assert {i: max(bids for j, bids in kept if j == i) for i, _ in kept} == newest
    assert [bids for _, bids in kept] == sorted(bids for _, bids in kept), "in the order in which they came"
    put = sum(map(len, parts))
    assert (len(kept) + lane.conflated, lane.dropped) == (put, Counter())
    assert lane.conflated > 0 or put <= limit


def test_quotes_of_more_instruments_than_there_is_room_for_lose_the_oldest():
    lane = Lane("quotes", 10, ("instrument_id",))
    for i in range(1000):
        lane.put(quotes((i, 1.0)), 1.0)
        assert lane.rows <= 10
    assert lane.rows + lane.conflated + sum(lane.dropped.values()) == 1000
    taken = lane.take()
    assert taken is not None
    assert taken[1]["instrument_id"].to_pylist()[-1] == 999
    assert "more than 5 keys" in next(iter(lane.dropped))


def test_a_batch_larger_than_all_the_room_is_taken_when_nothing_else_waits():
    lane = Lane("ticks", 5)
    assert lane.put(trades(*range(20)), 1.0)
    assert not lane.put(trades(20), 1.0)
    assert lane.take(100)[1].num_rows == 20
    assert lane.put(trades(20), 1.0)


def test_single_rows_that_wait_are_joined_so_that_they_take_little_room():
    lane = Lane("ticks", 100_000)
    for number in range(LOOSE * 4):
        lane.put(conform("ticks", trades(number)), float(number))
        assert len(lane._loose) < LOOSE
    assert len(lane._chunks) == 4
    assert lane.arrived == 0.0
    assert lane.take(LOOSE + 1)[0] == 0.0
    assert lane.arrived == LOOSE, "what is left came later"


def test_the_last_of_each_key_is_found_by_several_columns():
    rows = pa.record_batch(
        {"time": [1, 1, 2, 1], "instrument_id": [0, 1, 0, 0], "close": [1.0, 2.0, 3.0, 4.0]}
    )
    assert latest(rows, ["time", "instrument_id"])["close"].to_pylist() == [2.0, 3.0, 4.0]
    assert latest(rows.slice(0, 0), ["time"]).num_rows == 0


# ---- the inbox


@FAST
@given(
    offers=st.lists(
        st.tuples(st.sampled_from(["ticks", "quotes", "bars?", "read"]), st.integers(1, 8)), max_size=50
    )
)
def test_an_inbox_accounts_for_every_row(offers: list[tuple[str, int]]):
    async def run() -> None:
        inbox, found, count = Inbox(rows=20, quotes=12, window_s=0.0), Counter[str](), itertools.count()
        for what, size in offers:
            if what == "read":
                found.update({topic: batch.num_rows for topic, batch in await drained(inbox)})
            elif what == "ticks":
                inbox.offer("ticks", trades(*(next(count) for _ in range(size))))
            elif what == "quotes":
                inbox.offer("quotes", quotes(*((i % 4, 1.0) for i in range(size))))
            else:
                assert not inbox.offer("bars", {"nonsense": np.zeros(size)})
        counts = inbox.counts()
        assert inbox.offered == sum(size for what, size in offers if what != "read")
        assert inbox.taken == sum(found.values())
        assert inbox.offered == inbox.taken + counts["queue"] + counts["conflated"] + inbox.dropped
        assert inbox.dropped == sum(counts["dropped"].values())

    asyncio.run(run())


async def test_the_first_event_after_silence_does_not_wait_and_those_behind_it_come_together():
    inbox = Inbox(window_s=0.2)
    events = inbox.events()
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    inbox.offer("ticks", trades(0))
    topic, batch = await asyncio.wait_for(reading, 0.15)
    begin = time.perf_counter()
    assert (topic, batch.num_rows) == ("ticks", 1)
    for number in range(1, 50):
        inbox.offer("ticks", trades(number))
    topic, batch = await asyncio.wait_for(anext(events), 5)
    assert numbers([batch]) == list(range(1, 50))
    assert time.perf_counter() - begin > 0.1, "they were to be gathered for a while"
    assert batch.schema.equals(TOPICS["ticks"].schema)
    await events.aclose()


@pytest.mark.parametrize(
    "rows",
    [
        None,
        7,
        {"time": ["soon"], "instrument_id": [0], "price": [1.0]},
        {"price": np.array([1.0])},
        {"time": [NOON], "instrument_id": [0], "price": [1.0, 2.0]},
        pa.record_batch({"a": [1, 2]}),
        object(),
    ],
)
@pytest.mark.parametrize("topic", ["ticks", "a topic that is none", None])
async def test_an_offer_never_raises_and_says_what_it_refused(topic: Any, rows: Any):
    inbox = Inbox()
    inbox.offer(topic, rows)
    inbox.offer("ticks", trades(1))
    assert numbers(batch for _, batch in await drained(inbox)) == [1]
    assert inbox.dropped >= 1
    assert inbox.error is not None
    assert inbox.offered == inbox.taken + inbox.dropped


async def test_one_message_that_does_not_fit_costs_no_other_beside_which_it_waits():
    inbox = Inbox()
    for number in range(6):
        rows = trades(number)
        if number == 3:
            rows["price"] = ["cheap"]
        inbox.offer("ticks", rows)
    assert numbers(batch for _, batch in await drained(inbox)) == [0, 1, 2, 4, 5]
    assert inbox.counts()["dropped"] == {"ticks: did not fit the schema": 1}


async def test_many_threads_may_offer_while_one_loop_reads():
    inbox, each, names = Inbox(rows=10**6, window_s=0.0), 2_000, range(3)

    def push(name: int) -> None:
        for number in range(each):
            rows = trades(number * 3 + name)
            inbox.offer("ticks", conform("ticks", rows) if number % 50 == 0 else rows)

    threads = [threading.Thread(target=push, args=(name,)) for name in names]
    pushed = asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
    pushed.add_done_callback(lambda _: inbox.wake())
    for thread in threads:
        thread.start()
    found = numbers([batch async for _, batch in inbox.events(until=pushed)])
    for name in names:
        assert [number for number in found if number % 3 == name] == list(range(name, each * 3, 3))
    assert inbox.offered == inbox.taken == each * 3


async def test_a_producer_that_can_wait_waits_for_room():
    inbox, done = Inbox(rows=10, window_s=0.0), []

    async def produce() -> None:
        for start in range(0, 60, 6):
            await inbox.put("ticks", trades(*range(start, start + 6)))
            done.append(start)
        over.set_result(None)
        inbox.wake()

    over = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(produce())
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == [0], "the second batch finds no room"
    found = numbers([batch async for _, batch in inbox.events(until=over)])
    await task
    assert found == list(range(60))
    assert inbox.dropped == 0


# ---- sources that push


class Threaded(StreamedSource):
    """Pushes from a thread of its own, as a vendor's library does."""

    name, slow_history = "threaded", False

    def __init__(self, count: int, inbox: Inbox | None = None, ends: bool = True) -> None:
        super().__init__(ALWAYS, clock=ManualClock(NOON + pd.Timedelta(hours=1)), inbox=inbox)
        self.count, self.ends = count, ends

    async def listen(self) -> None:
        await asyncio.to_thread(self.push)
        if not self.ends:
            await asyncio.Event().wait()

    def push(self) -> None:
        for number in range(self.count):
            self.inbox.offer("ticks", trades(number))


class Wire(StreamedSource):
    """Reads lines of a TCP server: a whole source."""

    name, slow_history = "wire", False

    def __init__(self, port: int) -> None:
        super().__init__(ALWAYS, clock=ManualClock(NOON + pd.Timedelta(hours=1)))
        self.port = port

    async def listen(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async for line in reader:
                self.received(line)
        finally:
            writer.close()

    def decode(self, frame: bytes) -> Iterable[tuple[str, Any]]:
        yield "ticks", trades(*json.loads(frame))


async def test_a_source_may_push_from_a_thread():
    source = Threaded(3_000)
    with Market(source) as market:
        heard: list[int] = []
        market.stream("ticks", arrow=True).sink(lambda batch: heard.extend(numbers([batch])))
        market.start()
        await until(lambda: market.status.state == "ended")
        assert heard == list(range(3_000))
        stage = market.health.stage("clean ticks")
        assert stage.rows == 3_000
        assert stage.batches < 1_500, "single rows were not gathered"
        assert market.health.failing == []


async def test_a_source_of_a_socket_is_a_few_lines_and_is_called_again_when_the_line_breaks():
    calls: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(len(calls))
        first = (len(calls) - 1) * 100
        for number in range(first, first + 100):
            writer.write(json.dumps([number]).encode() + b"\n")
        writer.write(b"{ this is no message }\n")
        await writer.drain()
        if len(calls) == 1:
            writer.transport.abort()
        writer.close()

    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    source = Wire(server.sockets[0].getsockname()[1])
    with Market(source, sleep=at_once) as market:
        heard: list[int] = []
        market.stream("ticks", arrow=True).sink(lambda batch: heard.extend(numbers([batch])))
        market.start()
        await until(lambda: market.status.state == "ended")
    server.close()
    await server.wait_closed()
    assert heard[-100:] == list(range((len(calls) - 1) * 100, len(calls) * 100))
    assert heard == sorted(set(heard))
    assert source.inbox.counts()["dropped"].keys() == {"could not be decoded"}


async def test_what_was_dropped_is_told_in_the_status_on_health_and_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
):
    source = Threaded(0, Inbox(rows=10), ends=False)
    with caplog.at_level(logging.WARNING), Market(source) as market:
        market.start()
        await until(lambda: market.status.state == "running")
        for start in (0, 4, 8, 12, 16):  # no turn of the loop in between: the graph cannot keep up
            source.inbox.offer("ticks", trades(*range(start, start + 4)))
        stage = market.health.stage(f"inbox of {source.name}")
        await until(lambda: bool(stage.errors))
        await until(lambda: not market.health.failing)
        for start in (0, 4, 8, 12):
            source.inbox.offer("ticks", trades(*range(start, start + 4)))
            market._tell_losses()  # which is looked at all the time
        assert stage.errors == 2
        await until(lambda: not market.health.failing)
        assert "20 of ticks: more than 10 rows would wait" in market.status.message
        assert market.status.state == "running"
        summary = market.health.summary()[stage.name]
        assert (summary["dropped"], summary["queue"]) == (20, 0)
        assert sum(summary["reasons"].values()) == 20
        told = [record.getMessage() for record in caplog.records if "inbox of" in record.getMessage()]
        assert len(told) == 2, "once when it begins, and not again until it begins anew"
        assert market.health.stage("clean ticks").rows == 16


async def test_bars_stay_open_while_trades_of_their_time_wait_at_the_door():
    source = Threaded(0)
    assert source.complete_until(10_000_000) == 10_000_000
    source.inbox.offer("ticks", trades(1))
    time.sleep(0.002)
    assert source.complete_until(10_000_000) < 9_998_001


# ---- listeners


async def test_a_listener_that_hangs_holds_nobody_up_whose_data_are_pushed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("marketdash.market.market.LISTENER_PATIENCE_S", 3600.0)
    source = Threaded(500)
    with Market(source) as market:
        market.stream("ticks", arrow=True).sink(lambda batch: asyncio.sleep(3600))
        market.start()
        await until(lambda: market.status.state == "ended")
        assert market.health.stage("clean ticks").rows == 500
        assert len(market._pending) <= 1
        stage = market.health.stage("listeners of ticks: <lambda>")
        assert stage.counts()[0]["queue"] < 500, "all of it waits but what the listener hangs on"
    await asyncio.sleep(0)


async def test_what_waits_for_a_slow_listener_is_bounded_in_rows_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(guard, "BACKLOG", 100)
    graph, heard, gate = Graph(ALWAYS), [], asyncio.Event()

    async def slow(batch: pa.RecordBatch) -> None:
        await gate.wait()
        heard.extend(batch["price"].to_pylist())

    graph.listen("ticks").sink(slow)
    stage = graph.health.stage("listeners of ticks: slow")
    for start in range(0, 1000, 30):
        graph.push("ticks", TRADES.slice(start, 30))
        assert stage.counts()[0]["queue"] <= 100
        await asyncio.sleep(0)
    assert [item.name for item in graph.health.failing] == [stage.name]
    gate.set()
    await until(lambda: not graph.health.failing and stage.counts()[0]["queue"] == 0)
    pushed = sum(TRADES.slice(start, 30).num_rows for start in range(0, 1000, 30))
    assert heard == TRADES["price"].to_pylist()[:120], "the oldest are kept, in order"
    assert len(heard) + stage.counts()[0]["dropped"] == pushed
    assert stage.errors == 1, "told once until it has caught up"
    graph.push("ticks", TRADES.slice(2000, 30))
    await until(lambda: len(heard) == 150)


async def test_a_slow_listener_to_bars_gets_the_latest_of_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "BACKLOG", 40)
    graph, heard, gate = Graph(ALWAYS), {}, asyncio.Event()

    async def slow(bars: pa.RecordBatch) -> None:
        await gate.wait()
        for row in bars.to_pylist():
            heard[row["instrument_id"], row["time"]] = (row["close"], row["volume"])

    stream = graph.listen("bars", width="5min")
    stream.sink(slow)
    plain: dict[Any, Any] = {}
    stream.sink(
        lambda bars: plain.update(
            {(row["instrument_id"], row["time"]): (row["close"], row["volume"]) for row in bars.to_pylist()}
        )
    )
    stage = graph.health.stage("listeners of bars 5min: slow")
    for start in range(0, 600, 5):
        graph.push("ticks", TRADES.slice(start, 5))
        await asyncio.sleep(0)
    totals = stage.counts()[0]
    assert totals["conflated"] > 0
    assert totals["dropped"] == 0
    gate.set()
    await until(lambda: stage.counts()[0]["queue"] == 0 and heard == plain)
    assert graph.health.failing == []


async def test_what_is_left_to_await_does_not_grow_while_nobody_waits_for_it():
    source = Threaded(0, ends=False)
    with Market(source) as market:
        for _ in range(3):
            market.stream("ticks", arrow=True).sink(lambda batch: asyncio.sleep(3600))
        for start in range(300):
            market.feed("ticks", TRADES.slice(start, 1))
        assert len(market._pending) == 3
    await asyncio.sleep(0)


# ---- nodes that fail


@FAST
@given(
    cuts=st.lists(st.integers(0, 400), max_size=12),
    fails=st.lists(st.booleans(), min_size=1, max_size=7),
    awaits=st.booleans(),
    place=st.integers(0, 2),
)
def test_a_node_that_fails_changes_nothing_beside_it(
    cuts: list[int], fails: list[bool], awaits: bool, place: int
):
    edges = [0, *sorted(set(cuts)), 400]

    async def run(failing: bool) -> tuple[Any, ...]:
        graph, verdicts = Graph(ALWAYS), itertools.cycle(fails)
        beside: list[list[pa.RecordBatch]] = [[], [], []]

        def bad(batch: pa.RecordBatch) -> pa.RecordBatch:
            if next(verdicts):
                raise RuntimeError("no")
            return batch

        async def bad_later(batch: pa.RecordBatch) -> None:
            await asyncio.sleep(0)
            bad(batch)

        async def good_later(batch: pa.RecordBatch) -> None:
            await asyncio.sleep(0)
            beside[2].append(batch)

        stream, bars = graph.listen("ticks"), graph.listen("bars", width="1min")
        sinks = [
            lambda: stream.sink(beside[0].append),
            lambda: bars.sink(beside[1].append),
            lambda: stream.sink(good_later),
        ]
        for i, attach in enumerate(sinks):
            if failing and i == place:
                for node in (stream, bars):
                    node.sink(bad_later) if awaits else node.map(bad).sink(print)
            attach()
        quotes_read = [0, *np.linspace(0, QUOTES.num_rows, len(edges), dtype=int)]
        for begin, stop, first, last in zip(edges, edges[1:], quotes_read, quotes_read[1:], strict=False):
            pending = graph.push("ticks", TRADES.slice(begin, stop - begin))
            pending += graph.push("quotes", QUOTES.slice(first, last - first))
            if pending:
                await asyncio.wait(set(pending))
        errors = sum(stage.errors for stage in graph.health.stages.values())
        assert errors > 0 if failing and fails[0] else errors == 0 or failing
        shown = graph.store.rows("1s", np.arange(3)), graph.store.rows("1d", np.arange(3))
        return (
            [joined(batches).to_pydict() for batches in beside],
            [{name: values.tolist() for name, values in rows.items()} for rows in shown],
            graph.last.floats.tobytes(), graph.last.ints.tobytes(),
            graph.frames["ticks"].table().to_pydict(), graph.frames["quotes"].table().to_pydict(),
        )  # fmt: skip

    def text(result: tuple[Any, ...]) -> str:
        return repr(result)  # NaN equals itself

    logging.getLogger("streamz.core").setLevel(logging.CRITICAL)
    try:
        assert text(asyncio.run(run(failing=True))) == text(asyncio.run(run(failing=False)))
    finally:
        logging.getLogger("streamz.core").setLevel(logging.NOTSET)


async def test_each_branch_and_each_node_has_its_own_count_and_name():
    graph = Graph(ALWAYS)
    stream = graph.listen("ticks")

    def fine(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch

    def deep(batch: pa.RecordBatch) -> None:
        raise KeyError("deep")

    async def late(batch: pa.RecordBatch) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("late")

    class Signal:
        def update(self, batch: pa.RecordBatch) -> None:
            raise ValueError("signal")

    stream.map(fine).sink(deep)
    stream.sink(late)
    stream.sink(Signal().update)
    stream.sink(deep, stream_name="mine")
    stream.sink(late)
    for start in range(4):
        await asyncio.wait(set(graph.push("ticks", TRADES.slice(start, 1))))
    errors = {name: stage.errors for name, stage in graph.health.stages.items() if stage.errors}
    prefix = "listeners of ticks: "
    names = {"deep", "late", "Signal.update", "mine", "late (2)"}
    assert errors == dict.fromkeys((prefix + name for name in names), 4)
    assert graph.health.stage(prefix + "fine").errors == 0


async def test_a_node_that_failed_further_down_is_well_again_when_it_works():
    graph, broken = Graph(ALWAYS), True

    def moody(batch: pa.RecordBatch) -> None:
        if broken:
            raise RuntimeError("no")

    graph.listen("ticks").map(lambda batch: batch).sink(moody)
    graph.push("ticks", TRADES.slice(0, 1))
    assert [stage.name for stage in graph.health.failing] == ["listeners of ticks: moody"]
    broken = False
    graph.push("ticks", TRADES.slice(1, 1))
    assert graph.health.failing == []


async def test_known_at_of_the_past_is_not_taken_for_lag():
    with Market(Threaded(50)) as market:
        market.start()
        await until(lambda: market.status.state == "ended")
        lag = market.health.stage("frame of ticks").lag.percentile(0.99)
        assert lag is not None
        assert 0 < lag < 60_000, "counted from when they came, not from when they happened"
        assert to_us(NOON) < market.clock.now_us()
