"""What every indicator promises; each one that the registry finds is tested."""

from collections.abc import Callable

import numpy as np
import pytest

from marketdash.indicators import INDICATORS, BarHistory, Indicator, checks, parse, table
from marketdash.indicators.base import STYLES
from marketdash.indicators.history import FIELDS

# Undefined above 1, and so for any price.
NEVER_DEFINED = {"ACOS", "ASIN"}

every_indicator = pytest.mark.parametrize(
    "found", [item for _, item in INDICATORS.items()], ids=list(INDICATORS)
)


@every_indicator
def test_outputs_are_float64_tables_of_the_bars_shape(found: Indicator, bars: BarHistory):
    values = found.compute(bars)
    assert list(values) == [output.name for output in found.outputs]
    for output, array in values.items():
        assert array.shape == bars.shape, output
        assert array.dtype == np.float64, output
        assert array.flags.writeable, output


@every_indicator
def test_the_first_value_comes_right_after_the_warm_up(found: Indicator, bars: BarHistory):
    assert found.warmup() < len(bars) - 50, "lengthen the test's bars, or nothing is tested"
    for output, array in found.compute(bars).items():
        defined = np.isfinite(array)
        if found.name in NEVER_DEFINED:
            assert not defined.any()
            continue
        assert (defined.argmax(axis=0) == found.warmup()).all(), output
        assert defined[found.warmup() :].all(), output


@every_indicator
def test_it_is_a_pure_function_of_its_bars(found: Indicator, bars: BarHistory):
    error = checks.purity(str(parse(found.name)), bars)
    assert error is None, error
    copied = BarHistory.from_arrays(
        bars.times_us, bars.symbols, bars.width, **{field: bars.array(field) for field in FIELDS}
    )
    for output, array in found.compute(copied).items():
        assert np.array_equal(array, found.compute(bars)[output], equal_nan=True), output


@every_indicator
def test_it_does_not_look_ahead(found: Indicator, bars: BarHistory, holed_bars: BarHistory):
    for history in (bars, holed_bars):
        error = checks.lookahead(found.name, history)
        assert error is None, error


@every_indicator
def test_its_reach_is_enough_for_the_value_of_the_whole_history(found: Indicator, long_bars: BarHistory):
    reach = found.reach()
    if reach is None:
        return  # it depends on where its bars begin, and says so
    assert reach < len(long_bars) - 100, "lengthen the test's bars, or nothing is tested"
    assert reach > found.warmup()
    for end in (len(long_bars) - 77, len(long_bars)):
        error = checks.reach(found.name, long_bars.upto(end))
        assert error is None, error


@every_indicator
def test_it_takes_any_number_of_bars_and_instruments(found: Indicator, make_bars: Callable[..., BarHistory]):
    for shape in [(0, 2), (1, 2), (2, 1), (30, 0), (0, 0)]:
        for output, array in found.compute(make_bars(*shape)).items():
            assert array.shape == shape, output
            assert np.isnan(array[: found.warmup()]).all(), output


@every_indicator
def test_an_instrument_without_bars_gets_no_values_and_disturbs_no_other(found: Indicator, bars: BarHistory):
    fields = {field: bars.array(field).copy() for field in FIELDS}
    for values in fields.values():
        values[:, 1] = np.nan
    without = BarHistory.from_arrays(bars.times_us, bars.symbols, bars.width, **fields)
    others = found.compute(without.select(["S0", "S2"]))
    for output, array in found.compute(without).items():
        assert np.isnan(array[:, 1]).all(), output
        assert np.array_equal(array[:, [0, 2]], others[output], equal_nan=True), output


@every_indicator
def test_a_hole_has_no_value_and_does_not_poison_what_follows(found: Indicator, holed_bars: BarHistory):
    there = np.isfinite(holed_bars.array("close"))
    assert not there.all(), "the test's bars have no holes"
    for output, array in found.compute(holed_bars).items():
        defined = np.isfinite(array)
        assert not (defined & ~there).any(), output
        if found.name not in NEVER_DEFINED:
            settled = there & (np.arange(len(holed_bars)) >= 300)[:, np.newaxis]
            assert defined[settled].all(), output


@every_indicator
def test_its_scope_is_true(found: Indicator, bars: BarHistory):
    alone = found.compute(bars.select(["S1"]))
    together = {output: array[:, [1]] for output, array in found.compute(bars).items()}
    same = all(np.array_equal(alone[output], together[output], equal_nan=True) for output in alone)
    assert same == (found.scope == "instrument")


@every_indicator
def test_its_text_names_it_again(found: Indicator, bars: BarHistory):
    spec = parse(found.name.lower())
    assert parse(str(spec)) == spec
    assert spec.indicator is found
    assert table(spec, bars).shape == (len(bars), len(bars.symbols) * len(found.outputs))


@every_indicator
def test_it_describes_itself_to_people_and_charts(found: Indicator):
    assert found.doc
    assert found.group
    names = [output.name for output in found.outputs]
    assert len(set(names)) == len(names)
    assert all(output.style in STYLES for output in found.outputs)
    for name, default in found.params.items():
        if isinstance(default, str):
            assert not found.choices(name) or default in found.choices(name)
        else:
            low, high = found.limits(name) or (default, default)
            assert low <= default <= high
