"""Deriving: the readings of a bar's end, whatever else is derived beside them, and what a listener cannot break."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamz import Stream

from marketdash.clock import to_us
from marketdash.indicators import INDICATORS, BarHistory, compute, indicator, parse
from marketdash.pipeline import Graph
from marketdash.schema import conform
from marketdash.testing.golden import few_instruments, random_bars, random_ticks

DAY = ("2018-11-23 14:30", "2018-11-23 16:30")
UNIVERSE = few_instruments(5, ("XNYS", "24/7"))


@pytest.fixture
def scratch():
    """Forget the indicators that the test registers."""
    before = set(INDICATORS)
    yield
    for name in set(INDICATORS) - before:
        INDICATORS.remove(name)


def derived(texts: list[str], *, missing: float = 0.0, rows: int = 1_000_000, unknown: float = 0.0) -> Graph:
    """A graph after two hours of minute bars; of some the vwap is unknown."""
    graph = Graph(UNIVERSE, finest="1min", rows=rows)
    bars = random_bars(UNIVERSE, "1min", *DAY, seed=4, missing=missing)
    bars = bars.drop_duplicates(["time", "instrument_id"])
    bars.loc[np.random.default_rng(4).random(len(bars)) < unknown, "vwap"] = np.nan
    for text in texts:
        graph.add_indicator(parse(text), "1min", to_us(DAY[0]))
    batch = conform("bars", bars)
    for i in range(0, batch.num_rows, 200):
        graph.push("bars", batch.slice(i, 200))
    graph.advance(to_us(DAY[1]))
    assert not graph.health.failing
    return graph


def readings(graph: Graph) -> pd.DataFrame:
    found = graph.frames["readings"].table().to_pandas()
    return found.astype({"indicator": "str", "output": "str"})


def charted(graph: Graph, text: str, lookback: int) -> dict[tuple[str, int, int], float]:
    """What a chart of each instrument alone shows at each of its bars, by output, instrument and start."""
    found = {}
    for i in range(len(UNIVERSE)):
        bars = graph.store.bars(i, "1min")
        fields = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume", "vwap")}
        for end in range(1, len(bars) + 1):
            window = slice(max(0, end - lookback), end)
            history = BarHistory.from_arrays(
                bars.time[window], ["A"], "1min", **{name: values[window] for name, values in fields.items()}
            )
            for output, values in compute(text, history).items():
                if not np.isnan(values[-1, 0]):
                    found[output, i, int(bars.time[end - 1])] = float(values[-1, 0])
    return found


@pytest.mark.parametrize(
    "text",
    ["SMA(5)", "MACD(3,6,4)", "ATR(3)", "MAXINDEX(5,price=vwap)", "SMA(5,price=vwap)", "zscore(10)", "OBV"],
)
@pytest.mark.parametrize("missing", [0.0, 0.3])
async def test_readings_are_to_the_bit_those_of_a_chart_of_the_instrument_alone(text: str, missing: float):
    graph = derived([text, "SMA(40)", "RSI(3)"], missing=missing, unknown=0.1)
    spec = parse(text)
    wanted = charted(graph, text, spec.reach or graph.store.ring("1min").limit)
    found = readings(graph)
    found = found[found["indicator"] == str(spec)]
    starts = found["time"].astype("int64")
    shown = dict(
        zip(zip(found["output"], found["instrument_id"], starts, strict=True), found["value"], strict=True)
    )
    assert len(wanted) > 200, "nothing was compared"
    assert shown == wanted


async def test_a_reading_does_not_depend_on_what_else_is_derived(scratch: None):
    indicator("sum_of_all")(lambda bars: bars.close.cumsum() + bars.vwap.cumsum() * 0)
    texts = ["SMA(5)", "sum_of_all", "BBANDS(20)", "relative_strength(3)", "OBV", "day_vwap", "EMA(4)"]
    together = readings(derived(texts, missing=0.2, rows=1))
    for text in texts:
        alone = readings(derived([text], missing=0.2, rows=1))
        beside = together[together["indicator"] == text].reset_index(drop=True)
        assert len(alone) > 50
        columns = ["time", "known_at", "instrument_id", "output", "value"]
        pd.testing.assert_frame_equal(alone[columns], beside[columns], check_exact=True)


async def test_the_readings_of_one_end_come_in_one_batch_and_in_order():
    graph, heard = Graph(UNIVERSE, finest="1min"), []
    for text in ("BBANDS(2)", "SMA(2)"):
        graph.add_indicator(parse(text), "1min", to_us(DAY[0]))
    graph.listen("readings").sink(heard.append)
    bars = random_bars(UNIVERSE, "1min", *DAY, seed=4, missing=0.0)
    bars = bars[bars["time"] < bars["time"].min() + pd.Timedelta(minutes=3)]
    graph.push("bars", conform("bars", bars.drop_duplicates(["time", "instrument_id"])))
    graph.advance(to_us(DAY[1]))
    assert [batch.num_rows for batch in heard] == [4 * 5, 4 * 5]
    names = [(row["indicator"], row["output"], row["instrument_id"]) for row in heard[0].to_pylist()]
    outputs = [("BBANDS(2)", f"{band}band") for band in ("upper", "middle", "lower")] + [("SMA(2)", "value")]
    assert names == [(*output, i) for output in outputs for i in range(5)]
    assert [row["seq"] for batch in heard for row in batch.to_pylist()] == list(range(40))


async def test_an_indicator_cannot_change_the_bars_that_another_one_reads(scratch: None):
    @indicator("vandal", reach=5)
    def vandal(bars: BarHistory) -> np.ndarray:
        values = bars.array("close")
        values.setflags(write=True)
        values[:] = 0.0
        return values

    indicator("last_close", reach=5)(lambda bars: bars.close)
    graph = Graph(UNIVERSE, finest="1min")
    for text in ("vandal", "last_close"):
        graph.add_indicator(parse(text), "1min", to_us(DAY[0]))
    bars = random_bars(UNIVERSE, "1min", *DAY, seed=4).drop_duplicates(["time", "instrument_id"])
    graph.push("bars", conform("bars", bars))
    graph.advance(to_us(DAY[1]))
    assert [stage.name for stage in graph.health.failing] == ["derive vandal 1min"]
    found = readings(graph).set_index(["instrument_id", "time"])["value"]
    assert len(found) > 300
    assert found.to_dict() == bars.set_index(["instrument_id", "time"])["close"].to_dict()


async def test_deriving_counts_its_time_on_health():
    graph = derived(["SMA(5)"])
    stage = graph.health.stage("derive SMA(5) 1min")
    assert stage.rows > 300
    assert 0 < stage.seconds < 60


async def test_instruments_that_end_together_at_several_widths_are_read_each_with_its_own_past():
    graph = Graph(UNIVERSE, finest="1min")
    for width in ("1min", "5min", "15min"):
        graph.add_indicator(parse("SMA(3)"), width, to_us(DAY[0]))
    trades = conform("ticks", random_ticks(UNIVERSE, *DAY, rows=3_000, seed=6, late=0.0))
    graph.push("ticks", trades)
    graph.advance(to_us(DAY[1]) + 10**9)
    found = graph.frames["readings"].table().to_pandas()
    for width in ("1min", "5min", "15min"):
        rows = found[found["width"] == width]
        assert len(rows) > 20
        for i, own in rows.groupby("instrument_id"):
            close = graph.store.bars(int(i), width).close
            wanted = [
                float(np.float64(parse("SMA(3)").compute(_history(close[k : k + 3], width))["value"][-1, 0]))
                for k in range(len(close) - 2)
            ]
            assert own["value"].tolist() == wanted


def _history(close: np.ndarray, width: str) -> BarHistory:
    return BarHistory.from_arrays(range(len(close)), ["A"], width, close=close)


# What a listener does to what it was given


@Stream.register_api()
class marked_down(Stream):
    """A researcher's node that is careless with the table it was handed."""

    def update(self, x: pd.DataFrame, who: object = None, metadata: object = None) -> object:
        x["price"] = 0.0
        x.loc[:, "size"] = -1.0
        x.drop(columns="conditions", inplace=True)
        x.index.name = "spoilt"
        return self._emit(x)


async def test_a_node_that_changes_its_table_changes_nobody_elses():
    graph, heard, spoilt, later, other = Graph(UNIVERSE), [], [], [], []
    as_frame = pa.RecordBatch.to_pandas
    stream = graph.listen("ticks", lambda batch: as_frame(batch).rename_axis("row"))
    stream.sink(heard.append)
    stream.marked_down().sink(spoilt.append)
    stream.map(lambda table: table.copy()).sink(later.append)
    graph.listen("ticks", as_frame).sink(other.append)
    trades = conform("ticks", random_ticks(UNIVERSE, *DAY, rows=200, seed=6, late=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas would rather that nobody wrote inplace=True
        graph.push("ticks", trades)
    assert spoilt[0]["price"].eq(0.0).all()
    wanted = heard[0]["price"].to_numpy()
    assert (wanted > 0).all()
    for table in (heard[0], later[0], other[0], graph.frames["ticks"].table().to_pandas()):
        assert table["price"].to_numpy().tolist() == wanted.tolist()
        assert (table["size"] >= 0).all()
        assert "conditions" in table
    assert heard[0].index.name == later[0].index.name == "row"
    assert graph.health.failing == []
