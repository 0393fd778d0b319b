"""Instruments are found by symbol in any case, and their table survives being written."""

import pyarrow as pa
import pytest

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.instruments import UNCLASSIFIED, Instrument, Universe

STOCKS = Universe(
    [
        Instrument(0, "AAPL", sector="Technology", calendar="XNYS"),
        Instrument(1, "BP.", sector="Energy", calendar="XLON", currency="GBP", price_unit="GBp"),
        Instrument(2, "MSFT", sector="Technology", calendar="XNYS"),
        Instrument(3, "???", calendar="24/7"),
    ]
)


def test_symbols_are_found_whatever_their_case():
    assert STOCKS.id("msft") == 2
    assert STOCKS.get("bp.").price_unit == "GBp"
    assert "aapl" in STOCKS
    assert 3 not in STOCKS
    assert STOCKS.ids(["MSFT", "AAPL"]).tolist() == [2, 0]
    assert STOCKS.ids("MSFT").tolist() == [2], "a text is one symbol, not four"
    assert STOCKS.ids(None).tolist() == [0, 1, 2, 3]
    assert STOCKS.ids(iter([])).tolist() == []


@pytest.mark.parametrize("symbol", ["MSTF", 7, None])
def test_an_unknown_symbol_gives_the_nearest(symbol: object):
    with pytest.raises(UnknownNameError, match="Unknown symbol"):
        STOCKS.id(symbol)  # type: ignore[arg-type]


def test_ids_count_from_zero_and_symbols_are_there_once():
    with pytest.raises(SchemaError, match="the ids 0, 1, 2"):
        Universe([Instrument(1, "A")])
    with pytest.raises(SchemaError, match="each symbol once, got Aapl"):
        Universe([Instrument(0, "Aapl"), Instrument(1, "AAPL")])


def test_groups_are_told_in_a_useful_order():
    assert STOCKS.calendars == ("XNYS", "XLON", "24/7")
    assert {name: ids.tolist() for name, ids in STOCKS.by_calendar.items()} == {
        "XNYS": [0, 2],
        "XLON": [1],
        "24/7": [3],
    }
    assert STOCKS.sectors == ("Energy", "Technology", UNCLASSIFIED)
    assert STOCKS.index.tolist() == ["AAPL", "BP.", "MSFT", "???"]
    assert STOCKS.sector_names.tolist() == ["Technology", "Energy", "Technology", UNCLASSIFIED]
    empty = Universe([])
    assert (len(empty), empty.calendars, empty.sectors, dict(empty.by_calendar)) == (0, (), (), {})


def test_a_universe_survives_being_a_table():
    again = Universe.from_arrow(STOCKS.to_arrow())
    assert [item.symbol for item in again] == list(STOCKS.symbols)
    assert again[1].price_unit == "GBp"
    assert repr(list(again)) == repr(list(STOCKS))


def test_a_table_needs_ids_and_symbols_and_may_leave_out_the_rest():
    table = pa.table({"id": [0], "symbol": ["X"], "name": pa.array([None], pa.utf8()), "colour": ["red"]})
    assert repr(Universe.from_arrow(table)[0]) == repr(Instrument(0, "X"))
    with pytest.raises(SchemaError, match="no symbol"):
        Universe.from_arrow(pa.table({"id": [0]}))


def test_more_instruments_take_the_next_ids():
    more = STOCKS.extended([Instrument(0, "NEW")])
    assert more.id("NEW") == 4
    assert len(STOCKS) == 4


@pytest.mark.parametrize(
    ("tick_size", "decimals"), [(0.01, 2), (0.25, 2), (1.0, 0), (10.0, 0), (0.0001, 4), (1 / 32, 5), (0.0, 0)]
)
def test_decimals_show_one_tick(tick_size: float, decimals: int):
    assert Instrument(0, "X", tick_size=tick_size).decimals == decimals
