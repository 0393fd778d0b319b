"""The same log gives the same frames, bit for bit: however it is cut, at whatever pace, wherever one has been."""

import asyncio
import math
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdash.clock import ReplayClock
from marketdash.log import SessionLog
from marketdash.market import Market
from marketdash.pipeline import Graph
from marketdash.sources.replay import ReplaySource
from marketdash.testing.clock import ManualWall, caught_up, wait_caught_up
from marketdash.testing.golden import (
    GOLDEN,
    assert_same,
    few_instruments,
    golden,
    random_bars,
    random_quotes,
    random_ticks,
    snapshot,
    write_log,
)

INDICATORS = [
    ("SMA(5)", "1min"),
    ("RSI(3)", "5min"),
    ("relative_strength(3)", "1min"),
    ("day_vwap", "15min"),
    ("EMA(4)", "1d"),
]
KINDS = ("ticks and quotes", "minutes", "days and ticks", "ticks and minutes", "all widths")
ROUGH = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SessionLog]:
    folder = tmp_path_factory.mktemp("logs")
    # New York's half day, beside London, which goes on, and something that never closes.
    universe = few_instruments(6, ("XNYS", "XLON", "24/7"))
    day = ("2018-11-23 17:10", "2018-11-23 18:40")
    ticks = random_ticks(universe, *day, rows=1_500, seed=1)
    quotes = random_quotes(universe, *day, rows=700, seed=2)
    minutes = random_bars(universe, "1min", *day, seed=3)
    fives = random_bars(universe, "5min", *day, seed=4)
    days = random_bars(universe, "1d", "2018-11-19 12:00", "2018-11-23 20:00", seed=5)
    bad = ticks.iloc[::97].assign(price=-1.0)
    topics = {
        "ticks and quotes": {"ticks": pd.concat([ticks, bad]), "quotes": quotes},
        "minutes": {"bars": minutes},
        "days and ticks": {"bars": days, "ticks": ticks},
        "ticks and minutes": {"ticks": ticks, "bars": minutes},
        "all widths": {"quotes": quotes, "bars": pd.concat([minutes, fives, days]), "ticks": ticks.iloc[::3]},
    }
    assert set(topics) == set(KINDS)
    return {kind: write_log(folder / kind.replace(" ", "-"), universe, topics[kind]) for kind in KINDS}


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest, logs: dict[str, SessionLog]) -> SessionLog:
    return logs[request.param]


def opened(
    log: SessionLog, wall: ManualWall, *, rows: int = 8192, pace: float = 1.0, playing: bool = True
) -> Market:
    source = ReplaySource(log, start=log.timeline.start, pace=pace, rows=rows, wall=wall, playing=playing)
    market = Market(source).start()
    for indicator, width in INDICATORS:
        if width in market.widths:
            market.derive(indicator, width)
    return market


async def sought(log: SessionLog, moment: int) -> dict[str, pd.DataFrame]:
    """What a market shows that went straight to a moment."""
    with opened(log, ManualWall(), playing=False) as market:
        market.clock.seek(moment)
        return snapshot(market)


async def test_the_end_is_the_same_however_the_log_is_cut(log: SessionLog):
    expected = await sought(log, log.timeline.end)
    assert len(expected["readings"]) > 100, "a test of readings without readings tests nothing"
    for rows in (1, 13, 100_000):
        wall = ManualWall()
        with opened(log, wall, rows=rows, pace=math.inf) as market:
            wall.advance(1)
            await caught_up(market)
            assert_same(expected, snapshot(market), f"{rows} rows a batch")


@pytest.mark.parametrize("steps", [2, 17])
async def test_the_end_is_the_same_whatever_the_pace(log: SessionLog, steps: int):
    expected = await sought(log, log.timeline.end)
    wall = ManualWall()
    with opened(log, wall, pace=60) as market:
        for _ in range(steps):
            wall.advance(log.timeline.length / 60e6 / steps)
            await caught_up(market)
        market.clock.pace = math.inf  # what rounding has left
        wall.advance(1)
        await caught_up(market)
        assert market.clock.finished
        assert_same(expected, snapshot(market), f"in {steps} steps")


COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.floats(0, 0.5)),
        st.tuples(st.just("seek"), st.floats(0, 1)),
        st.tuples(st.just("pace"), st.sampled_from([1.0, 60.0, 1e4])),
        st.tuples(st.sampled_from(["pause", "play"]), st.none()),
        st.tuples(st.just("step"), st.sampled_from(["event", "bar", "session"])),
    ),
    max_size=8,
)


def obey(clock: ReplayClock, wall: ManualWall, command: str, argument: object) -> None:
    if command == "advance":
        wall.advance(argument * clock.timeline.length / 1e6 / clock.pace)
    elif command == "seek":
        clock.seek(clock.timeline.at(int(argument * clock.timeline.length)))
    elif command == "pace":
        clock.pace = argument
    elif command == "step":
        clock.step(argument)
    else:
        getattr(clock, command)()


@pytest.mark.parametrize("kind", KINDS)
@ROUGH
@given(commands=COMMANDS, rows=st.sampled_from([3, 50, 8192]))
def test_what_is_shown_depends_on_the_moment_alone(
    kind: str, logs: dict[str, SessionLog], commands: list, rows: int
):
    async def wander() -> None:
        log, wall = logs[kind], ManualWall()
        with opened(log, wall, rows=rows) as market:
            for command, argument in commands:
                obey(market.clock, wall, command, argument)
                await caught_up(market)
            market.clock.pause()
            expected = await sought(log, market.clock.now_us())
            assert_same(expected, snapshot(market), f"after {commands}")

    asyncio.run(wander())


async def test_a_pause_or_a_seek_while_batches_are_on_their_way_changes_nothing(log: SessionLog):
    wall, rng = ManualWall(), np.random.default_rng(0)
    with opened(log, wall, rows=2, pace=1e4) as market:
        for _ in range(12):
            wall.advance(rng.uniform(0, 0.1) * log.timeline.length / 1e10)
            for _ in range(rng.integers(0, 30)):
                await asyncio.sleep(0)  # some batches are out, others are not
            obey(market.clock, wall, "seek", rng.uniform(0, 1))
        await caught_up(market)
        market.clock.pause()
        assert_same(await sought(log, market.clock.now_us()), snapshot(market))


