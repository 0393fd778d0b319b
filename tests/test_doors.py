"""The doors: a file dropped into a folder is enough."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

# A fresh Python that imports everything and compiles, on a machine whose cores are taken.
pytestmark = pytest.mark.timeout(300)

COIN = '''
"""A coin that comes up heads every time."""

import marketdash as md
from marketdash.instruments import Universe
from marketdash.sources.base import PolledSource


@md.source("coin")
class Coin(PolledSource):
    name, interval = "coin", 0.01

    def __init__(self, argument: str = "", heads: float = 100.0) -> None:
        super().__init__(Universe.of([argument or "COIN"]))
        self.price = heads

    def fetch(self) -> dict[str, list[object]]:
        self.price += 1
        return {"time": [self.clock.now()], "instrument_id": [0], "price": [self.price]}
'''

TILT = '''
"""Where a bar closed between its low and its high."""

import pandas as pd

import marketdash as md


@md.indicator("tilt", warmup=lambda params: params["n"] - 1, levels=[0])
def tilt(bars, n: int = 3) -> pd.DataFrame:
    """Mean place of the close: -1 at the low, 1 at the high."""
    middle, half = (bars.high + bars.low) / 2, (bars.high - bars.low) / 2
    return ((bars.close - middle) / half).fillna(0).rolling(n).mean()
'''

BROKEN = "import no_such_module_anywhere\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a plugin folder in which two files work and one does not."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name, text in (("coin.py", COIN), ("tilt.py", TILT), ("a_broken.py", BROKEN)):
        (plugins / name).write_text(text)
    return plugins


def told(script: str, folder: Path) -> Any:
    """What a fresh Python prints, as JSON, that knows of the folder by its environment alone."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MARKETDASH_")}
    env |= {"MARKETDASH_PLUGINS": str(folder), "XDG_CONFIG_HOME": str(folder.parent / "config")}
    env["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        cwd=folder.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("text", [COIN, TILT], ids=["source", "indicator"])
def test_a_door_asks_for_fewer_than_twenty_five_lines(text: str):
    assert len(text.strip().splitlines()) < 25


def test_a_source_in_one_file_opens_by_its_name_and_its_price_is_the_last(folder: Path):
    script = """
        import json, queue
        import marketdash as md
        from marketdash.sources.base import SOURCES

        with md.open("coin:PENNY", heads=500.0) as market:
            heard = queue.Queue()
            market.stream("ticks").sink(heard.put)
            first = heard.get(timeout=60)
            heard.get(timeout=60)  # by now the first has gone all the way
            last = market.frame("last")
        print(json.dumps({
            "heard": float(first.price.iloc[0]),
            "symbol": list(last.index),
            "price": float(last["last"].iloc[0]),
            "label": market.source.name,
            "failures": [str(name) for name in SOURCES.failures],
        }))
    """
    found = told(script, folder)
    assert found["symbol"] == ["PENNY"]
    assert found["price"] >= found["heard"] > 500.0
    assert found["label"] == "coin"
    assert found["failures"] == [str(folder / "a_broken.py")]


def test_an_indicator_in_one_file_is_computed_on_the_bars_of_a_market(folder: Path):
    script = """
        import json, logging
        import marketdash as md
        from marketdash.indicators import parse, table

        with md.open("replay:us-2018-11-minute", start="2018-11-16 10:30", pace=60) as market:
            market.clock.pause()
            market.derive("TILT(2)", width="1min")
            market.clock.step("bar")
            market.clock.step("bar")
            readings = market.frame("readings")
            history = table(parse("tilt(2)"), market.history("1min", symbols=["NVDA"]))
        print(json.dumps({
            "indicator": sorted(set(readings.indicator)),
            "values": readings.value.dropna().tolist(),
            "rows": len(history),
            "known": history.notna().sum().tolist(),
        }))
    """
    found = told(script, folder)
    assert found["indicator"] == ["tilt(2)"]
    assert found["values"]
    assert all(-1 <= value <= 1 for value in found["values"])
    assert found["known"] == [found["rows"] - 1]
