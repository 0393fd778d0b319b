"""A researcher adds a part with one small file: the source."""

import asyncio
from pathlib import Path

import pytest

import marketdash as md
from marketdash.errors import UnknownNameError
from marketdash.sources.base import SOURCES

SOURCE = '''
"""My own prices, every second."""

import pandas as pd

from marketdash.instruments import Universe
from marketdash.sources.base import PolledSource, source


@source("door_test")
class MySource(PolledSource):
    interval = 0.02

    def __init__(self, argument="", **options):
        super().__init__(Universe.of(argument.split(",")))
        self.name, self.price = "door_test", 100.0

    def fetch(self):
        self.price += 1
        now = self.clock.now()
        return {"time": [now] * len(self.universe), "instrument_id": range(len(self.universe)), "price": [self.price] * len(self.universe)}
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKETDASH_PLUGINS", str(tmp_path))
    yield tmp_path
    SOURCES.remove("door_test")
    SOURCES.failures.clear()
    SOURCES._discovered = True


def test_a_source_in_one_small_file_is_found_and_opened(plugins: Path):
    assert len(SOURCE.strip().splitlines()) <= 25
    (plugins / "mine.py").write_text(SOURCE)
    (plugins / "broken.py").write_text("raise RuntimeError('not today')")
    SOURCES._discovered = False
    with md.open("door_test:AAPL,MSFT") as market:
        heard: list[float] = []
        market.stream("ticks").sink(lambda ticks: heard.extend(ticks["price"]))
        for _ in range(200):
            if len(heard) >= 6:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert heard[:6] in (
            [101.0, 101.0, 102.0, 102.0, 103.0, 103.0],
            [102.0, 102.0, 103.0, 103.0, 104.0, 104.0],
        )
        table = market.frame("last")
        assert table.index.tolist() == ["AAPL", "MSFT"]
        ticks = market.frame("ticks")
        assert ticks["source"].unique().tolist() == ["door_test"]
        assert ticks["seq"].tolist() == list(range(len(ticks)))
        assert ticks["known_at"].notna().all()
    (name,) = SOURCES.failures
    assert Path(name).name == "broken.py"
    with pytest.raises(UnknownNameError, match=r"Did you mean door_test\? Not loaded: .*broken\.py"):
        md.open("door_tset")
