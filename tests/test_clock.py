"""Clocks and timelines."""

import math
import threading
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.clock import Clock, ReplayClock, SystemClock, Timeline, offset_us, to_timestamp, to_us
from marketdash.errors import ClockError

SECOND, MINUTE = 1_000_000, 60_000_000
NEW_YORK = "America/New_York"
# Two sessions of ten minutes, an hour of closed doors between them.
FIRST, SECOND_OPEN = to_us("2018-11-16 09:30", NEW_YORK), to_us("2018-11-16 10:40", NEW_YORK)
DAYS = Timeline([(FIRST, FIRST + 10 * MINUTE), (SECOND_OPEN, SECOND_OPEN + 10 * MINUTE)])
EVENTS = [FIRST + 5 * SECOND, FIRST + 90 * SECOND, FIRST + 120 * SECOND, SECOND_OPEN + 1, DAYS.end - SECOND]


class Wall:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


def replay(wall: Wall, **options: Any) -> ReplayClock:
    given = {"tz": NEW_YORK, "next_event": lambda us: next((event for event in EVENTS if event > us), None)}
    return ReplayClock(DAYS, wall=wall, **(given | options))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    # Gaps and lengths may be nought: sessions may touch.
    steps = draw(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
    intervals, moment = [], draw(st.integers(0, 10**15))
    for gap, length in steps:
        intervals.append((moment + gap, moment + gap + length))
        moment += gap + length
    return Timeline(intervals)


@settings(deadline=None)
@given(timelines(), st.data())
def test_active_time_and_moments_are_inverse(timeline: Timeline, data: st.DataObject):
    active = data.draw(st.integers(0, timeline.length))
    us = timeline.at(active)
    assert timeline.active(us) == active
    assert any(opened <= us <= closed for opened, closed in zip(timeline.opens, timeline.closes, strict=True))
    moment = data.draw(st.integers(timeline.start - 5, timeline.end + 5))
    assert timeline.at(timeline.active(moment)) <= max(moment, timeline.start)
    slow = sum(
        max(0, min(moment, int(closed)) - int(opened))
        for opened, closed in zip(timeline.opens, timeline.closes, strict=True)
    )
    assert timeline.active(moment) == slow


def test_closed_hours_are_no_active_time():
    assert DAYS.length == 20 * MINUTE
    assert DAYS.active(FIRST + 10 * MINUTE) == DAYS.active(SECOND_OPEN) == 10 * MINUTE
    assert DAYS.at(10 * MINUTE) == FIRST + 10 * MINUTE
    assert DAYS.at(10 * MINUTE + 1) == SECOND_OPEN + 1
    assert (DAYS.at(-5), DAYS.at(10**18)) == (DAYS.start, DAYS.end)


@pytest.mark.parametrize("intervals", [[], [(5, 1)], [(0, 10), (9, 20)], [(10, 20), (0, 5)]])
def test_intervals_that_are_none_backward_or_overlap_are_refused(intervals: list[tuple[int, int]]):
    with pytest.raises(ClockError, match="A timeline"):
        Timeline(intervals)


def test_a_replay_plays_at_its_pace_and_skips_closed_hours(wall: Wall):
    clock = replay(wall, pace=60)
    assert clock.now_us() == FIRST
    wall.seconds += 1
    assert clock.now_us() == FIRST + MINUTE
    wall.seconds += 9.5
    assert clock.now_us() == SECOND_OPEN + MINUTE // 2
    assert clock.playing
    wall.seconds += 3600
    assert clock.now_us() == DAYS.end
    assert clock.finished
    assert not clock.playing


def test_a_paused_replay_stands_still_and_goes_on_where_it_stood(wall: Wall):
    clock = replay(wall)
    wall.seconds += 3
    clock.pause()
    wall.seconds += 100
    assert clock.now_us() == FIRST + 3 * SECOND
    assert not clock.playing
    clock.play()
    assert clock.now_us() == FIRST + 3 * SECOND
    wall.seconds += 2
    assert clock.now_us() == FIRST + 5 * SECOND


def test_a_replay_may_begin_paused(wall: Wall):
    clock = replay(wall, playing=False, pace=math.inf)
    wall.seconds += 5
    assert clock.now_us() == FIRST


def test_another_pace_holds_from_now_on_and_loses_no_time(wall: Wall):
    clock = replay(wall)
    wall.seconds += 4
    clock.pace = 10
    assert clock.pace == 10
    wall.seconds += 2
    assert clock.now_us() == FIRST + 24 * SECOND
    clock.pace = 0.5
    wall.seconds += 2
    assert clock.now_us() == FIRST + 25 * SECOND


def test_an_infinite_pace_is_at_the_end_as_soon_as_time_passes(wall: Wall):
    clock = replay(wall, pace=math.inf)
    assert clock.now_us() == FIRST
    assert clock.seconds_until(DAYS.end) == 0.0
    wall.seconds += 1e-6
    assert clock.now_us() == DAYS.end
    assert clock.finished


def test_a_wall_that_goes_backward_does_not_take_the_market_along(wall: Wall):
    clock = replay(wall)
    wall.seconds -= 5
    assert clock.now_us() == FIRST


@pytest.mark.parametrize("pace", [0, -1, math.nan, -math.inf, "fast", None, [1]])
def test_a_pace_that_is_no_pace_is_refused_with_what_to_do(pace: Any, wall: Wall):
    with pytest.raises(ClockError, match=r"a number above 0.*clock\.pause\(\)"):
        replay(wall, pace=pace)
    clock = replay(wall)
    with pytest.raises(ClockError):
        clock.pace = pace
    assert clock.pace == 1.0


def test_a_seek_goes_both_ways_and_reads_times_in_the_exchanges_zone(wall: Wall):
    clock = replay(wall)
    jumps: list[tuple[int, int]] = []
    remove = clock.on_jump(lambda before, after: jumps.append((before, after)))
    wall.seconds += 1
    clock.seek("2018-11-16 10:45")
    assert clock.now() == pd.Timestamp("2018-11-16 10:45", tz=NEW_YORK)
    assert str(clock.now().tz) == NEW_YORK
    clock.seek(pd.Timestamp("2018-11-16 14:31", tz="UTC"))
    assert clock.now_us() == FIRST + MINUTE
    wall.seconds += 1
    assert clock.now_us() == FIRST + 61 * SECOND
    remove()
    remove()
    clock.seek(FIRST)
    assert jumps == [
        (FIRST + SECOND, SECOND_OPEN + 5 * MINUTE),
        (SECOND_OPEN + 5 * MINUTE, FIRST + MINUTE),
    ]


def test_seeks_and_starts_stay_within_the_timeline(wall: Wall):
    clock = replay(wall, start=0)
    assert clock.now_us() == clock.first == DAYS.start
    clock.seek("2030-01-01")
    assert clock.now_us() == DAYS.end
    clock.seek("1990-01-01")
    assert clock.now_us() == DAYS.start
    assert replay(wall, start=2**62).finished


@pytest.mark.parametrize("when", ["10:30", "noon", "", None, math.nan, 1.5, True, pd.NaT, object()])
def test_a_seek_to_no_moment_is_refused_and_moves_nothing(when: Any, wall: Wall):
    clock = replay(wall)
    with pytest.raises(ClockError, match="A time: expected a date"):
        clock.seek(when)
    assert clock.now_us() == FIRST


def test_the_clock_stands_still_while_a_jump_is_under_way(wall: Wall):
    clock = replay(wall)
    seen: list[int] = []

    def slow(before: int, after: int) -> None:
        wall.seconds += 30
        seen.append(clock.now_us())

    clock.on_jump(slow)
    clock.seek(SECOND_OPEN)
    assert seen == [SECOND_OPEN]
    assert clock.now_us() == SECOND_OPEN
    wall.seconds += 1
    assert clock.now_us() == SECOND_OPEN + SECOND


def test_a_jump_that_fails_does_not_stop_the_clock(wall: Wall):
    clock = replay(wall)

    def broken(before: int, after: int) -> None:
        raise RuntimeError("no")

    remove = clock.on_jump(broken)
    with pytest.raises(RuntimeError):
        clock.seek(SECOND_OPEN)
    remove()
    wall.seconds += 1
    assert clock.now_us() == SECOND_OPEN + SECOND


def test_a_step_by_event_pauses_and_goes_from_one_to_the_next_and_to_the_end(wall: Wall):
    clock = replay(wall)
    visited = []
    for _ in range(len(EVENTS) + 1):
        clock.step()
        wall.seconds += 10
        visited.append(clock.now_us())
    assert visited == [*EVENTS, DAYS.end]
    assert not clock.playing


def test_a_step_by_bar_goes_to_the_end_of_the_bar_that_holds_the_next_event(wall: Wall):
    clock = replay(wall)
    visited = []
    for _ in range(4):
        clock.step("bar")
        visited.append(clock.now_us())
    # An event on the boundary closes its bar: the second step has already passed it.
    assert visited == [FIRST + MINUTE, FIRST + 2 * MINUTE, SECOND_OPEN + MINUTE, DAYS.end]


def test_a_wide_bar_ends_with_its_session(wall: Wall):
    clock = replay(wall)
    clock.step("bar", width_us=60 * MINUTE)
    assert clock.now_us() == FIRST + 10 * MINUTE
    clock.step("bar", width_us=1440 * MINUTE)
    assert clock.now_us() == DAYS.end


def test_bars_lie_on_the_exchanges_own_clock(wall: Wall):
    opened = to_us("2018-11-16 09:15", "Asia/Kolkata")
    clock = ReplayClock(
        Timeline([(opened, opened + 375 * MINUTE)]),
        tz="Asia/Kolkata",
        wall=wall,
        next_event=lambda us: us + 1,
    )
    clock.step("bar", width_us=60 * MINUTE)
    assert f"{clock.now():%H:%M}" == "10:00"


def test_a_step_by_session_goes_to_the_close(wall: Wall):
    clock = replay(wall)
    clock.step("session")
    assert clock.now_us() == FIRST + 10 * MINUTE
    clock.step("session")
    assert clock.now_us() == DAYS.end


def test_without_a_log_a_step_goes_to_the_end(wall: Wall):
    clock = replay(wall, next_event=None)
    clock.step()
    assert clock.finished


@pytest.mark.parametrize("options", [{"by": "tick"}, {"by": None}, {"width_us": 0}, {"width_us": -1}])
def test_a_step_of_no_kind_is_refused_and_pauses_nothing(options: dict[str, Any], wall: Wall):
    clock = replay(wall)
    with pytest.raises(ClockError, match=r"clock\.step"):
        clock.step(**options)
    assert clock.playing


def test_playing_again_from_the_end_starts_where_the_clock_started(wall: Wall):
    clock = replay(wall, start=FIRST + MINUTE, pace=60)
    wall.seconds += 1000
    assert clock.finished
    clock.play()
    assert clock.now_us() == FIRST + MINUTE
    wall.seconds += 1
    assert clock.now_us() == FIRST + 2 * MINUTE


def test_seconds_until_a_moment_are_those_of_the_wall(wall: Wall):
    clock = replay(wall, pace=60)
    assert clock.seconds_until(FIRST) == clock.seconds_until(0) == 0.0
    assert clock.seconds_until(FIRST + MINUTE) == 1.0
    assert clock.seconds_until(SECOND_OPEN + MINUTE) == 11.0
    wall.seconds += 4
    assert clock.seconds_until(SECOND_OPEN + MINUTE) == 7.0
    clock.pause()
    assert clock.seconds_until(DAYS.end) == math.inf
    assert clock.seconds_until(FIRST) == 0.0


def test_listeners_hear_of_every_change_and_one_that_fails_costs_only_itself(
    wall: Wall, caplog: pytest.LogCaptureFixture
):
    clock = replay(wall)
    heard: list[tuple[bool, float]] = []
    clock.on_change(lambda: 1 / 0)
    clock.on_change(lambda: heard.append((clock.playing, clock.pace)))
    clock.pause()
    clock.pace = 2
    clock.play()
    clock.seek(SECOND_OPEN)
    assert heard == [(False, 1.0), (False, 2.0), (True, 2.0), (True, 2.0)]
    assert caplog.text.count("A listener of the clock failed") == 4


def test_reading_the_time_needs_no_lock(wall: Wall):
    clock = replay(wall)
    times: list[int] = []

    def ask(before: int, after: int) -> None:
        reader = threading.Thread(target=lambda: times.append(clock.now_us()), daemon=True)
        reader.start()
        reader.join(10)

    clock.on_jump(ask)
    clock.seek(SECOND_OPEN)
    assert times == [SECOND_OPEN]


def test_a_replay_says_when_it_is_and_how_it_goes(wall: Wall):
    clock = replay(wall, pace=60)
    assert repr(clock) == "<ReplayClock 2018-11-16 09:30:00 EST playing at pace 60>"


def test_both_clocks_are_clocks_and_the_systems_does_not_go_back(wall: Wall):
    system = SystemClock()
    assert isinstance(system, Clock)
    assert isinstance(replay(wall), Clock)
    first = system.now_us()
    assert first <= to_us(system.now()) <= system.now_us()
    assert str(system.now().tz) == "UTC"


zones = st.sampled_from(["UTC", NEW_YORK, "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe"])


@settings(deadline=None)
@given(st.integers(-(10**15), 4 * 10**15), zones)
def test_moments_come_back_from_timestamps_as_they_went(us: int, tz: str):
    stamp = to_timestamp(us, tz)
    assert to_us(stamp) == us
    assert to_us(stamp.isoformat()) == us
    wall = stamp.tz_localize(None)
    assert to_us(wall.tz_localize("UTC")) == us + offset_us(us, tz)


def test_times_without_a_zone_follow_the_change_of_the_clocks():
    hour = 3_600_000_000
    assert to_us("2018-03-12 09:30", NEW_YORK) - to_us("2018-03-09 09:30", NEW_YORK) == 71 * hour
    assert to_us("2018-11-05 09:30", NEW_YORK) - to_us("2018-11-02 09:30", NEW_YORK) == 73 * hour
    assert offset_us(to_us("2018-07-01"), NEW_YORK) == -4 * hour
    assert offset_us(to_us("2018-12-01"), NEW_YORK) == -5 * hour
    assert offset_us(to_us("2018-12-01"), "Asia/Kolkata") == 5.5 * hour


@pytest.mark.parametrize("when", ["2018-11-04 01:30", "2018-03-11 02:30"])
def test_a_time_that_the_clocks_show_twice_or_never_is_refused(when: str):
    with pytest.raises(ClockError, match="A time"):
        to_us(when, NEW_YORK)


def test_what_carries_a_zone_keeps_it_and_numbers_are_microseconds():
    assert to_us("2018-11-16T10:30:00+01:00", NEW_YORK) == to_us("2018-11-16 09:30")
    assert to_us(pd.Timestamp("2018-11-16 10:30:00.000000999", tz="UTC")) == to_us("2018-11-16 10:30")
    assert to_us(7, NEW_YORK) == 7
    assert to_us(pd.Timestamp("2018-11-16").date()) == to_us("2018-11-16")
    assert to_us("16 Nov 2018 10:30") == to_us("2018-11-16 10:30")


def test_many_threads_may_move_one_clock(wall: Wall):
    clock = replay(wall, playing=False)
    inside, seen = threading.Barrier(4, timeout=60), []

    def jump(before: int, after: int) -> None:
        inside.wait()
        seen.append(clock.now_us())

    clock.on_jump(jump)
    threads = [threading.Thread(target=clock.seek, args=(FIRST + i * SECOND,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # While all four were under way the clock had the position of one of them, and it kept that one.
    assert set(seen) == {clock.now_us()}


@given(steps=st.lists(st.floats(0, 2000), max_size=20), pace=st.floats(0.01, 1e6))
def test_however_time_is_looked_at_it_passes_alike_and_never_back(steps: list[float], pace: float):
    wall = Wall()
    clock, looked_at = replay(wall, pace=pace), [FIRST]
    for step in steps:
        wall.seconds += step
        looked_at.append(clock.now_us())
        clock.pace = pace  # the position is taken anew, and changes nothing
        assert clock.now_us() == looked_at[-1]
    assert looked_at == sorted(looked_at)
    passed = min(sum(steps) * pace * SECOND, DAYS.length)
    # Each look cuts off less than a microsecond; the wall's own seconds are no exact numbers either.
    assert DAYS.active(looked_at[-1]) == pytest.approx(passed, rel=1e-6, abs=len(steps) + 2 + pace)
