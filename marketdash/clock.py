"""The only source of "now": the system's clock, or a clock that replays a recorded stretch of time."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from marketdash.errors import ClockError

STEPS = ("event", "bar", "session")

log = logging.getLogger(__name__)

_DAY_US = 86_400_000_000
_DATED = re.compile(r"(?!\s*T?\d{1,2}:).*(\d{4}|\d[-/.]\d)")


@runtime_checkable
class Clock(Protocol):
    """Tells the market's time, in microseconds since 1970 (UTC) or as a Timestamp."""

    def now_us(self) -> int: ...
    def now(self) -> pd.Timestamp: ...


class SystemClock:
    """The time of the machine."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def now(self) -> pd.Timestamp:
        return pd.Timestamp(self.now_us(), unit="us", tz="UTC")


class Timeline:
    """The stretches of time that a replay plays; what lies between them is skipped.

    `intervals` are ordered, disjoint pairs of microseconds. *Active* time is the time inside them.
    """

    def __init__(self, intervals: Sequence[tuple[int, int]]) -> None:
        if not intervals:
            raise ClockError("A timeline", "at least one interval", "none")
        self.opens = np.array([start for start, _ in intervals], dtype=np.int64)
        self.closes = np.array([end for _, end in intervals], dtype=np.int64)
        if (self.closes < self.opens).any() or (self.opens[1:] < self.closes[:-1]).any():
            raise ClockError("A timeline", "ordered, disjoint intervals", list(intervals)[:5])
        self._before = np.concatenate([[0], np.cumsum(self.closes - self.opens)])

    @property
    def start(self) -> int:
        return int(self.opens[0])

    @property
    def end(self) -> int:
        return int(self.closes[-1])

    @property
    def length(self) -> int:
        """Active microseconds from start to end."""
        return int(self._before[-1])

    def active(self, us: int) -> int:
        """Active time that has passed at the moment `us`."""
        i = int(np.searchsorted(self.opens, us, side="right")) - 1
        if i < 0:
            return 0
        return int(self._before[i] + min(us, int(self.closes[i])) - self.opens[i])

    def at(self, active: int) -> int:
        """The moment at which `active` time has passed; between two intervals, the end of the first."""
        active = min(max(active, 0), self.length)
        i = max(int(np.searchsorted(self._before, active, side="left")) - 1, 0)
        return int(self.opens[i] + active - self._before[i])


class _Position(NamedTuple):
    """When the wall clock showed `wall` it was `us`; from there on time goes at `pace`, while `playing`."""

    wall: float
    us: int
    playing: bool
    pace: float


class ReplayClock:
    """A clock that plays a timeline: play, pause, any pace, step, seek both ways.

    `pace` is active seconds per second; `math.inf` plays as fast as the machine can. `wall` is the
    monotonic clock that drives it, in seconds. `next_event(us)` gives the first moment after `us` at
    which the log has something (None when it has nothing more); steps need it.

    Callbacks given to `on_jump` are called after the position was set by hand, with the moment before
    and the moment after; the clock stands still until they return. Those given to `on_change` are called
    after anything changed that a screen may show. All methods may be called from any thread.
    """

    def __init__(
        self,
        timeline: Timeline,
        *,
        start: int | None = None,
        pace: float = 1.0,
        playing: bool = True,
        tz: str = "UTC",
        wall: Callable[[], float] = time.monotonic,
        next_event: Callable[[int], int | None] | None = None,
    ) -> None:
        self.timeline, self.tz = timeline, tz
        self._wall, self._next_event = wall, next_event
        self.first = timeline.start if start is None else self._bounded(start)
        # Readers take the position whole and without the lock: who holds it may be waiting for them.
        self._position = _Position(wall(), self.first, playing, _checked_pace(pace))
        self._lock = threading.RLock()
        self._jumping = 0
        self._jump_callbacks: list[Callable[[int, int], None]] = []
        self._change_callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "playing" if self.playing else "paused"
        return f"<ReplayClock {self.now():%Y-%m-%d %H:%M:%S %Z} {state} at pace {self.pace:g}>"

    def now_us(self) -> int:
        position = self._position
        if not position.playing or self._jumping:
            return position.us
        elapsed = self._wall() - position.wall
        if elapsed <= 0:
            return position.us
        if math.isinf(position.pace):
            return max(position.us, self.timeline.end)
        active = self.timeline.active(position.us) + int(
            min(elapsed * position.pace * 1e6, self.timeline.length)
        )
        return max(position.us, self.timeline.at(active))

    def now(self) -> pd.Timestamp:
        """The moment of the replay, in the exchange's zone."""
        return to_timestamp(self.now_us(), self.tz)

    @property
    def playing(self) -> bool:
        return self._position.playing and not self.finished

    @property
    def finished(self) -> bool:
        return self.now_us() >= self.timeline.end

    @property
    def pace(self) -> float:
        return self._position.pace

    @pace.setter
    def pace(self, pace: float) -> None:
        self._set(pace=_checked_pace(pace))

    def play(self) -> None:
        """Go on from here; from the end, start again where this clock started."""
        if self.finished:
            self.seek(self.first)
        self._set(playing=True)

    def pause(self) -> None:
        self._set(playing=False)

    def seek(self, when: object) -> None:
        """Set the position; a time without a zone is the exchange's."""
        after = self._bounded(to_us(when, self.tz))
        with self._lock:
            before = self.now_us()
            self._jumping += 1
            self._position = self._position._replace(wall=self._wall(), us=after)
        try:
            for callback in list(self._jump_callbacks):
                callback(before, after)
        finally:
            with self._lock:
                self._jumping -= 1
                # What the callbacks took is not the market's time.
                self._position = self._position._replace(wall=self._wall())
        self._changed()

    def step(self, by: str = "event", width_us: int = 60_000_000) -> None:
        """Pause, then go to the next event, the end of the bar it is in, or the end of its session."""
        if by not in STEPS:
            raise ClockError("clock.step", f"one of {', '.join(STEPS)}", repr(by))
        if not width_us > 0:
            raise ClockError("clock.step", "the width of a bar in microseconds", repr(width_us))
        self.pause()
        now = self.now_us()
        following = self._next_event(now) if self._next_event else None
        if following is None:
            self.seek(self.timeline.end)
        elif by == "event":
            self.seek(following)
        else:
            i = int(np.searchsorted(self.timeline.closes, following, side="left"))
            close = int(self.timeline.closes[i]) if i < len(self.timeline.closes) else self.timeline.end
            # Bars lie on the exchange's own clock, which may be half an hour apart from Greenwich.
            local = following + offset_us(following, self.tz)
            end = following - local % -width_us
            self.seek(min(end, close) if by == "bar" and width_us < _DAY_US else close)

    def seconds_until(self, us: int) -> float:
        """Seconds of the wall until the moment `us` is reached; infinite while paused."""
        now, position = self.now_us(), self._position
        if us <= now:
            return 0.0
        if not self.playing:
            return math.inf
        return (self.timeline.active(us) - self.timeline.active(now)) / 1e6 / position.pace

    def on_jump(self, callback: Callable[[int, int], None]) -> Callable[[], None]:
        return _added(self._jump_callbacks, callback)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return _added(self._change_callbacks, callback)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._position = self._position._replace(wall=self._wall(), us=self.now_us(), **changes)
        self._changed()

    def _changed(self) -> None:
        for callback in list(self._change_callbacks):
            try:
                callback()
            except Exception:
                # One screen that fails must not keep the clock's news from the others.
                log.exception("A listener of the clock failed")

    def _bounded(self, us: int) -> int:
        return min(max(us, self.timeline.start), self.timeline.end)


