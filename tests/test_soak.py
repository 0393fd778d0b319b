"""Long runs: memory, threads and lag stay where they are. `make soak` runs them for SOAK_SECONDS."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from statistics import median

import psutil
import pytest
from streamz.sinks import _global_sinks

import marketdash as md
from marketdash.market import Market
from marketdash.market.memory import release

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
ALLOWED_MB = 40.0


def resident_mb() -> float:
    gc.collect()
    release()
    return psutil.Process().memory_info().rss / 1e6


def test_replays_that_come_and_go_leave_nothing_behind() -> None:
    def visit() -> None:
        session = random.choice(("us-2010-daily", "us-2018-11-minute", "es-2013-09-ticks"))
        with md.open(f"replay:{session}", pace=3600) as market:
            timeline = market.clock.timeline
            for _ in range(3):
                market.clock.seek(timeline.at(random.randrange(timeline.length)))
            market.stream("bars").map(len).sink(lambda rows: None)
            assert len(market.frame("last"))

    def level() -> float:
        # What is resident swings by the size of the last market, so several looks make one.
        looks = []
        for _ in range(5):
            visit()
            looks.append(resident_mb())
        return median(looks)

    for _ in range(15):
        visit()
    before, threads, sinks = level(), threading.active_count(), len(_global_sinks)
    end, visits = time.monotonic() + SECONDS / 3, 0
    while time.monotonic() < end:
        visit()
        visits += 1
    assert visits
    assert threading.active_count() <= threads
    assert len(_global_sinks) == sinks
    growth = level() - before
    assert growth < ALLOWED_MB, f"memory grew by {growth:.0f} MB over {visits} visits"


def test_a_full_market_keeps_up_and_stays_in_its_bounds() -> None:
    with md.open("simulated", rate=2500, instruments=330) as market:
        market.derive("SMA(20)", "1min").derive("RSI(14)", "1min")
        time.sleep(min(10.0, SECONDS / 10))
        before, rows = resident_mb(), market.health.stage("clean ticks").rows
        begin, worst = time.monotonic(), 0.0
        while time.monotonic() - begin < SECONDS / 3:
            time.sleep(0.25)
            newest = market.graph.last.times("time").max()
            worst = max(worst, (market.clock.now_us() - int(newest)) / 1e6)
        elapsed = time.monotonic() - begin
        handled = market.health.stage("clean ticks").rows - rows
        assert market.status.state == "running"
        assert not market.health.failing
        assert worst < 2.0, f"prices were {worst:.1f} s old"
        # Three messages in ten or so are trades; the rate is the sum.
        assert handled / elapsed > 2500 * 0.2
        # What rings may still grow by while they fill; afterwards they are full for ever.
        bound = sum(ring.limit * len(ring.total) * 112 for ring in market.graph.store.rings.values()) / 1e6
        assert market.graph.store.nbytes / 1e6 <= bound
        growth = resident_mb() - before
        assert growth < ALLOWED_MB + bound * min(1.0, elapsed / 3600), f"memory grew by {growth:.0f} MB"


def test_a_failing_listener_does_not_slow_the_market_down() -> None:
    async def run() -> Market:
        market = md.open("replay:es-2013-09-ticks", start="2013-09-03 08:00", pace=600)
        market.stream("ticks", arrow=True).map(lambda batch: 1 / 0).sink(print)
        end = asyncio.get_running_loop().time() + SECONDS / 3
        worst = 0.0
        while asyncio.get_running_loop().time() < end:
            begin = asyncio.get_running_loop().time()
            await asyncio.sleep(0.05)
            worst = max(worst, asyncio.get_running_loop().time() - begin - 0.05)
            if market.clock.finished:
                market.clock.seek("2013-09-03 08:00")
                market.clock.play()
        market.close()
        assert worst < 1.0, f"the loop stood still for {worst:.2f} s"
        return market

    market = asyncio.run(run())
    stage = next(stage for name, stage in market.health.stages.items() if name.startswith("listeners"))
    assert stage.errors > 10
    assert "ZeroDivisionError" in stage.last_error
    assert market.health.stage("clean ticks").rows > 1000
