"""What every stage has done, and what went wrong in it."""

import json
import logging
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from marketdash.pipeline import Graph
from marketdash.pipeline.health import COUNTERS, Health, Lag
from marketdash.schema import conform
from marketdash.testing.golden import few_instruments


def test_a_stage_counts_work_and_errors():
    health = Health()
    stage = health.stage("bars")
    assert health.stage("bars") is stage
    stage.worked(10, 0.5)
    stage.worked(5, 0.25)
    assert health.summary() == {
        "bars": {
            "rows": 15,
            "batches": 2,
            "seconds": 0.75,
            "lag_p50_ms": None,
            "lag_p99_ms": None,
            "queue": 0,
            "dropped": 0,
            "conflated": 0,
            "late": 0,
            "revised": 0,
            "quarantined": 0,
            "reasons": {},
            "errors": 0,
            "last_error": "",
        }
    }
    assert health.failing == []


def test_a_stage_is_failing_until_it_works_again():
    health = Health()
    stage = health.stage("bars")
    stage.failed(ValueError("no"))
    stage.failed(ValueError("still no"))
    assert health.failing == [stage]
    assert (stage.errors, stage.last_error) == (2, "ValueError: still no")
    stage.worked(1, 0.0)
    assert health.failing == []
    assert stage.errors == 2


def test_only_the_first_failure_in_a_row_fills_the_log(caplog: pytest.LogCaptureFixture):
    stage = Health().stage("bars")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            stage.failed(ValueError("no"))
        stage.worked(1, 0.0)
        stage.failed(ValueError("again"))
    assert [record.getMessage() for record in caplog.records] == [
        "bars failed: ValueError: no",
        "bars failed: ValueError: again",
    ]


# ---- lag


@pytest.mark.parametrize("scale", [3e-6, 1e-3, 0.2, 7.0, 5e4])
def test_percentiles_of_lag_are_right_within_a_few_percent(scale: float):
    delays, lag = scale * np.random.default_rng(1).lognormal(0, 0.7, 20_000), Lag()
    for delay in delays:
        lag.note(delay, 1.0)
    for share in (0.5, 0.99):
        assert lag.percentile(share) == pytest.approx(np.quantile(delays, share) * 1e3, rel=0.06)


def test_lag_is_that_of_the_last_minute():
    lag = Lag()
    for second in range(0, 60):
        lag.note(5.0, float(second))
    for second in range(60, 125):
        lag.note(0.001, float(second))
    assert lag.percentile(0.99) == pytest.approx(1.0, rel=0.06)
    lag.note(0.002, 10_000.0)
    assert lag.percentile(0.01) == pytest.approx(2.0, rel=0.06), (
        "after a long silence nothing of before counts"
    )
    lag.clear()
    assert lag.percentile(0.99) is None


@pytest.mark.parametrize("delay", [0.0, -1.0, float("nan"), float("inf"), 1e12])
def test_a_delay_that_cannot_be_stops_nothing(delay: float):
    lag = Lag()
    lag.note(delay, 1.0)
    assert lag.percentile(0.5) is not None


def test_a_lag_takes_the_same_room_however_much_it_has_noted():
    lag = Lag()
    room = len(lag._bins)
    for number in range(10_000):
        lag.note(number * 1e-4, float(number))
    assert len(lag._bins) == len(lag._before) == room < 400


def test_noting_a_lag_costs_next_to_nothing():
    health = Health()
    stage = health.stage("bars")

    def microseconds(arrived: float) -> float:
        health.arrival.at = arrived
        begin = time.thread_time()
        for _ in range(20_000):
            stage.worked(1, 0.0)
        return (time.thread_time() - begin) / 20_000 * 1e6

    without, with_lag = (min(microseconds(at) for _ in range(7)) for at in (0.0, time.perf_counter()))
    assert with_lag - without < 2.0, "0.25 µs where nobody else is at work"


