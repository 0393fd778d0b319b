"""The only source of "now": the system's clock, or a clock that replays a recorded stretch of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from marketdash.errors import ClockError

STEPS = ("event", "bar", "session")


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


class ReplayClock:
    """A clock that plays a timeline: play, pause, any pace, step, seek both ways.

    `pace` is active seconds per second; `math.inf` plays as fast as the machine can. `wall` is the
    monotonic clock that drives it, in seconds. `next_event(us)` gives the first moment after `us` at
    which the log has something (None when it has nothing more); steps need it.

    Callbacks given to `on_jump` are called after the position was set by hand, with the moment before
    and the moment after; those given to `on_change` after anything changed that a screen may show.
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
        self._pace = _checked_pace(pace)
        self._playing = playing
        self.first = timeline.start if start is None else self._bounded(start)
        self._anchor = (wall(), self.first)
        self._jump_callbacks: list[Callable[[int, int], None]] = []
        self._change_callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "playing" if self.playing else "paused"
        return f"<ReplayClock {to_timestamp(self.now_us(), self.tz):%Y-%m-%d %H:%M:%S %Z} {state} at pace {self.pace:g}>"

    def now_us(self) -> int:
        wall, us = self._anchor
        if not self._playing:
            return us
        elapsed = self._wall() - wall
        if elapsed <= 0:
            return us
        if math.isinf(self._pace):
            return max(us, self.timeline.end)
        active = self.timeline.active(us) + int(elapsed * self._pace * 1e6)
        return max(us, self.timeline.at(active))

    def now(self) -> pd.Timestamp:
        """The moment of the replay, in the exchange's zone."""
        return to_timestamp(self.now_us(), self.tz)

    @property
    def playing(self) -> bool:
        return self._playing and not self.finished

    @property
    def finished(self) -> bool:
        return self.now_us() >= self.timeline.end

    @property
    def pace(self) -> float:
        return self._pace

    @pace.setter
    def pace(self, pace: float) -> None:
        pace = _checked_pace(pace)
        self._anchor = (self._wall(), self.now_us())
        self._pace = pace
        self._changed()

    def play(self) -> None:
        """Go on from here; from the end, start again where this clock started."""
        if self.finished:
            self.seek(self.first)
        self._anchor = (self._wall(), self.now_us())
        self._playing = True
        self._changed()

    def pause(self) -> None:
        self._anchor = (self._wall(), self.now_us())
        self._playing = False
        self._changed()

    def seek(self, when: object) -> None:
        """Set the position; a time without a zone is the exchange's."""
        before, after = self.now_us(), self._bounded(to_us(when, self.tz))
        self._anchor = (self._wall(), after)
        for callback in list(self._jump_callbacks):
            callback(before, after)
        # What the callbacks took is not the market's time.
        self._anchor = (self._wall(), after)
        self._changed()

    def step(self, by: str = "event", width_us: int = 60_000_000) -> None:
        """Pause, then go to the next event, the end of the bar it is in, or the end of its session."""
        if by not in STEPS:
            raise ClockError("clock.step", f"one of {', '.join(STEPS)}", repr(by))
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
            bar_end = -(-following // width_us) * width_us
            self.seek(max(min(bar_end, close), following) if by == "bar" else max(close, following))

    def seconds_until(self, us: int) -> float:
        """Seconds of the wall until the moment `us` is reached; infinite while paused."""
        if us <= self.now_us():
            return 0.0
        if not self.playing:
            return math.inf
        return (self.timeline.active(us) - self.timeline.active(self.now_us())) / 1e6 / self._pace

    def on_jump(self, callback: Callable[[int, int], None]) -> Callable[[], None]:
        self._jump_callbacks.append(callback)
        return lambda: self._jump_callbacks.remove(callback)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._change_callbacks.append(callback)
        return lambda: self._change_callbacks.remove(callback)

    def _changed(self) -> None:
        for callback in list(self._change_callbacks):
            callback()

    def _bounded(self, us: int) -> int:
        return min(max(us, self.timeline.start), self.timeline.end)


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
    """Microseconds since 1970 of anything that names a moment; what carries no zone is in `tz`."""
    if isinstance(when, int | np.integer):
        return int(when)
    try:
        stamp = pd.Timestamp(when)
        if stamp is pd.NaT:
            raise ValueError("not a time")
        stamp = stamp.tz_localize(tz) if stamp.tzinfo is None else stamp
    except (ValueError, TypeError) as error:
        raise ClockError("A time", "a date, '2018-11-16 10:30' or a Timestamp", repr(when)) from error
    return int(stamp.value // 1000)  # Timestamp.value counts nanoseconds in any unit


def to_timestamp(us: int, tz: str = "UTC") -> pd.Timestamp:
    """The moment `us` microseconds after 1970, in the zone `tz`."""
    return pd.Timestamp(us, unit="us", tz="UTC").tz_convert(tz)
