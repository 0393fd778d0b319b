"""What every stage has done, and what went wrong in it."""

import logging

import pytest

from marketdash.pipeline.health import Health


def test_a_stage_counts_work_and_errors():
    health = Health()
    stage = health.stage("bars")
    assert health.stage("bars") is stage
    stage.worked(10, 0.5)
    stage.worked(5, 0.25)
    assert health.summary() == {
        "bars": {"rows": 15, "batches": 2, "seconds": 0.75, "errors": 0, "last_error": ""}
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