def test_a_stage_notes_how_long_the_event_on_its_way_took():
    health = Health()
    stage = health.stage("bars")
    stage.worked(1, 0.0)
    assert stage.summary()["lag_p99_ms"] is None, "nobody knows when it came"
    health.arrival.at = time.perf_counter() - 2.0
    stage.worked(1, 0.0)
    assert stage.summary()["lag_p99_ms"] == pytest.approx(2000, rel=0.1)
    other = health.stage("other")
    other.worked(1, 0.0, time.perf_counter() - 4.0)
    assert other.summary()["lag_p50_ms"] == pytest.approx(4000, rel=0.1)


# ---- counters


class Counting:
    def __init__(self, **counts: object) -> None:
        self.given = counts

    def counts(self) -> dict[str, object]:
        return self.given


def test_what_a_stage_has_counted_is_asked_for_when_somebody_looks():
    health = Health()
    stage, first = health.stage("clean ticks"), Counting(quarantined={"absurd": 3, "none": 0}, late=1)
    stage.reads(first)
    first.given["late"] = 2
    stage.count("dropped", 7, "no room")
    stage.count("dropped", 1)
    totals, reasons = stage.counts()
    assert totals == dict.fromkeys(COUNTERS, 0) | {"quarantined": 3, "late": 2, "dropped": 8}
    assert reasons == {"absurd": 3, "no room": 7}
    stage.reads(Counting(queue=9, late=1))
    assert stage.counts()[0]["late"] == 3, "what the first one has counted stays"
    stage.reads(Counting(queue=1))
    assert (stage.counts()[0]["late"], stage.counts()[0]["queue"]) == (3, 1)
    assert health.totals["dropped"] == 8


def test_counters_of_steps_that_only_have_attributes_are_read():
    stage = Health().stage("x")
    step = Counting()
    step.rejected, step.late, step.counts = Counter({"impossible price": 2}), np.array([5, 6]), None
    stage.reads(step)
    totals, reasons = stage.counts()
    assert (totals["quarantined"], totals["revised"], totals["late"]) == (2, 5, 6)
    assert reasons == {"impossible price": 2}


async def test_the_graph_tells_what_its_steps_have_stopped_revised_and_refused():
    graph = Graph(few_instruments(1, ("24/7",)))
    start = pd.Timestamp("2018-11-24 10:00", tz="UTC")
    seconds = [0, 90, 10, 95, 96]
    graph.push(
        "ticks",
        conform(
            "ticks",
            {
                "time": [start + pd.Timedelta(seconds=second) for second in seconds],
                "known_at": [start + pd.Timedelta(seconds=100)] * 5,
                "instrument_id": [0] * 5,
                "price": [1.0, 1.0, 1.0, -1.0, float("nan")],
            },
        ),
    )
    summary = graph.health.summary()
    assert summary["clean ticks"]["quarantined"] == 2
    assert sum(summary["clean ticks"]["reasons"].values()) == 2
    assert summary["bars of ticks"]["revised"] >= 1
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_health_is_a_frame_for_people():
    health = Health()
    health.stage("bars").worked(3, 0.1)
    health.stage("a clean").count("dropped", 2, "no room")
    table = health.frame()
    assert table.index.tolist() == ["a clean", "bars"]
    assert table.loc["bars", "rows"] == 3
    assert table.loc["a clean", "dropped"] == 2
    assert {"queue", "lag_p50_ms", "lag_p99_ms", "errors", *COUNTERS} <= set(table.columns)
    assert Health().frame().empty


def test_two_owners_of_one_name_have_a_stage_each_and_a_name_is_free_again_when_its_owner_is_gone():
    health, first, second = Health(), Counting(), Counting()
    stages = [health.own_stage("mine", owner) for owner in (first, second)]
    assert [stage.name for stage in stages] == ["mine", "mine (2)"]
    stages[0].failed(ValueError("no"))
    stages[1].worked(1, 0.0)
    assert health.failing == [stages[0]]
    del first
    assert health.failing == [], "who is gone fails no more"
    for _ in range(10):
        third = Counting()
        assert health.own_stage("mine", third) is stages[0]
        del third
    assert set(health.stages) == {"mine", "mine (2)"}
