"""Trades of real days against the bars that their vendor made of them, by one table of conditions for all."""

import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marketdash.conditions import HIGH_LOW, LAST, OPEN, VOLUME, bit, effects, from_algoseek, tape_of
from marketdash.conditions import quotes_from_algoseek as quote_masks
from marketdash.instruments import Instrument, Universe
from marketdash.pipeline import Graph
from marketdash.schema import conform, width_us

UNIVERSE = Universe(
    Instrument(i, symbol, mic=mic, calendar="XNYS")
    for i, (symbol, mic) in enumerate({"SPY": "ARCX", "IBM": "XNYS", "BAC": "XNYS", "AIG": "XNYS"}.items())
)
DAYS = [
    ("SPY", "20131007"),
    ("IBM", "20131007"),
    ("IBM", "20131008"),
    ("BAC", "20131007"),
    ("AIG", "20131007"),
]
SECONDS = [day for day in DAYS if day[1] == "20131007"]
PRICES = ["open", "high", "low", "close"]
FIELDS = [*PRICES, "volume"]
SIDES = ["bid", "bid_size", "ask", "ask_size"]
VENDORS = {"1min": "minute", "1s": "second"}
OPENS, CLOSES = pd.Timedelta("9:30:00"), pd.Timedelta("16:00:00")

# The vendor counts an opening auction only where nothing was printed before it, and a closing auction as the last
# trade of the regular session, whenever it was printed; and it takes every price from a trade reported out of
# sequence or by the form of extended hours, and none from one priced by a derivative, where the tapes' rules do not.
AUCTIONS = bit("opening trade") | bit("closing trade")
IN_DISPUTE = AUCTIONS | bit("out of sequence") | bit("derivatively priced") | bit("extended hours")


def read(path: Path, names: list[str], **kinds: type) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.namelist()
        rows = pd.read_csv(io.BytesIO(archive.read(member)), header=None, names=["time", *names], dtype=kinds)
    midnight = pd.Timestamp(path.name[:8], tz="America/New_York")
    return rows.assign(time=(midnight + pd.to_timedelta(rows["time"], unit="ms")).dt.as_unit("us"))


@cache
def trades(folder: Path, symbol: str, day: str) -> pd.DataFrame:
    names = ["price", "size", "exchange", "flags", "suspicious"]
    rows = read(folder / f"equity_tick/{symbol.lower()}/{day}_trade.zip", names, flags=str)
    flags = rows["flags"].map(lambda text: int(text, 16)).to_numpy(np.uint32)
    masks = from_algoseek(flags, rows["suspicious"].to_numpy() != 0)
    hour = rows["time"] - rows["time"].dt.normalize()
    return rows[["time", "size"]].assign(
        price=rows["price"] / 10_000, conditions=masks, regular=(hour >= OPENS) & (hour < CLOSES)
    )


def vendors_bars(folder: Path, symbol: str, day: str, width: str) -> pd.DataFrame:
    rows = read(folder / f"equity_{VENDORS[width]}/{symbol.lower()}/{day}_trade.zip", FIELDS).set_index(
        "time"
    )
    rows[PRICES] /= 10_000
    return rows


def bars_by_table(rows: pd.DataFrame, tape: str, width: str) -> pd.DataFrame:
    """The bars of trades, with nothing but the table of conditions."""
    changed = effects(rows["conditions"], tape, rows["regular"])
    rows = rows.assign(start=rows["time"].dt.floor(width))

    def of(field: int, column: str, how: str) -> pd.Series:
        return getattr(rows[changed & field > 0].groupby("start")[column], how)()

    return pd.DataFrame(
        {
            "open": of(OPEN, "price", "first"),
            "high": of(HIGH_LOW, "price", "max"),
            "low": of(HIGH_LOW, "price", "min"),
            "close": of(LAST, "price", "last"),
            "volume": of(VOLUME, "size", "sum"),
        }
    )


