"""The replay clock: plays, pauses, steps and seeks on a timeline, and never counts closed hours."""

import math
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdash.clock import Clock, ReplayClock, SystemClock, Timeline, offset_us, to_timestamp, to_us
from marketdash.errors import ClockError
from marketdash.testing.clock import ManualClock, ManualWall

SECOND = 1_000_000
# Three sessions of 100, 50 and 100 seconds, with nights between them.
TIMELINE = Timeline(
    [(1000 * SECOND, 1100 * SECOND), (2000 * SECOND, 2050 * SECOND), (3000 * SECOND, 3100 * SECOND)]
)
EVENTS = [1000, 1010, 1070, 1100, 2000, 2049, 3100]


def following(us: int) -> int | None:
    return next((event * SECOND for event in EVENTS if event * SECOND > us), None)


@pytest.fixture
def wall() -> ManualWall:
    return ManualWall()


@pytest.fixture
def clock(wall: ManualWall) -> ReplayClock:
    return ReplayClock(TIMELINE, wall=wall, next_event=following)


def seconds(clock: ReplayClock) -> float:
    return clock.now_us() / SECOND


def test_time_passes_at_the_pace_and_skips_what_is_closed(clock: ReplayClock, wall: ManualWall):
    assert seconds(clock) == 1000
    wall.advance(60)
    assert seconds(clock) == 1060
    clock.pace = 10
    wall.advance(4)
    assert seconds(clock) == 1100, "the close belongs to the session"
    wall.advance(1)
    assert seconds(clock) == 2010
    wall.advance(1e9)
    assert seconds(clock) == 3100
    assert clock.finished
    assert not clock.playing


def test_a_pause_stops_time_and_playing_goes_on_from_there(clock: ReplayClock, wall: ManualWall):
    wall.advance(5)
    clock.pause()
    wall.advance(1000)
    assert (seconds(clock), clock.playing) == (1005, False)
    clock.play()
    wall.advance(5)
    assert (seconds(clock), clock.playing) == (1010, True)


def test_a_change_of_pace_counts_from_now_on(clock: ReplayClock, wall: ManualWall):
    wall.advance(10)
    clock.pace = 5
    assert seconds(clock) == 1010
    wall.advance(2)
    assert seconds(clock) == 1020
    clock.pace = math.inf
    assert seconds(clock) == 1020, "time must pass before as fast as possible has got anywhere"
    wall.advance(1e-9)
    assert seconds(clock) == 3100


def test_at_the_end_playing_starts_again_where_the_clock_started(wall: ManualWall):
    clock = ReplayClock(TIMELINE, wall=wall, start=2000 * SECOND)
    wall.advance(1e6)
    assert clock.finished
    clock.play()
    assert (seconds(clock), clock.playing) == (2000, True)
    wall.advance(3)
    assert seconds(clock) == 2003


def test_a_seek_goes_both_ways_and_stays_within_the_timeline(clock: ReplayClock, wall: ManualWall):
    clock.seek(2020 * SECOND)
    assert seconds(clock) == 2020
    clock.seek(pd.Timestamp(1050, unit="s", tz="UTC"))
    assert seconds(clock) == 1050
    clock.seek(0)
    assert seconds(clock) == 1000
    clock.seek("2100-01-01")
    assert seconds(clock) == 3100
    clock.seek(1500 * SECOND)  # in the night: the position is kept, and time goes on at the open
    assert seconds(clock) == 1500
    wall.advance(1)
    assert seconds(clock) == 2001


def test_a_time_without_a_zone_is_the_exchanges(wall: ManualWall):
    opened, closed = to_us("2018-11-16 14:30"), to_us("2018-11-16 21:00")
    clock = ReplayClock(Timeline([(opened, closed)]), wall=wall, tz="America/New_York")
    clock.seek("2018-11-16 10:30")
    assert clock.now().isoformat() == "2018-11-16T10:30:00-05:00"
    assert "2018-11-16 10:30:00 EST playing at pace 1" in repr(clock)


