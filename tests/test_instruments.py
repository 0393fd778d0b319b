"""Instruments and the universe that holds them."""

from dataclasses import FrozenInstanceError

import numpy as np
import pyarrow as pa
import pytest

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.instruments import UNCLASSIFIED, Instrument, Universe

MIXED = Universe(
    [
        Instrument(0, "AAPL", "Apple", sector="Technology", calendar="XNYS", mic="XNAS"),
        Instrument(1, "ESZ3", "E-mini", "future", tick_size=0.25, multiplier=50.0, expiry="2013-12-20"),
        Instrument(2, "VOD.L", currency="GBP", price_unit="GBp", sector="Communication", calendar="XLON"),
        Instrument(3, "AAPL C150", asset_class="option", strike=150.0, right="call", underlying="AAPL"),
        Instrument(
            4, "ÉTÉ", sector="Energy", calendar="XNYS", valid_from="2001-01-01", valid_to="2002-01-01"
        ),
        Instrument(5, "BP.L", sector="Energy", calendar="XNYS"),
    ]
)


def test_ids_count_from_nought_in_the_order_of_the_symbols():
    universe = Universe.of(["MSFT", "AAPL"], currency="EUR", sector="Technology")
    assert [item.id for item in universe] == [0, 1]
    assert universe.symbols == ("MSFT", "AAPL")
    assert universe[1] == Instrument(1, "AAPL", currency="EUR", sector="Technology")
    assert len(universe) == 2


def test_symbols_are_found_without_case():
    assert MIXED.id("aapl") == 0
    assert MIXED.id("été") == 4
    assert MIXED.get("vod.l").price_unit == "GBp"
    assert "Esz3" in MIXED
    assert "ES" not in MIXED
    assert 0 not in MIXED


def test_ids_of_several_symbols_keep_their_order_and_none_means_all():
    assert MIXED.ids(["BP.L", "aapl", "BP.L"]).tolist() == [5, 0, 5]
    assert MIXED.ids("aapl").tolist() == [0]
    assert MIXED.ids([]).tolist() == []
    assert MIXED.ids(None).tolist() == [0, 1, 2, 3, 4, 5]
    assert {MIXED.ids(what).dtype for what in (None, [], ["AAPL"])} == {np.dtype(np.int32)}


@pytest.mark.parametrize("wrong", ["APPL", "", 3, None])
def test_an_unknown_symbol_comes_with_the_nearest(wrong: object):
    with pytest.raises(UnknownNameError) as caught:
        MIXED.id(wrong)  # type: ignore[arg-type]
    assert caught.value.kind == "symbol"
    with pytest.raises(UnknownNameError, match="Did you mean AAPL"):
        MIXED.ids(["VOD.L", "APPL"])


@pytest.mark.parametrize("symbols", [["A", "B", "A"], ["A", "B", "a"]])
def test_a_symbol_that_comes_twice_is_refused_whatever_its_case(symbols: list[str]):
    with pytest.raises(SchemaError, match="each symbol once, got A"):
        Universe.of(symbols)


@pytest.mark.parametrize("ids", [[1, 0], [0, 2], [1], [0, 0]])
def test_ids_that_do_not_count_from_nought_are_refused(ids: list[int]):
    with pytest.raises(SchemaError, match="the ids 0, 1, 2"):
        Universe(Instrument(i, f"S{n}") for n, i in enumerate(ids))


def test_a_universe_comes_back_from_arrow_as_it_was():
    table = MIXED.to_arrow()
    back = Universe.from_arrow(table)
    # repr, since a strike that is not a number does not equal itself.
    assert repr(list(back)) == repr(list(MIXED))
    assert back.to_arrow().schema == table.schema
    assert len(Universe.from_arrow(Universe([]).to_arrow())) == 0


def test_a_table_may_leave_out_columns_hold_nulls_and_know_more():
    table = pa.table(
        {
            "id": [0, 1],
            "symbol": ["A", "B"],
            "sector": ["Energy", None],
            "strike": [None, 2.0],
            "mood": ["x", "y"],
        }
    )
    first, second = Universe.from_arrow(table)
    assert repr(first) == repr(Instrument(0, "A", sector="Energy"))
    assert second == Instrument(1, "B", strike=2.0)
    assert second.sector == UNCLASSIFIED


@pytest.mark.parametrize("column", ["id", "symbol"])
def test_a_table_without_ids_or_symbols_is_refused(column: str):
    with pytest.raises(SchemaError, match=f"no {column}"):
        Universe.from_arrow(MIXED.to_arrow().drop_columns([column]))


@pytest.mark.parametrize(
    ("tick_size", "decimals"),
    [
        (0.01, 2),
        (0.25, 2),
        (1.0, 0),
        (10.0, 0),
        (100, 0),
        (0.0001, 4),
        (0.5, 1),
        (1 / 32, 5),
        (1e-8, 8),
        (0.1, 1),
    ],
)
def test_decimals_show_one_tick_exactly(tick_size: float, decimals: int):
    assert Instrument(0, "X", tick_size=tick_size).decimals == decimals


def test_sectors_are_sorted_and_the_unclassified_come_last():
    assert MIXED.sectors == ("Communication", "Energy", "Technology", UNCLASSIFIED)
    assert Universe.of(["A"], sector="Zinc").extended([Instrument(0, "B")]).sectors == ("Zinc", UNCLASSIFIED)
    assert list(MIXED.sector_names) == [item.sector for item in MIXED]
    assert Universe([]).sectors == ()


def test_calendars_are_ordered_by_use_and_know_their_instruments():
    assert MIXED.calendars == ("XNYS", "24/7", "XLON")
    assert {name: ids.tolist() for name, ids in MIXED.by_calendar.items()} == {
        "XNYS": [0, 4, 5],
        "24/7": [1, 3],
        "XLON": [2],
    }
    assert Universe([]).by_calendar == {}


def test_the_index_holds_the_symbols_in_order():
    assert tuple(MIXED.index) == MIXED.symbols
    assert MIXED.index.name == "symbol"


def test_an_extended_universe_keeps_the_ids_and_numbers_the_new_ones():
    more = MIXED.extended([Instrument(0, "NEW"), Instrument(0, "NEWER", sector="Energy")])
    assert list(more)[: len(MIXED)] == list(MIXED)
    assert (more.id("new"), more.id("newer")) == (6, 7)
    assert more.get("NEWER").sector == "Energy"
    assert "NEW" not in MIXED
    with pytest.raises(SchemaError, match="each symbol once"):
        MIXED.extended([Instrument(0, "aapl")])


def test_an_instrument_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        MIXED[0].symbol = "X"
