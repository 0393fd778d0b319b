"""The national best: what the quotes of many exchanges come to, however they arrive."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdash.conditions import quote_bit
from marketdash.errors import CapacityError
from marketdash.pipeline import Graph
from marketdash.pipeline.nbbo import MOST_PARTICIPANTS, NationalBest
from marketdash.schema import conform
from marketdash.testing.golden import few_instruments

OPEN = pd.Timestamp("2018-11-23 15:00", tz="UTC")
NAN = float("nan")
SIDES = ("bid", "ask", "bid_size", "ask_size")

Quote = tuple[str | None, float, float, float, float]


def quotes(
    *rows: Quote,
    conditions: list[int] | None = None,
    days: list[int] | None = None,
    ids: list[int] | None = None,
) -> pa.RecordBatch:
    """Quotes as (exchange, bid, ask, bid size, ask size), all of one day unless `days` says how many later."""
    columns = dict(zip(("exchange", *SIDES), zip(*rows, strict=True), strict=True))
    later = days or [0] * len(rows)
    time = [OPEN + pd.Timedelta(days=day, milliseconds=i) for i, day in enumerate(later)]
    return conform(
        "quotes",
        {
            "time": time,
            "known_at": time,
            "seq": list(range(len(rows))),
            "instrument_id": ids or [0] * len(rows),
            "trading_day": [moment.date() for moment in time],
            "conditions": conditions or [0] * len(rows),
            **columns,
        },
    )


def told(batch: pa.RecordBatch | None) -> list[tuple[float | None, ...]]:
    """What was passed on, with None where nobody quotes."""
    if batch is None:
        return []
    rows = zip(*(batch.column(name).to_pylist() for name in SIDES), strict=True)
    return [tuple(None if value != value else value for value in row) for row in rows]


def best(*rows: Quote, **columns: list[int]) -> list[tuple[float | None, ...]]:
    return told(NationalBest(1)(quotes(*rows, **columns)))


def test_the_best_is_the_highest_bid_and_the_lowest_offer_of_all():
    rows = best(("N", 10.0, 10.3, 1, 1), ("P", 10.1, 10.4, 2, 2), ("Q", 9.9, 10.2, 3, 3))
    assert rows == [(10.0, 10.3, 1, 1), (10.1, 10.3, 2, 1), (10.1, 10.2, 2, 3)]


def test_of_exchanges_at_one_price_the_largest_size_counts():
    rows = best(
        ("N", 10.0, 11.0, 3, 1), ("P", 10.0, 11.0, 5, 1), ("Q", 10.0, 11.0, 2, 7), ("P", 9.0, 11.0, 5, 1)
    )
    assert rows == [(10.0, 11.0, 3, 1), (10.0, 11.0, 5, 1), (10.0, 11.0, 5, 7), (10.0, 11.0, 3, 7)]


def test_only_what_changes_the_best_goes_on():
    batch = quotes(
        ("N", 10.0, 11.0, 3, 3), ("P", 9.0, 12.0, 9, 9), ("N", 10.0, 11.0, 3, 3), ("P", 9.5, 11.5, 1, 1)
    )
    passed = NationalBest(1)(batch)
    assert passed.column("seq").to_pylist() == [0]
    assert NationalBest(1)(batch.slice(0, 0)) is None


def test_when_the_best_is_withdrawn_the_next_best_stands():
    first = (("N", 10.0, 11.0, 3, 3), ("P", 9.0, 12.0, 9, 9))
    for gone in [("N", 0.0, 0.0, 3, 3), ("N", 10.0, 11.0, 0, 0)]:
        assert best(*first, gone)[-1] == (9.0, 12.0, 9, 9)
        assert best(*first, gone, ("P", 0.0, 12.0, 0, 9))[-1] == (None, 12.0, None, 9)


def test_a_side_that_is_not_told_stays_as_it_was():
    rows = best(
        ("N", 10.0, NAN, 3, NAN), ("P", NAN, 11.0, NAN, 4), ("N", NAN, 10.5, NAN, 1), ("N", 9.0, NAN, 2, NAN)
    )
    assert rows == [(10.0, None, 3, None), (10.0, 11.0, 3, 4), (10.0, 10.5, 3, 1), (9.0, 10.5, 2, 1)]


@pytest.mark.parametrize("name", ["closing", "non-firm", "halted"])
def test_a_quote_that_is_not_firm_is_withdrawn(name: str):
    rows = (("N", 10.0, 11.0, 3, 3), ("P", 9.0, 12.0, 9, 9), ("N", 10.0, 11.0, 3, 3))
    assert best(*rows, conditions=[0, 0, quote_bit(name)])[-1] == (9.0, 12.0, 9, 9)
    assert len(best(*rows, conditions=[0, 0, quote_bit("slow")])) == 1


@pytest.mark.parametrize("exchange", ["N", None])
def test_an_indication_is_no_quote(exchange: str | None):
    rows = (("N", 10.0, 11.0, 3, 3), (exchange, 1.0, 99.0, 3, 3))
    for name in ("indication", "suspicious"):
        assert best(*rows, conditions=[0, quote_bit(name)]) == [(10.0, 11.0, 3, 3)]


def test_locked_and_crossed_markets_pass_as_they_are():
    rows = best(("N", 10.0, 10.1, 1, 1), ("P", 10.1, 10.2, 1, 1), ("Q", 10.3, 10.4, 1, 1))
    assert [row[:2] for row in rows] == [(10.0, 10.1), (10.1, 10.1), (10.3, 10.1)]


def test_a_consolidated_quote_passes_as_it_is():
    batch = quotes(
        (None, 10.0, 11.0, 3, 3),
        (None, 10.0, 11.0, 3, 3),
        (None, 0.0, 11.0, 0, 3),
        (None, 12.0, 11.0, NAN, 3),
    )
    assert NationalBest(1)(batch) is batch


def test_a_side_that_a_consolidated_quote_leaves_out_is_filled():
    rows = best((None, 10.0, NAN, 3, NAN), (None, NAN, 11.0, NAN, 4), (None, 10.1, NAN, 1, NAN))
    assert rows == [(10.0, None, 3, None), (10.0, 11.0, 3, 4), (10.1, 11.0, 1, 4)]


def test_exchanges_are_forgotten_when_the_day_changes():
    rows = (("N", 10.0, 11.0, 3, 3), ("P", 9.0, 12.0, 9, 9), ("N", 8.0, 13.0, 1, 1))
    assert best(*rows, days=[0, 1, 0]) == [(10.0, 11.0, 3, 3), (9.0, 12.0, 9, 9)]


def test_what_comes_out_names_no_exchange():
    passed = NationalBest(1)(quotes(("N", 10.0, 11.0, 3, 3), conditions=[quote_bit("opening")]))
    assert passed.column("exchange").null_count == passed.column("conditions").null_count == 1
    assert told(NationalBest(1)(passed)) == told(passed)


def test_names_without_end_are_refused():
    step = NationalBest(1)
    step(quotes(*((f"X{i}", 10.0 + i, 99.0, 1.0, 1.0) for i in range(MOST_PARTICIPANTS))))
    with pytest.raises(CapacityError, match="at most 64 exchanges"):
        step(quotes(("another", 1.0, 2.0, 1.0, 1.0)))
    assert told(step(quotes(("X0", 500.0, 99.0, 1.0, 1.0)))) == [(500.0, 99.0, 1.0, 1.0)]


PRICES = st.sampled_from([0.0, NAN, 9.0, 9.5, 10.0, 10.5])
SIZES = st.sampled_from([0.0, 1.0, 2.0, NAN])


def rows_of(names: str) -> st.SearchStrategy[list[tuple]]:
    """Quotes of these exchanges: the sides, a condition, the instrument and the day."""
    condition = st.sampled_from([0, 0, 0, quote_bit("halted"), quote_bit("indication")])
    sides = (PRICES, PRICES, SIZES, SIZES)
    row = st.tuples(st.sampled_from(names), *sides, condition, st.integers(0, 2), st.integers(0, 1))
    return st.lists(row, min_size=1, max_size=60)


def plainly(rows: list[tuple]) -> list[tuple[float | None, ...]]:
    """The same by dictionaries, row after row."""
    books: dict[int, dict[str, list[float]]] = {}
    days: dict[int, int] = {}
    latest: dict[int, tuple] = {}
    out = []
    for name, bid, ask, bid_size, ask_size, condition, n, day in rows:
        if condition == quote_bit("indication") or day < days.get(n, 0):
            continue
        if day > days.get(n, 0):
            days[n], books[n], latest[n] = day, {}, (None,) * 4
        book = books.setdefault(n, {}).setdefault(name, [0.0] * 4)
        for side, (price, size) in enumerate(((bid, bid_size), (ask, ask_size))):
            if condition or price == 0.0 or size == 0.0:
                book[side], book[side + 2] = 0.0, 0.0
            elif price == price:
                book[side], book[side + 2] = price, 0.0 if size != size else size
        bids = [(b[0], b[2]) for b in books[n].values() if b[0]]
        asks = [(-b[1], b[3]) for b in books[n].values() if b[1]]
        high, low = max(bids, default=(None, None)), max(asks, default=(None, None))
        now = (high[0], None if low[0] is None else -low[0], high[1], low[1])
        if now != latest.get(n, (None,) * 4):
            latest[n] = now
            out.append(now)
    return out


@given(rows_of("NPQKZYBXJT"), st.integers(1, 20))
def test_the_best_is_that_of_a_plain_computation_however_rows_are_cut(rows: list[tuple], size: int):
    batch = quotes(
        *(row[:5] for row in rows),
        conditions=[row[5] for row in rows],
        ids=[row[6] for row in rows],
        days=[row[7] for row in rows],
    )
    step, passed = NationalBest(3), []
    for start in range(0, len(rows), size):
        part = conform("quotes", batch.slice(start, size).to_pandas())  # a dictionary of its own
        passed += told(step(part))
    assert passed == plainly(rows)


@given(rows_of("NP"), st.integers(0, 60))
def test_a_restored_step_goes_on_as_if_nothing_had_been(rows: list[tuple], cut: int):
    batch = quotes(*(row[:5] for row in rows), ids=[row[6] for row in rows])
    step = NationalBest(3)
    if batch.slice(0, cut).num_rows:
        step(batch.slice(0, cut))
    kept = step.snapshot()
    assert all(isinstance(value, np.ndarray) for value in kept.values())
    rest = batch.slice(cut)
    if not rest.num_rows:
        return
    first = told(step(rest))
    step.restore(kept)
    assert told(step(rest)) == first
    other = NationalBest(3)
    other.restore(kept)
    assert told(other(rest)) == first
    step.reset()
    assert told(step(batch)) == told(NationalBest(3)(batch))


def test_a_snapshot_knows_who_quoted_and_is_not_changed_by_what_comes_after():
    step = NationalBest(1)
    step(quotes(("N", 10.0, 11.0, 3, 3), ("P", 9.0, 12.0, 9, 9)))
    kept = step.snapshot()
    for _ in range(3):
        assert told(step(quotes(("P", 9.5, 11.5, 1, 1)))) == []
        assert told(step(quotes(("N", 0.0, 0.0, 0, 0)))) == [(9.5, 11.5, 1, 1)]
        step.restore(kept)


async def test_in_the_graph_the_last_prices_hold_the_national_best():
    graph, heard = Graph(few_instruments(2, ("XNYS",))), []
    graph.listen("quotes").sink(heard.append)
    graph.push("quotes", quotes(("N", 10.0, 10.3, 1, 1), ("P", 10.1, 10.4, 2, 2), ("P", 9.0, 10.4, 2, 2)))
    graph.push("quotes", quotes((None, 5.0, 6.0, 1, 1), ids=[1]))
    assert [row[:2] for batch in heard for row in told(batch)] == [
        (10.0, 10.3),
        (10.1, 10.3),
        (10.0, 10.3),
        (5.0, 6.0),
    ]
    assert graph.last.prices("bid").tolist() == [10.0, 5.0]
    assert len(graph.frames["quotes"]) == 4
    graph.reset()
    graph.push("quotes", quotes(("P", 9.0, 10.4, 2, 2)))
    assert graph.last.prices("bid")[0] == 9.0, "a reset forgets the exchanges"
    graph.close()
