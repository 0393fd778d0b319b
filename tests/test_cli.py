"""The command line, run as a user runs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from serving import COMMAND, ROOT, marketdash_serve

# A process that imports everything and compiles, on a machine whose cores are taken.
pytestmark = pytest.mark.timeout(300)

OFFLINE = {"MARKETDASH_YAHOO_URL": "http://127.0.0.1:9"}  # the discard port: refused at once


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **OFFLINE, "COLUMNS": "200", **env},
    )


def test_sessions_lists_what_can_be_replayed() -> None:
    result = run("sessions")
    assert result.returncode == 0, result.stderr
    for name in ("us-2010-daily", "us-2018-11-minute", "es-2013-09-ticks"):
        assert name in result.stdout


def test_doctor_finds_everything_in_order() -> None:
    result = run("doctor", MARKETDASH_PORT="0")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "whole and in order" in result.stdout
    assert "All is well" in result.stdout
    told = " ".join(result.stdout.split())  # whatever the table's width
    assert "replays us-2010-daily instead" in told, "the doctor must say that Yahoo cannot be reached"


def test_doctor_names_a_damaged_session_and_a_broken_plugin(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "us-2018-11-minute", tmp_path / "sessions" / "torn")
    with (tmp_path / "sessions" / "torn" / "bars.parquet").open("r+b") as file:
        file.truncate(1000)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    result = run(
        "doctor",
        MARKETDASH_PORT="0",
        MARKETDASH_SESSIONS=str(tmp_path / "sessions"),
        MARKETDASH_PLUGINS=str(tmp_path / "plugins"),
    )
    assert result.returncode == 1
    assert "torn" in result.stdout
    assert "bars.parquet" in result.stdout
    assert "nothing_of_that_name" in result.stdout


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port), "--source", "replay:us-2018-11-minute")
    assert result.returncode == 2
    assert str(port) in result.stderr
    assert f"--port {port + 1}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("replay:us-2018-11-minut", "us-2018-11-minute"),
        ("simulatd", "simulated"),
        ("yahoo:AAPL", "Yahoo"),
    ],
)
def test_a_source_that_cannot_be_opened_ends_in_a_sentence(source: str, told: str) -> None:
    result = run("serve", "--port", "0", "--source", source)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_setting_that_is_wrong_ends_in_a_sentence() -> None:
    result = run("serve", MARKETDASH_DISPLAY_HZ="often")
    assert result.returncode == 2
    assert "display_hz" in result.stderr
    assert "often" in result.stderr
    assert "Traceback" not in result.stderr


def test_auto_replays_when_yahoo_is_out_of_reach_and_says_why() -> None:
    with marketdash_serve(**OFFLINE) as served:
        report = served.health()
    assert report["default"] == "replay:us-2010-daily"
    assert report["state"] == "idle"
    assert "Yahoo" in report["message"]
    assert any("recorded year" in line for line in served.lines)