def test_steps_go_to_the_next_event_the_end_of_its_bar_or_of_its_session(clock: ReplayClock):
    def steps(by: str, count: int, **options: int) -> list[float]:
        found = []
        for _ in range(count):
            clock.step(by, **options)
            found.append(seconds(clock))
        return found

    assert steps("event", 8) == [1010, 1070, 1100, 2000, 2049, 3100, 3100, 3100]
    assert not clock.playing
    clock.seek(0)
    # Bars of a minute end on whole minutes or with the session: 1020 is 17 minutes.
    assert steps("bar", 6) == [1020, 1080, 1100, 2040, 2050, 3100]
    clock.seek(0)
    assert steps("bar", 3, width_us=86_400 * SECOND) == [1100, 2050, 3100], (
        "a daily bar ends with the session"
    )
    clock.seek(0)
    assert steps("session", 4) == [1100, 2050, 3100, 3100]


def test_an_hour_ends_where_it_ends_on_the_exchanges_clock(wall: ManualWall):
    opened, closed = (to_us(time, "Asia/Kolkata") for time in ("2018-11-22 09:15", "2018-11-22 15:30"))
    clock = ReplayClock(
        Timeline([(opened, closed)]), wall=wall, tz="Asia/Kolkata", next_event=lambda us: us + 60 * SECOND
    )
    clock.step("bar", width_us=3600 * SECOND)
    assert clock.now().strftime("%H:%M") == "10:00"


def test_a_step_without_a_log_goes_to_the_end(wall: ManualWall):
    clock = ReplayClock(TIMELINE, wall=wall)
    clock.step()
    assert clock.finished


def test_the_seconds_until_a_moment_leave_out_closed_hours(clock: ReplayClock):
    clock.pace = 10
    assert clock.seconds_until(1050 * SECOND) == 5
    assert clock.seconds_until(2010 * SECOND) == 11
    assert clock.seconds_until(1000 * SECOND) == 0
    clock.pause()
    assert clock.seconds_until(1050 * SECOND) == math.inf
    clock.play()
    clock.pace = math.inf
    assert clock.seconds_until(1050 * SECOND) == 0


def test_what_a_clock_cannot_do_it_refuses_in_words(clock: ReplayClock):
    with pytest.raises(ClockError, match="one of event, bar, session, got 'week'"):
        clock.step("week")
    with pytest.raises(ClockError, match="width of a bar in microseconds, got 0"):
        clock.step("bar", width_us=0)
    for pace in (0, -1, math.nan, "fast", None):
        with pytest.raises(ClockError, match="a number above 0"):
            clock.pace = pace  # type: ignore[assignment]
    assert clock.pace == 1
    for when in ("soon", None, pd.NaT, [1], 3.5, True, "now", "10:30"):
        with pytest.raises(ClockError, match="A time: expected a date"):
            clock.seek(when)
    with pytest.raises(ClockError, match="a number above 0"):
        ReplayClock(TIMELINE, pace=0)
    for intervals in ([], [(2, 1)], [(0, 2), (1, 3)]):
        with pytest.raises(ClockError, match="A timeline"):
            Timeline(intervals)


@pytest.mark.parametrize(
    ("when", "iso"),
    [
        ("2018-11-16", "2018-11-16T05:00:00+00:00"),
        ("2018-11-16 10:30", "2018-11-16T15:30:00+00:00"),
        ("2018-11-16T10:30:00Z", "2018-11-16T10:30:00+00:00"),
        ("20181116", "2018-11-16T05:00:00+00:00"),
        ("16 Nov 2018", "2018-11-16T05:00:00+00:00"),
        (np.datetime64("2018-11-16"), "2018-11-16T05:00:00+00:00"),
        (pd.Timestamp("2018-11-16", tz="Asia/Tokyo"), "2018-11-15T15:00:00+00:00"),
        (np.int64(1), "1970-01-01T00:00:00.000001+00:00"),
        ("9999-01-01", "9999-01-01T05:00:00+00:00"),
    ],
)
def test_anything_that_names_a_moment_is_understood(when: object, iso: str):
    assert to_timestamp(to_us(when, "America/New_York")).isoformat() == iso


@pytest.mark.parametrize("when", ["2018-11-04 01:30", "2018-03-11 02:30"])
def test_a_local_time_that_there_was_twice_or_never_is_refused(when: str):
    with pytest.raises(ClockError):
        to_us(when, "America/New_York")


def test_offsets_follow_the_clocks_change():
    assert offset_us(to_us("2018-11-16"), "America/New_York") == -5 * 3600 * SECOND
    assert offset_us(to_us("2018-07-16"), "America/New_York") == -4 * 3600 * SECOND
    assert offset_us(0, "UTC") == 0