@pytest.mark.parametrize("kind", ["ticks and quotes", "all widths"])
def test_seeks_from_other_threads_while_playing_never_show_the_future_nor_lose_a_row(
    kind: str, logs: dict[str, SessionLog]
):
    log = logs[kind]
    source = ReplaySource(log, start=log.timeline.start, pace=20_000, rows=5)
    with Market(source).start() as market:
        for indicator, width in INDICATORS:
            market.derive(indicator, width)

        def seeker(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(8):
                market.clock.seek(log.timeline.at(int(rng.uniform(0, 1) * log.timeline.length)))

        threads = [threading.Thread(target=seeker, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        market.clock.pause()
        wait_caught_up(market)
        shown, moment = snapshot(market), market.clock.now_us()
    assert_same(asyncio.run(sought(log, moment)), shown)
    assert not market.health.failing


def test_a_play_from_another_thread_wakes_a_paused_replay(logs: dict[str, SessionLog]):
    source = ReplaySource(logs["minutes"], start=logs["minutes"].timeline.start, pace=math.inf, playing=False)
    with Market(source).start() as market:
        heard = threading.Event()
        market.stream("bars", width="1min").sink(lambda _: heard.set())
        assert not heard.wait(0.2)
        market.clock.play()
        assert heard.wait(60), "the replay slept on although its clock was started"


async def test_a_bar_that_ends_without_an_event_is_read_when_it_ends(tmp_path: Path):
    universe = few_instruments(1, ("24/7",))
    rows = {
        "time": pd.to_datetime(
            ["2018-11-23 10:00:10", "2018-11-23 10:01:10", "2018-11-23 10:30:00"], utc=True
        ),
        "instrument_id": [0, 0, 0],
        "price": [1.0, 2.0, 3.0],
    }
    log = write_log(tmp_path / "quiet", universe, {"ticks": rows})
    wall = ManualWall()
    with Market(ReplaySource(log, wall=wall, pace=1.0)).start() as market:
        market.derive("returns(1)", "1min")
        wall.advance(60 + 49)
        await caught_up(market)
        assert market.frame("readings").empty
        wall.advance(2)
        await caught_up(market)
        assert market.frame("readings")["value"].tolist() == [1.0]
        assert market.frame("readings")["known_at"].iloc[0] == pd.Timestamp("2018-11-23 10:02", tz="UTC")


@pytest.mark.parametrize("name", GOLDEN)
async def test_the_shipped_sessions_are_the_same_however_they_are_played(name: str):
    log = golden(name)
    # A quarter of each, so that single rows do not take minutes.
    moment = log.timeline.at(log.timeline.length // (20 if name == "us-2010-daily" else 8))
    with Market(ReplaySource(log, start=moment, playing=False)).start() as market:
        expected = snapshot(market)
    for rows, parts in ((11, 1), (997, 7), (100_000, 29)):
        wall = ManualWall()
        with Market(
            ReplaySource(log, start=log.timeline.start, pace=1e6, rows=rows, wall=wall)
        ).start() as market:
            market.clock.seek(log.timeline.at(int(0.7 * log.timeline.active(moment))))
            market.clock.seek(log.timeline.at(int(0.2 * log.timeline.active(moment))))
            for _ in range(parts):
                wall.advance(0.8 * log.timeline.active(moment) / 1e12 / parts * 0.99)
                await caught_up(market)
            market.clock.pause()
            market.clock.seek(moment)
            assert_same(expected, snapshot(market), f"{name}, {rows} rows a batch")


async def test_readings_are_those_of_a_chart_of_the_whole_history():
    log = golden("us-2018-11-minute")
    specs = [("SMA(20)", "5min"), ("RSI(14)", "15min"), ("ATR(5)", "1min"), ("returns(2)", "1h")]
    with Market(ReplaySource(log, start=log.timeline.start, playing=False)).start() as market:
        for spec, width in specs:
            market.derive(spec, width)
        market.clock.seek("2018-11-14 16:00")
        readings = market.frame("readings")
        for spec, width in specs:
            from marketdash.indicators import table

            for symbol in market.universe.symbols:  # sparse ones, too
                mine = readings[(readings["symbol"] == symbol) & (readings["width"] == width)]
                chart = table(spec, market.history(width, [symbol]))[symbol].dropna()
                assert mine.index.equals(chart.index), f"{spec} {width} of {symbol}"
                # What an exponential average has forgotten weighs less than a millionth.
                np.testing.assert_allclose(mine["value"], chart, rtol=2e-6)
        assert len(readings) > 10_000


async def test_the_order_in_which_a_graph_is_told_the_time_does_not_matter(logs: dict[str, SessionLog]):
    log = logs["ticks and quotes"]
    results = []
    for looks in (1, 13):
        graph = Graph(log.universe)
        from marketdash.indicators import parse

        graph.add_indicator(parse("SMA(3)"), "1min", log.timeline.start)
        source = ReplaySource(log)
        for i in range(1, looks + 1):
            moment = log.timeline.start + (log.timeline.end - log.timeline.start) * i // looks
            for topic, batch in source.take(moment):
                graph.push(topic, batch)
            graph.advance(source.complete_until(moment))
        results.append(graph.frames["readings"].table().to_pandas())
    pd.testing.assert_frame_equal(*results, check_exact=True)
    assert len(results[0]) > 100