def _added(callbacks: list[Any], callback: Any) -> Callable[[], None]:
    callbacks.append(callback)

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove


def _checked_pace(pace: float) -> float:
    try:
        value = float(pace)
    except (TypeError, ValueError):
        value = math.nan
    if not value > 0:
        hint = "Use clock.pause() to stop, math.inf for as fast as possible."
        raise ClockError("A clock's pace", "a number above 0", repr(pace), hint)
    return value


def to_us(when: Any, tz: str = "UTC") -> int:
    """Microseconds since 1970 of anything that names a moment; what carries no zone is in `tz`.

    >>> to_us("2018-11-16 10:30", "America/New_York")
    1542382200000000
    """
    if isinstance(when, int | np.integer) and not isinstance(when, bool):
        return int(when)
    try:
        if isinstance(when, bool | float | np.floating) or (isinstance(when, str) and not _DATED.match(when)):
            # pandas would read a number as nanoseconds, and complete a bare "10:30" with the machine's date.
            raise ValueError("no date")
        stamp = pd.Timestamp(when)
        if pd.isna(stamp):
            raise ValueError("not a time")
        stamp = stamp.tz_localize(tz) if stamp.tzinfo is None else stamp
    except (ValueError, TypeError, OverflowError) as error:
        raise ClockError("A time", "a date, '2018-11-16 10:30' or a Timestamp", repr(when)) from error
    return int(stamp.to_datetime64().astype("M8[us]").astype(np.int64))


def to_timestamp(us: int, tz: str = "UTC") -> pd.Timestamp:
    """The moment `us` microseconds after 1970, in the zone `tz`."""
    return pd.Timestamp(us, unit="us", tz="UTC").tz_convert(tz)


def offset_us(us: int, tz: str) -> int:
    """What the zone `tz` adds to UTC at a moment, in microseconds."""
    offset = to_timestamp(us, tz).utcoffset()
    return int(offset.total_seconds() * 1e6) if offset else 0
