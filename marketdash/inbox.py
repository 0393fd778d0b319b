"""What waits on its way: bounded in rows, joined when taken; what has no room is conflated or dropped, and counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.schema import TOPICS, Event, conform

ROWS = 100_000
"""Rows of one topic that may wait."""
QUOTES = 20_000
"""Quotes that may wait before only the last one of each instrument is kept; at least twice the instruments."""
WINDOW_S = 0.008
"""How long rows that follow others are gathered: 2,500 messages a second cost 125 pushes. The first does not wait."""
CHUNK = 16_384
"""Rows handed over at once, so that no push keeps the loop for long."""
LOOSE = 256
"""Batches that may lie about before they are joined: a batch of one row takes the room of hundreds."""
UNFIT = "did not fit the schema"
UNREAD = "could not be decoded"


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of the rows of all, in order; 11 µs for ten of them."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def latest(batch: pa.RecordBatch, key: Sequence[str]) -> pa.RecordBatch:
    """Of rows with the same key (whole numbers or times) the last one, in the order in which these came.

    >>> rows = pa.record_batch({"instrument_id": [7, 8, 7], "bid": [1.0, 2.0, 3.0]})
    >>> latest(rows, ["instrument_id"]).to_pydict()
    {'instrument_id': [8, 7], 'bid': [2.0, 3.0]}
    """
    columns = [_numbers(batch.column(name)) for name in key]
    order = np.lexsort(columns)  # stable: rows of one key stay in their order
    ends = np.ones(len(order), np.bool_)
    if len(order):
        ends[:-1] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    return batch.take(pa.array(np.sort(order[ends])))


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    plain = column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return plain.to_numpy()  # type: ignore[no-any-return]


class Lane:
    """Rows of one topic, in the order in which they came, never more than `limit` of them.

    What finds no room is dropped as a whole batch. With a `key` nothing is refused: of rows with the same key only the
    last stays (`conflated`), and if even these take more than half the room, the oldest go (`dropped`). A single
    batch larger than the limit is taken when nothing else waits. `dropped` counts rows by reason; what was put in
    equals what was taken, what waits, `conflated` and `dropped`. It holds no lock.
    """

    def __init__(self, topic: str, limit: int = ROWS, key: Sequence[str] = ()) -> None:
        self.topic, self.limit, self.key = topic, limit, tuple(key)
        self.rows = self.conflated = 0
        self.dropped: Counter[str] = Counter()
        self.error: Exception | None = None
        """Why rows did not fit, the last time."""
        self._chunks: deque[tuple[float, pa.RecordBatch]] = deque()
        self._loose: list[tuple[float, int, Any]] = []

    def counts(self) -> dict[str, Any]:
        return {"queue": self.rows, "conflated": self.conflated, "dropped": dict(self.dropped)}

    @property
    def arrived(self) -> float:
        """When the oldest row that waits has come, on the clock of `time.perf_counter`."""
        return self._chunks[0][0] if self._chunks else self._loose[0][0]

    def fits(self, rows: int) -> bool:
        return not self.rows or self.rows + rows <= self.limit

    def put(self, rows: Any, arrived: float, count: int | None = None) -> bool:
        """Let a batch wait, or columns of lists, which are conformed when taken; False if dropped.

        Who knows how many rows these are says it in `count`.
        """
        if not (count := _rows(rows) if count is None else count):
            return True
        if not self.key and not self.fits(count):
            self.dropped[f"{self.topic}: more than {self.limit:,} rows would wait"] += count
            return False
        self._loose.append((arrived, count, rows))
        self.rows += count
        if len(self._loose) >= LOOSE:
            self._join()
        if self.key and self.rows > self.limit:
            self._conflate()
        return True

    def take(self, rows: int = CHUNK) -> tuple[float, pa.RecordBatch] | None:
        """The oldest rows as one batch of `rows` at most, and when the first of them came; None if none wait."""
        self._join()
        if not self._chunks:
            return None
        arrived, first = self._chunks.popleft()
        last, found, count = arrived, [first], first.num_rows
        while self._chunks and count < rows:
            last, following = self._chunks.popleft()
            found.append(following)
            count += following.num_rows
        batch = joined(found)
        if count > rows:
            self._chunks.appendleft((last, batch.slice(rows)))
            batch = batch.slice(0, rows)
        self.rows -= batch.num_rows
        return arrived, batch

    def clear(self) -> None:
        """Forget what waits."""
        self._chunks.clear()
        self._loose.clear()
        self.rows = 0

    def _join(self) -> None:
        if not self._loose:
            return
        loose, self._loose = self._loose, []
        batches = self._batches([rows for _, _, rows in loose])
        self.rows += sum(batch.num_rows for batch in batches) - sum(count for _, count, _ in loose)
        if batches:
            self._chunks.append((loose[0][0], joined(batches)))

    def _batches(self, parts: list[Any]) -> list[pa.RecordBatch]:
        """The parts in the schema of the topic; neighbours of the same columns are conformed at once."""
        found: list[pa.RecordBatch] = []
        start = 0
        while start < len(parts):
            if isinstance(parts[start], pa.RecordBatch):
                found.append(parts[start])
                start += 1
                continue
            names, stop = parts[start].keys(), start + 1
            while (
                stop < len(parts)
                and not isinstance(parts[stop], pa.RecordBatch)
                and parts[stop].keys() == names
            ):
                stop += 1
            found += self._conformed(parts[start:stop])
            start = stop
        return found

    def _conformed(self, parts: list[Mapping[str, list[Any]]]) -> list[pa.RecordBatch]:
        columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        try:
            return [conform(self.topic, columns, "An inbox")]
        except Exception as error:
            if len(parts) > 1:  # one that does not fit must not cost the others
                return [batch for part in parts for batch in self._conformed([part])]
            self.error = error
            self.dropped[f"{self.topic}: {UNFIT}"] += _rows(parts[0])
            return []

    def _conflate(self) -> None:
        self._join()
        arrived, before = self.arrived, self.rows
        kept = latest(joined([batch for _, batch in self._chunks]), self.key)
        self.conflated += before - kept.num_rows
        if (surplus := kept.num_rows - max(self.limit // 2, 1)) > 0:
            self.dropped[f"{self.topic}: more than {self.limit // 2:,} keys would wait"] += surplus
            kept = kept.slice(surplus)
        self._chunks = deque([(arrived, kept)])
        self.rows = kept.num_rows


class Inbox:
    """Where pushed events wait for the market: `offer` from any thread, `put` where the producer can wait.

    Nothing waits without bound. Trades, bars and all else but quotes are kept in their order up to `rows` of each
    topic; a batch beyond is dropped, counted with the reason, and told on `health`. Of quotes beyond `quotes` the last
    one of each instrument wins. Rows are joined when taken: those that come within `window_s` of the last
    taking go together. A longer window costs less and makes rows wait longer; the first one after a silence does not.
    """

    def __init__(self, *, rows: int = ROWS, quotes: int = QUOTES, window_s: float = WINDOW_S) -> None:
        self.limits = {"quotes": quotes}
        self.rows, self.window_s = rows, window_s
        self.offered = self.taken = 0
        self.arrived = 0.0
        """When the oldest row of what was taken last had come, on the clock of `time.perf_counter`."""
        self.lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._error: Exception | None = None
        self._asleep: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._putters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Rows that wait now."""
        return sum(lane.rows for lane in list(self.lanes.values()))

    def waited(self) -> float:
        """Seconds for which the oldest row has been waiting; 0 when none waits."""
        with self._lock:
            since = min((lane.arrived for lane in self.lanes.values() if lane.rows), default=None)
        return 0.0 if since is None else time.perf_counter() - since

    @property
    def dropped(self) -> int:
        """Rows that will never be seen; of what could not be decoded, messages."""
        return sum(self._refused.values()) + sum(
            sum(lane.dropped.values()) for lane in list(self.lanes.values())
        )

    @property
    def error(self) -> Exception | None:
        """Why something could not be read, the last time."""
        errors = (lane.error for lane in list(self.lanes.values()))
        return next((error for error in errors if error is not None), self._error)

    def counts(self) -> dict[str, Any]:
        with self._lock:
            reasons = Counter(self._refused)
            for lane in self.lanes.values():
                reasons.update(lane.dropped)
            conflated = sum(lane.conflated for lane in self.lanes.values())
            return {"queue": self.waiting, "conflated": conflated, "dropped": dict(reasons)}

    def offer(self, topic: str, rows: Any) -> bool:
        """Let rows wait for the market: a batch, or a mapping of columns. Never waits, never raises; False if dropped.

        From any thread. A mapping of lists is the cheapest for single messages: many are made one batch when taken.
        """
        arrived = time.perf_counter()
        try:
            count = _plain_rows(rows) if topic in TOPICS else None
            if count is None:
                rows = conform(topic, rows, "An inbox")
                count = rows.num_rows
            with self._lock:
                kept = self._put(topic, rows, arrived, count)
        except Exception as error:
            self.refuse(error, f"{topic}: {UNFIT}", _rows(rows))
            return False
        self.wake()
        return kept

    async def put(self, topic: str, rows: Any) -> None:
        """As `offer`, on a loop, for a producer that can wait until there is room."""
        batch = conform(topic, rows, "An inbox")
        while True:
            with self._lock:
                if self._lane(topic).fits(batch.num_rows):
                    self._put(topic, batch, time.perf_counter(), batch.num_rows)
                    break
                turn = asyncio.get_running_loop().create_future()
                self._putters.append(turn)
            await turn
        self.wake()

    def refuse(self, error: Exception, reason: str = UNREAD, rows: int = 1) -> None:
        """Count what could not be read."""
        with self._lock:
            self.offered += rows
            self._refused[reason] += rows
            self._error = error

    def _lane(self, topic: str) -> Lane:
        if topic not in self.lanes:
            key = ("instrument_id",) if topic == "quotes" else ()
            self.lanes[topic] = Lane(topic, self.limits.get(topic, self.rows), key)
        return self.lanes[topic]

    def _put(self, topic: str, rows: Any, arrived: float, count: int) -> bool:
        self.offered += count
        return self._lane(topic).put(rows, arrived, count)

    def wake(self) -> None:
        """Let the reader look again whether there is something, or an end."""
        with self._lock:
            asleep, self._asleep = self._asleep, None
        if asleep is not None and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(asleep.set)
            except RuntimeError:  # the loop has ended, and with it whoever read
                return

    async def events(self, until: asyncio.Future[Any] | None = None) -> AsyncIterator[Event]:
        """Events as they come, by topic, the longest waiting first; ends once `until` is done and all is read."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._something(until)
            begin = time.perf_counter()
            if not self.waiting:
                return
            with self._lock:
                lanes = sorted(
                    (lane for lane in self.lanes.values() if lane.rows), key=lambda lane: lane.arrived
                )
            for lane in lanes:
                if (event := self._take(lane)) is not None:
                    yield event
            spent = time.perf_counter() - begin
            await asyncio.sleep(max(0.0, self.window_s - spent) if self.waiting < CHUNK else 0.0)

    async def _something(self, until: asyncio.Future[Any] | None) -> None:
        while not self.waiting and not (until is not None and until.done()):
            with self._lock:
                asleep = self._asleep = asyncio.Event()
            # What came before the reader lay down has woken nobody.
            if self.waiting or (until is not None and until.done()):
                return
            await asleep.wait()

    def _take(self, lane: Lane) -> Event | None:
        with self._lock:
            taken = lane.take()
            putters, self._putters = self._putters, deque()
        for turn in putters:
            try:
                turn.get_loop().call_soon_threadsafe(_settle, turn)
            except RuntimeError:  # the loop of this producer has ended
                continue
        if taken is None:
            return None
        self.arrived, batch = taken
        self.taken += batch.num_rows
        return lane.topic, batch


def _plain_rows(rows: Any) -> int | None:
    """How many rows these are, if they are columns of Python values, all of one length; else None."""
    if type(rows) is not dict:
        return None
    count = None
    for values in rows.values():  # a loop over columns, twice as fast as two comprehensions
        if type(values) is not list or (count is not None and len(values) != count):
            return None
        count = len(values)
    return count


def _rows(rows: Any) -> int:
    """How many rows these are; what is nothing of the kind counts as one."""
    if isinstance(rows, pa.RecordBatch):
        return rows.num_rows  # type: ignore[no-any-return]
    if (count := _plain_rows(rows)) is not None:
        return count
    columns = list(rows.values()) if isinstance(rows, Mapping) else [rows]
    return max((len(values) if hasattr(values, "__len__") else 1 for values in columns), default=0)


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


__all__ = ["Inbox", "Lane", "joined", "latest"]
