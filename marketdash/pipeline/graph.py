"""The graph of one market: events in at the root, frames and streams out.

root ─ ticks ── clean ─ bars ─ last prices ─┬─ frames, listeners
     ─ corrections ─ bars ─ last prices ────┤
     ─ quotes ─ clean ─ last prices ────────┤
     ─ bars ─── clean ─ bars ─ last prices ─┤
     ─ actions ─ clean ─────────────────────┤
     ─ readings (from derive, when bars end)┘
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from streamz import Sink, Stream

from marketdash.calendars import FOREVER
from marketdash.frames import BarStore, LastPrices, RollingFrame
from marketdash.frames.bars import PLACES
from marketdash.indicators.spec import Spec
from marketdash.instruments import Universe
from marketdash.pipeline import columns, kernels, nodes
from marketdash.pipeline.bars import HORIZON_US, WIDTHS_US, BuildBars, BuildTicks
from marketdash.pipeline.clean import Clean
from marketdash.pipeline.clean_actions import CleanActions
from marketdash.pipeline.clean_ticks import CleanTicks
from marketdash.pipeline.correct import Correct
from marketdash.pipeline.derive import Derive
from marketdash.pipeline.feeds import ChangedBars, EndedBars
from marketdash.pipeline.health import Health
from marketdash.pipeline.keep import Keep
from marketdash.pipeline.last import UpdateLast
from marketdash.pipeline.nbbo import NationalBest
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Step
from marketdash.schema import WIDTHS, width_us

ROLLING = ("ticks", "corrections", "quotes", "readings")
ACTIONS_KEPT = 500_000
"""Twenty years of dividends of 5,000 instruments: one that is forgotten would make adjusted prices wrong."""


class Graph:
    """Builds the stages once; `push` sends a batch through, `advance` tells how far time has come.

    It must be made and used on one running event loop. `finest` is the narrowest width of bars that the
    source's data allow; `tz` is the zone in which indicators see times.

    Ended bars are read (for indicators, and for who listens to complete bars) at moments that depend on the
    events alone: whenever known-at passes a moment at which a bar may end, and after ready-made bars that came when
    their time had passed. So readings do not depend on how a log is cut into batches, nor on how often a clock looks.
    """

    def __init__(
        self,
        universe: Universe,
        *,
        finest: str = "1s",
        rows: int = 1_000_000,
        health: Health | None = None,
        tz: str = "UTC",
        lateness_us: int = 0,
        horizon_us: int = HORIZON_US,
    ) -> None:
        self.lateness_us, self.horizon_us = lateness_us, horizon_us
        self.universe, self.health = universe, health or Health()
        self.sessions = SessionTable(universe)
        self.last = LastPrices(len(universe))
        widths = [width for width in WIDTHS if width_us(width) >= width_us(finest)]
        self.store = BarStore(len(universe), widths, rows)
        self.frames = {name: RollingFrame(name) for name in ROLLING}
        self.frames["actions"] = RollingFrame("actions", ACTIONS_KEPT)
        self.derive = Derive(universe, self.store, self.health, tz)
        self.roots: dict[str, Stream] = {}
        self.outputs: dict[str, Stream] = {}
        self.cleaners: dict[str, Clean | CleanActions | CleanTicks | Correct] = {}
        self._steps: list[Step] = []
        self._stages: list[str] = []
        self._changed: list[ChangedBars] = []
        self._ended: list[EndedBars] = []
        self._guards: weakref.WeakSet[nodes.guard] = weakref.WeakSet()
        self.ending = False
        """Set it from any thread, and a push that is under way ends soon, wherever it is."""
        self._next_end = -FOREVER
        self._told_us: int | None = None
        self._build()

    def _build(self) -> None:
        clean = self.cleaners["ticks"] = CleanTicks(self.sessions)
        build = BuildTicks(self.store, self.last, clean, self.lateness_us, self.horizon_us)
        self._chain("ticks", [("clean ticks", clean), ("bars of ticks", build)])
        correct = self.cleaners["corrections"] = Correct(
            self.store, self.last, clean, self.lateness_us, self.horizon_us
        )
        self._chain("corrections", [("correct ticks", correct)])
        for topic in ("quotes", "bars"):
            self.cleaners[topic] = Clean(self.sessions, topic, self.store.widths)
            stages: list[tuple[str, Step]] = [(f"clean {topic}", self.cleaners[topic])]
            if topic == "quotes":
                stages.append(("best of quotes", NationalBest(len(self.universe))))
            else:
                stages.append((f"bars of {topic}", BuildBars(self.sessions, self.store)))
            stages.append((f"last of {topic}", UpdateLast(self.sessions, self.last, topic)))
            self._chain(topic, stages)
        clean_actions = self.cleaners["actions"] = CleanActions(len(self.universe))
        self._chain("actions", [("clean actions", clean_actions)])
        self._chain("readings", [])

    def _chain(self, topic: str, stages: list[tuple[str, Step]]) -> None:
        if topic in self.frames:
            stages.append((f"frame of {topic}", Keep(self.frames[topic])))
        node = self.roots[topic] = nodes.Plain(asynchronous=True, stream_name=topic)
        for name, call in stages:
            node = node.step(call, name, self.health)
            self._steps.append(call)
            self._stages.append(name)
        self.outputs[topic] = node

    def push(self, topic: str, batch: pa.RecordBatch) -> list[Any]:
        """Send a batch through all stages; returns what slow listeners have left to await."""
        if not batch.num_rows:
            return []
        pending: list[Any] = []
        if topic in ("ticks", "corrections", "bars") and self._has_readers:
            for part in self._parts(topic, batch, pending):
                pending += self._emit(topic, part)
        else:
            pending += self._emit(topic, batch)
        for feed in self._changed:
            if (changed := feed.take()) is not None:
                pending += feed.send(changed)
        if self._changed:
            self._changed = [feed for feed in self._changed if feed.heard]
        return pending

    def _emit(self, topic: str, batch: pa.RecordBatch) -> list[Any]:
        # Stream.emit would wrap what is left in a future each time, for 20 µs.
        pending: list[Any] = self.roots[topic]._emit(batch)
        if len(past := self.store.take_past()):
            readers = [item.unread for item in self.derive.derivations] + [
                feed.unread for feed in self._ended
            ]
            for reader in readers:
                rows = past[(past[:, 0] == PLACES[reader.width]) & (past[:, 3] == 1)]
                reader.note_new(rows[:, 1], rows[:, 2])
            for ended in self._ended:
                ended.note_revised(past[(past[:, 0] == PLACES[ended.width]) & (past[:, 3] == 0)])
            for feed in self._changed:
                feed.note_past(past[past[:, 0] == PLACES[feed.width]])
        return pending

    def _parts(self, topic: str, batch: pa.RecordBatch, pending: list[Any]) -> Iterator[pa.RecordBatch]:
        """The batch, cut where bars must be read before it goes on."""
        known = columns.known(batch)
        # A time that is none will be stopped by clean; until then it must not move ours.
        known = np.maximum.accumulate(np.where(known < kernels.THE_END_US, known, 0))
        late = self._late_bars(batch, known) if topic == "bars" else np.zeros(0, np.int64)
        row, length = 0, len(known)
        while row < length and not self.ending:
            if known[row] > 0:
                pending += self.advance(int(known[row]) - 1)
            next_end = max(self._next_end + self.lateness_us, known[row])
            stop = int(np.searchsorted(known, next_end, side="right"))
            if len(late := late[late >= row]):
                stop = min(stop, int(np.searchsorted(known, known[late[0]], side="right")))
                if late[0] < stop:
                    self._told_us = int(known[late[0]]) - self.lateness_us
            yield batch.slice(row, stop - row)
            row = stop

    def _late_bars(self, batch: pa.RecordBatch, known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows by which a bar changes that had ended before, which nobody will look for by itself."""
        times, table = columns.ints(batch, "time"), self.sessions
        first, last = kernels.span_of_times(columns.ids(batch), times, known)
        if not last:
            return np.zeros(0, np.int64)
        table.cover(first, last)
        read = np.array([place for width, place in PLACES.items() if width in self._read_widths], np.int64)
        late = np.zeros(len(times), np.bool_)
        kernels.find_late(
            columns.widths(batch), columns.ids(batch), times, known - self.lateness_us, read, WIDTHS_US,
            table.segments, table.spans, table.pointers(), late,
        )  # fmt: skip
        return np.flatnonzero(late)

    @property
    def _read_widths(self) -> set[str]:
        return self.derive.widths | {feed.width for feed in self._ended}

    @property
    def _has_readers(self) -> bool:
        return bool(self.derive.derivations or self._ended)

    def advance(self, us: int) -> list[Any]:
        """Time has come to `us`, and all events known by then were pushed: bars that are complete are read.

        A bar is complete when the source's lateness has passed since its end.
        """
        us -= self.lateness_us
        if not self._has_readers or (us < self._next_end and (self._told_us is None or us < self._told_us)):
            return []
        pending: list[Any] = []
        for batch in self.derive.advance(us):
            pending += self._emit("readings", batch)
        for feed in self._ended:
            if (ended := feed.take(us)) is not None:
                pending += feed.send(ended)
        self._ended = [feed for feed in self._ended if feed.heard]
        self._look_out(us)
        return pending

    def _look_out(self, us: int) -> None:
        """Find the next moment after `us` at which a bar that somebody waits for may end."""
        self._told_us = None
        self.sessions.cover(us, us)
        narrowest = min((width_us(width) for width in self._read_widths), default=FOREVER)
        self._next_end = kernels.next_boundary(
            us, narrowest, self.sessions.segments, self.sessions.calendar_spans
        )

    def reset(self) -> None:
        """Forget all that was pushed; listeners stay."""
        for call in self._steps:
            call.reset()
        self.derive.reset()
        for feed in (*self._changed, *self._ended):
            feed.reset()
        self._next_end, self._told_us = -FOREVER, None

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: what he knows of cannot be taken back."""
        return bool(
            self._changed or self._ended or any(len(guard.downstreams) for guard in list(self._guards))
        )

    @property
    def errors(self) -> int:
        """How often a stage could not handle a batch, or an indicator the bars that have ended."""
        stages = [*self._stages, *(item.stage for item in self.derive.derivations)]
        return sum(self.health.stage(name).errors for name in stages)

    @property
    def ways(self) -> Hashable:
        """What makes of the same rows the same state: equal for graphs that can take each other's snapshots."""
        derived = tuple((item.spec.indicator, str(item.spec), item.width) for item in self.derive.derivations)
        store = self.store
        return (
            store.widths,
            store.limits.tobytes(),
            self.lateness_us,
            self.horizon_us,
            self.derive.tz,
            derived,
        )

    def snapshot(self) -> Any:
        """All that was pushed has left behind, but for the bars behind the newest (see `snapshots`)."""
        steps = tuple(call.snapshot() for call in self._steps)
        return steps, self.derive.snapshot(), self._next_end, self._told_us

    def restore(self, kept: Any) -> None:
        """Go back to a snapshot of this graph or one of the same `ways`; the bars behind the newest are apart."""
        steps, derived, self._next_end, self._told_us = kept
        for call, part in zip(self._steps, steps, strict=True):
            call.restore(part)
        self.derive.restore(derived)

    def close(self) -> None:
        """Take all sinks down, those that were attached too: streamz would keep them for ever."""
        for guard in list(self._guards):
            guard.close()
        nodes = [*self.roots.values(), *(feed.node for feed in (*self._changed, *self._ended))]
        for node in nodes:
            nodes.extend(item for item in node.downstreams if item not in nodes)
        for node in nodes:
            if isinstance(node, Sink):
                node.destroy()
        self._changed, self._ended = [], []

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
            return self._guarded(self.outputs[topic], stage, convert)
        assert width is not None
        node = Stream(asynchronous=True, stream_name=stage)
        if complete:
            self._ended.append(EndedBars(self.store, width, node, now_us))
            self._wait_for(now_us)
        else:
            self._changed.append(ChangedBars(self.store, width, node))
        self.store.notes_past = True
        return self._guarded(node, stage, convert, () if complete else ("time", "instrument_id"))

    def _guarded(
        self, node: Stream, stage: str, convert: Callable[[Any], Any] | None, key: tuple[str, ...] = ()
    ) -> Stream:
        guard = node.guard(stage, self.health, convert, key)
        self._guards.add(guard)
        return guard

    def add_indicator(self, spec: Spec, width: str, now_us: int) -> None:
        """Derive readings of an indicator from the bars that end after `now_us`."""
        self.derive.add(spec, width, now_us)
        self.store.notes_past = True
        self._wait_for(now_us)

    def _wait_for(self, now_us: int) -> None:
        # Looks at the next opportunity, and from there on knows when.
        self._next_end = min(self._next_end, now_us)


__all__ = ["Graph", "nodes"]