def test_listeners_hear_of_jumps_and_changes_until_they_leave(clock: ReplayClock, wall: ManualWall):
    jumps: list[tuple[int, int]] = []
    changes: list[float] = []
    leave_jumps = clock.on_jump(lambda before, after: jumps.append((before // SECOND, after // SECOND)))
    leave_changes = clock.on_change(lambda: changes.append(seconds(clock)))
    wall.advance(7)
    clock.seek(2000 * SECOND)
    clock.pause()
    clock.pace = 2
    assert jumps == [(1007, 2000)]
    assert changes == [2000, 2000, 2000]
    for leave in (leave_jumps, leave_jumps, leave_changes):
        leave()  # twice is fine
    clock.seek(1000 * SECOND)
    clock.play()
    assert len(jumps) == 1
    assert len(changes) == 3


def test_the_clock_stands_still_while_a_jump_is_carried_out(clock: ReplayClock, wall: ManualWall):
    during: list[float] = []

    def slow(before: int, after: int) -> None:
        wall.advance(30)
        during.append(seconds(clock))

    clock.on_jump(slow)
    clock.seek(1050 * SECOND)
    assert during == [1050]
    assert seconds(clock) == 1050
    wall.advance(1)
    assert seconds(clock) == 1051


def test_a_listener_that_fails_keeps_the_news_from_nobody(
    clock: ReplayClock, caplog: pytest.LogCaptureFixture
):
    heard: list[bool] = []
    clock.on_change(lambda: 1 / 0)
    clock.on_change(lambda: heard.append(True))
    clock.pause()
    assert heard == [True]
    assert "ZeroDivisionError" in caplog.text


def test_a_jump_that_fails_leaves_a_clock_that_goes(clock: ReplayClock, wall: ManualWall):
    leave = clock.on_jump(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.seek(2000 * SECOND)
    leave()
    wall.advance(1)
    assert seconds(clock) == 2001


def test_many_threads_may_move_one_clock(clock: ReplayClock):
    clock.pause()
    inside = threading.Barrier(4, timeout=5)
    seen: list[int] = []
    clock.on_jump(lambda before, after: (inside.wait(), seen.append(clock.now_us()))[0])
    threads = [threading.Thread(target=clock.seek, args=((1010 + i) * SECOND,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # While all four were under way the clock had the position of one of them, and kept it.
    assert set(seen) == {clock.now_us()}


INTERVALS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12, unique=True).map(
    lambda moments: list(zip(sorted(moments)[::2], sorted(moments)[1::2], strict=False))
)


@given(intervals=INTERVALS, moments=st.lists(st.integers(-10, 10_100), min_size=1))
def test_active_time_and_moments_are_each_others_inverse(
    intervals: list[tuple[int, int]], moments: list[int]
):
    timeline = Timeline(intervals)
    inside = sum(closed - opened for opened, closed in intervals)
    assert timeline.length == inside
    for moment in sorted(moments):
        active = timeline.active(moment)
        assert 0 <= active <= inside
        assert active == sum(max(min(moment, closed) - opened, 0) for opened, closed in intervals)
        back = timeline.at(active)
        assert timeline.active(back) == active
        assert back <= max(moment, timeline.start)
        if any(opened < moment <= closed for opened, closed in intervals):
            assert back == moment


@given(intervals=INTERVALS, steps=st.lists(st.floats(0, 50), max_size=20), pace=st.floats(0.01, 1e6))
def test_time_never_goes_back_by_itself(intervals: list[tuple[int, int]], steps: list[float], pace: float):
    wall = ManualWall()
    clock = ReplayClock(Timeline([(a * SECOND, b * SECOND) for a, b in intervals]), wall=wall, pace=pace)
    seen = [clock.now_us()]
    for step in steps:
        wall.advance(step)
        seen.append(clock.now_us())
        clock.pace = pace  # an anchor on the way changes nothing
        assert clock.now_us() == seen[-1]
    assert seen == sorted(seen)
    elapsed = min(sum(steps) * pace * SECOND, clock.timeline.length)
    # Each anchor cuts off less than a microsecond.
    assert clock.timeline.active(seen[-1]) == pytest.approx(elapsed, abs=len(steps) + 2)


def test_the_system_clock_tells_the_time_of_the_machine():
    clock = SystemClock()
    before = pd.Timestamp.now("UTC")
    assert before - pd.Timedelta(microseconds=1) <= clock.now() <= pd.Timestamp.now("UTC")
    assert all(isinstance(item, Clock) for item in (clock, ManualClock(), ReplayClock(TIMELINE)))