def without_empty(bars: pd.DataFrame) -> pd.DataFrame:
    """As the vendor does it: what was traded while no trade made a price belongs to the bar before."""
    priced = bars["open"].notna()
    volume = bars["volume"].fillna(0.0).groupby(priced.cumsum()).sum()
    kept = bars[priced]
    return kept.assign(volume=volume[volume.index > 0].to_numpy())


def compared(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Whether each field of each bar of theirs is the same in ours."""
    ours = without_empty(ours).reindex(theirs.index)
    return pd.DataFrame(
        {field: np.isclose(ours[field], theirs[field], rtol=0, atol=1e-9) for field in FIELDS}
    )


def assert_alike(ours: pd.DataFrame, theirs: pd.DataFrame, name: str) -> None:
    shares = compared(ours, theirs).mean()
    assert len(theirs) > 400
    assert (shares >= 0.99).all(), f"{name}: {shares.to_dict()}"


@pytest.fixture(scope="module")
def lean(real_data: Path) -> Path:
    return real_data / "d_ticks/lean"


@pytest.fixture(scope="module")
def graph(lean: Path) -> Iterator[Graph]:
    """All trades of all these days, in the order of their times."""
    parts = [trades(lean, symbol, day).assign(instrument_id=UNIVERSE.id(symbol)) for symbol, day in DAYS]
    rows = pd.concat(parts).sort_values("time", kind="stable", ignore_index=True).drop(columns="regular")
    batch = conform("ticks", rows.assign(known_at=rows["time"], seq=np.arange(len(rows))))
    graph = Graph(UNIVERSE)
    for start in range(0, len(rows), 50_000):
        graph.push("ticks", batch.slice(start, 50_000))
    yield graph
    graph.close()


def columns_of(graph: Graph, instrument: int, width: str) -> pd.DataFrame:
    bars = graph.store.bars(instrument, width)
    return pd.DataFrame({name: getattr(bars, name) for name in ("time", *FIELDS)})


def bars_of_graph(graph: Graph, symbol: str, day: str, width: str) -> pd.DataFrame:
    bars = columns_of(graph, UNIVERSE.id(symbol), width)
    times = pd.to_datetime(bars["time"], unit="us", utc=True).dt.tz_convert("America/New_York")
    bars = bars.assign(time=times).set_index("time")
    return bars[bars.index.strftime("%Y%m%d") == day]


@pytest.mark.parametrize(("symbol", "day"), DAYS)
def test_the_table_alone_gives_the_vendors_minutes(lean: Path, symbol: str, day: str):
    rows = trades(lean, symbol, day)
    ours = bars_by_table(rows, tape_of(UNIVERSE.get(symbol).mic), "1min")
    assert_alike(ours, vendors_bars(lean, symbol, day, "1min"), f"{symbol} {day}")


@pytest.mark.parametrize(("symbol", "day"), SECONDS)
def test_the_table_alone_gives_the_vendors_seconds(lean: Path, symbol: str, day: str):
    rows = trades(lean, symbol, day)
    ours = bars_by_table(rows, tape_of(UNIVERSE.get(symbol).mic), "1s")
    assert_alike(ours, vendors_bars(lean, symbol, day, "1s"), f"{symbol} {day}")


@pytest.mark.parametrize(("symbol", "day"), DAYS)
def test_a_minute_that_differs_has_a_trade_that_the_vendor_counts_in_its_own_way(
    lean: Path, symbol: str, day: str
):
    rows, theirs = trades(lean, symbol, day), vendors_bars(lean, symbol, day, "1min")
    alike = compared(bars_by_table(rows, tape_of(UNIVERSE.get(symbol).mic), "1min"), theirs)
    masks = rows["conditions"].to_numpy()
    disputed = set(rows["time"].dt.floor("1min")[masks & IN_DISPUTE > 0])
    last_minute = theirs.index[0].normalize() + CLOSES - pd.Timedelta("1min")
    differing = theirs.index[~alike.all(axis=1)]
    assert [str(minute) for minute in differing if minute not in disputed | {last_minute}] == []


@pytest.mark.parametrize("width", ["1min", "1s"])
@pytest.mark.parametrize(("symbol", "day"), DAYS)
def test_the_graph_gives_the_vendors_bars(graph: Graph, lean: Path, symbol: str, day: str, width: str):
    if width == "1s" and (symbol, day) not in SECONDS:
        return  # the vendor's bars of this day's seconds are not there
    ours = bars_of_graph(graph, symbol, day, width)
    assert_alike(ours, vendors_bars(lean, symbol, day, width), f"{symbol} {day} {width}")


def test_a_graph_is_not_moved_by_trades_that_the_provider_suspects(lean: Path):
    rows = trades(lean, "AIG", "20131007").head(3000).drop(columns="regular").assign(instrument_id=0)
    wild = rows.iloc[50::100].assign(conditions=bit("suspicious"))
    wild = wild.assign(price=wild["price"] * np.where(np.arange(len(wild)) % 2, 1.04, 0.96))
    both = pd.concat([rows, wild]).sort_values("time", kind="stable", ignore_index=True)
    kept = []
    for part in (rows, both):
        graph = Graph(Universe([Instrument(0, "AIG", mic="XNYS", calendar="XNYS")]))
        graph.push("ticks", conform("ticks", part.assign(known_at=part["time"], seq=np.arange(len(part)))))
        kept.append(columns_of(graph, 0, "1min")[["time", *FIELDS]])
        graph.close()
    pd.testing.assert_frame_equal(*kept)


@pytest.mark.parametrize("day", ["20131007", "20131008"])
def test_a_days_quotes_give_the_vendors_best_of_each_minute_and_second(lean: Path, day: str):
    """This file has the national best already: one side in a row, and the exchange that happens to hold it."""
    names = [*SIDES, "exchange", "flags", "suspicious"]
    rows = read(lean / f"equity_tick/ibm/{day}_quote.zip", names, flags=str)
    masks = quote_masks(
        rows["flags"].map(lambda text: int(text, 16)).to_numpy(np.uint32), rows["suspicious"] != 0
    )
    sides = {side: rows[side].where(rows[side] > 0) / 10_000 for side in ("bid", "ask")}
    sizes = {side: rows[side].where(rows[side] > 0) for side in ("bid_size", "ask_size")}
    columns = rows[["time"]].assign(**sides, **sizes, known_at=rows["time"], seq=np.arange(len(rows)))
    graph, heard = Graph(Universe([Instrument(0, "IBM", mic="XNYS", calendar="XNYS")])), []
    graph.listen("quotes").sink(heard.append)
    batch = conform("quotes", columns.assign(instrument_id=0, conditions=masks))
    for start in range(0, len(rows), 7_777):
        graph.push("quotes", batch.slice(start, 7_777))
    graph.close()
    told = pd.concat([part.to_pandas() for part in heard]).set_index("time")
    for width in ["1min", "1s"] if day == "20131007" else ["1min"]:
        fields = [
            f"{side}_{name}" for side in ("bid", "ask") for name in ("open", "high", "low", "close", "size")
        ]
        theirs = read(lean / f"equity_{VENDORS[width]}/ibm/{day}_quote.zip", fields).set_index("time")
        ours = told.groupby(told.index.floor(width)).last().reindex(theirs.index)
        for side in ("bid", "ask"):
            same = np.isclose(ours[side], theirs[f"{side}_close"] / 10_000) & (
                ours[f"{side}_size"] == theirs[f"{side}_size"]
            )
            assert same.mean() >= 0.999, f"{side} of {width}: {same.mean():.4f} of {len(theirs)}"


def test_a_width_of_the_vendor_is_one_of_ours():
    assert [width_us(width) for width in VENDORS] == [60_000_000, 1_000_000]
