"""The graph of one market: events in at the root, frames and streams out.

    root ─ ticks ── clean ─ last prices ─ bars ─┬─ frames
         ─ quotes ─ clean ─ last prices ────────┤
         ─ bars ─── clean ─ bars ─ last prices ─┘
         ─ readings (from derive, when bars complete)
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from streamz import Sink, Stream

from marketdash.frames import BarStore, LastPrices, RollingFrame
from marketdash.indicators.spec import Spec
from marketdash.instruments import Universe
from marketdash.pipeline import columns, nodes
from marketdash.pipeline.bars import BuildBars
from marketdash.pipeline.clean import Clean
from marketdash.pipeline.derive import Derive
from marketdash.pipeline.health import Health
from marketdash.pipeline.last import UpdateLast
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Step
from marketdash.schema import WIDTHS, conform, width_us

ROLLING = ("ticks", "quotes", "readings")


@dataclass
class BarFeed:
    """Those who listen to the bars of one width: each change, or only complete bars."""

    width: str
    complete: bool
    node: Stream
    sent: npt.NDArray[np.int64]
    touched: npt.NDArray[np.int64] = field(repr=False)


class Graph:
    """Builds the stages once; `push` sends a batch through, `advance` tells how far time has come.

    It must be made and used on one running event loop. `finest` is the narrowest width of bars that the
    source's data allow.
    """

    def __init__(
        self, universe: Universe, *, finest: str = "1s", rows: int = 1_000_000, health: Health | None = None
    ) -> None:
        self.universe, self.health = universe, health or Health()
        self.sessions = SessionTable(universe)
        self.last = LastPrices(len(universe))
        widths = [width for width in WIDTHS if width_us(width) >= width_us(finest)]
        self.store = BarStore(len(universe), widths, rows)
        self.frames = {name: RollingFrame(name) for name in ROLLING}
        self.derive = Derive(universe, self.store, self.health)
        self.root = Stream(asynchronous=True, stream_name="events")
        self.outputs: dict[str, Stream] = {}
        self.cleaners: dict[str, Clean] = {}
        self._steps: list[Step] = []
        self._feeds: list[BarFeed] = []
        self._seq = 0
        self._build()

    def _build(self) -> None:
        for topic in ("ticks", "quotes", "bars"):
            self.cleaners[topic] = Clean(self.sessions, topic)
            stages: list[tuple[str, Step]] = [(f"clean {topic}", self.cleaners[topic])]
            if topic != "quotes":
                stages.append((f"bars of {topic}", BuildBars(self.sessions, self.store, topic)))
            stages.append((f"last of {topic}", UpdateLast(self.sessions, self.last, topic)))
            node = self.root.only_topic(topic)
            for name, call in stages:
                node = node.step(call, name, self.health)
                self._steps.append(call)
            if topic in self.frames:
                node.sink(self.frames[topic].append)
            self.outputs[topic] = node
        self.outputs["readings"] = self.root.only_topic("readings")
        self.outputs["readings"].sink(self.frames["readings"].append)

    def push(self, topic: str, batch: pa.RecordBatch) -> list[Any]:
        """Send a batch through all stages; returns what slow listeners have left to await."""
        pending: list[Any] = []
        if topic == "bars" and batch.num_rows:
            for part in _by_width(batch):
                pending.append(self.root.emit((topic, part)))
        elif (boundary := self._boundary) and topic == "ticks":
            # Readings must not depend on how the log was cut: stop at each boundary of a derived width.
            for part, passed in _split(batch, boundary):
                if passed is not None:
                    pending += self.advance(passed)
                pending.append(self.root.emit((topic, part)))
        else:
            pending.append(self.root.emit((topic, batch)))
        for feed in self._feeds:
            if not feed.complete:
                self._send_changed(feed)
        return pending

    def advance(self, us: int) -> list[Any]:
        """Time has come to `us`, and all events known by then were pushed: complete bars are read."""
        pending = [self.root.emit(("readings", batch)) for batch in self.derive.advance(us)]
        for feed in self._feeds:
            if feed.complete:
                complete = self.store.complete(feed.width, us)
                self._send(feed, feed.sent, complete, complete)
        return pending

    def reset(self) -> None:
        """Forget all that was pushed; listeners stay."""
        for call in self._steps:
            call.reset()
        for frame in self.frames.values():
            frame.reset()
        self.derive.reset()
        for feed in self._feeds:
            feed.sent[:] = 0
            feed.touched[:] = self.store.touched

    def close(self) -> None:
        """Take all sinks down, ours and those that were attached: streamz would keep them for ever."""
        nodes = [self.root, *(feed.node for feed in self._feeds)]
        for node in nodes:
            nodes.extend(item for item in node.downstreams if item not in nodes)
        for node in nodes:
            if isinstance(node, Sink):
                node.destroy()
        self._feeds.clear()

    def listen(
        self,
        topic: str,
        convert: Callable[[Any], Any] | None = None,
        width: str | None = None,
        complete: bool = False,
        now_us: int = 0,
    ) -> Stream:
        """A guarded stream of a topic's clean batches; of bars, those of one width.

        With `complete` each bar comes once, when it has ended; else whenever it has changed.
        """
        stage = f"listeners of {topic}" + (f" {width}" if width else "")
        if topic != "bars":
            return self.outputs[topic].guard(stage, self.health, convert)
        node = Stream(asynchronous=True, stream_name=stage)
        assert width is not None
        sent = self.store.complete(width, now_us) if complete else self.store.ring(width).total
        feed = BarFeed(width, complete, node, sent.copy(), self.store.touched.copy())
        self._feeds.append(feed)
        return node.guard(stage, self.health, convert)

    def add_indicator(self, spec: Spec, width: str, now_us: int) -> None:
        self.derive.add(spec, width, now_us)

    @property
    def _boundary(self) -> int:
        widths = self.derive.widths | {feed.width for feed in self._feeds if feed.complete}
        return min((width_us(width) for width in widths), default=0)

    def _send_changed(self, feed: BarFeed) -> None:
        changed = self.store.touched != feed.touched
        if not changed.any():
            return
        feed.touched = self.store.touched.copy()
        total = self.store.ring(feed.width).total.copy()
        # From the bar that was the newest when last sent, since it may have changed.
        self._send(feed, np.where(changed, np.maximum(feed.sent - 1, 0), total), total, total)

    def _send(
        self, feed: BarFeed, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], sent: npt.NDArray[np.int64]
    ) -> None:
        capacity = self.store.ring(feed.width).capacity
        begin = np.maximum(begin, end - capacity)
        count = np.maximum(end - begin, 0)
        feed.sent = sent.copy()
        if not count.any():
            return
        ids = np.repeat(np.arange(len(count)), count)
        numbers = np.repeat(begin, count) + np.arange(len(ids)) - np.repeat(np.cumsum(count) - count, count)
        feed.node.emit(self.bar_batch(feed.width, self.store.gather(feed.width, ids, numbers)))

    def bar_batch(self, width: str, rows: dict[str, npt.NDArray[Any]]) -> pa.RecordBatch:
        """Gathered rows of the store as a batch of the bars topic, ordered by time."""
        order = np.lexsort((rows["instrument_id"], rows["time"]))
        rows = {name: values[order] for name, values in rows.items()}
        length = len(order)
        self._seq += length
        stamp = pa.timestamp("us", "UTC")
        return conform(
            "bars",
            {
                "time": pa.array(rows["time"], stamp),
                "known_at": pa.array(rows["known_at"], stamp),
                "seq": np.arange(self._seq - length, self._seq),
                "source": pa.array(["bars"] * length, pa.utf8()),
                "width": pa.array([width] * length, pa.utf8()),
                "count": pa.array(rows["count"], mask=rows["count"] < 0),
                "revision": rows["revision"].astype(np.int32),
                "session": rows["session"].astype(np.int8),
                "trading_day": pa.array(rows["trading_day"].astype(np.int32), pa.int32()).cast(pa.date32()),
                **{n: rows[n] for n in ("instrument_id", "open", "high", "low", "close", "volume", "vwap")},
            },
            "bars",
        )


def _by_width(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    column = batch.column("width")
    codes = column.indices.to_numpy()
    if (codes == codes[0]).all():
        yield batch
        return
    for code in np.unique(codes):
        yield batch.filter(pa.array(codes == code))


def _split(batch: pa.RecordBatch, width: int) -> Iterator[tuple[pa.RecordBatch, int | None]]:
    """Parts of a batch between boundaries of `width`, each with the boundary that was passed before it."""
    known = columns.known(batch)
    buckets = known // width
    cuts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(known)]
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        if stop > start:
            # A boundary in a batch's first row may have been passed in the batch before: passing it twice is free.
            yield batch.slice(start, stop - start), int(buckets[start]) * width


__all__ = ["Graph", "nodes"]
