"""Whether an indicator can be trusted: each check is one call, and returns None or the error it found.

error = checks.lookahead("my_signal(20)", bars)
assert error is None, error
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.errors import IndicatorError
from marketdash.indicators.history import FIELDS, BarHistory, Floats
from marketdash.indicators.spec import Spec, parse

TOLERANCE = 1e-9
"""Difference, as a fraction of the largest value of an instrument's output, that rounding may make."""

BLOCK, MOST = 500_000, 40_000_000
"""Values that are computed at once, and at most, to look at every bar."""

Values = Mapping[str, Floats]
Check = Callable[[Spec, BarHistory], IndicatorError | None]


class HasHistory(Protocol):
    """A market, for one."""

    def history(self, width: str | None = None) -> BarHistory: ...


class Difference(NamedTuple):
    """Where two computations differ first, and what they gave there."""

    row: int
    output: str
    column: int
    one: float
    other: float


def check(spec: str | Spec, bars: BarHistory | HasHistory, width: str | None = None) -> IndicatorError | None:
    """Make all checks of this module and return the first error, or None: `md.check("my_signal(20)", market)`.

    `bars` may be a market, whose bars of that width are taken, and must then be more than the warm-up.
    """
    found = parse(spec)
    if not isinstance(bars, BarHistory):
        bars = bars.history(width)
        if len(bars) < found.warmup + 3:
            expected = f"at least {found.warmup + 3} bars to check it on"
            return IndicatorError(f"{found} with warm-up {found.warmup}", expected, f"{bars!r}")
    checks = (purity, lookahead, scope, warmup, reach)
    return next((error for one in checks if (error := one(found, bars)) is not None), None)


def lookahead(
    spec: str | Spec, bars: BarHistory, *, cuts: int = 40, tolerance: float = TOLERANCE
) -> IndicatorError | None:
    """Find the first bar whose value changes when later bars become known.

    The indicator is computed on the whole history and on `cuts` shorter ones that start alike (of scope market:
    on ten times as many); their common bars must agree. To find what peeks at few bars only, it is computed
    side by side for instruments that end at each bar, or at as many of them as `MOST` values allow. Then all
    of this again with a tenth of the bars missing, since what fills holes from behind shows nothing else.
    """
    found = parse(spec)
    try:
        for history in (bars, _with_holes(bars)) if len(bars) > 1 else ():
            whole = found.compute(history)
            count = cuts if found.indicator.scope == "instrument" else cuts * 10
            spread = np.unique(np.linspace(1, len(history) - 1, count).astype(int)).tolist()
            first = _first_cut(found, history, whole, spread, tolerance)
            if first is None and found.indicator.scope == "instrument":
                for end, difference in _differences_at_ends(found, history, whole, tolerance):
                    first = _first_cut(found, history, whole, [end], tolerance)
                    if first is None:
                        swapped = difference._replace(one=difference.other, other=difference.one)
                        return _depends_on_others(found, history, swapped)
                    break
            if first is not None:
                # There may be an earlier one at a bar that was not cut at.
                return _looks_ahead(
                    found,
                    history,
                    *(_first_cut(found, history, whole, range(1, first[1].row + 2), tolerance) or first),
                )
    except IndicatorError as error:
        return error
    return None


def _first_cut(
    found: Spec, bars: BarHistory, whole: Values, ends: Iterable[int], tolerance: float
) -> tuple[int, Difference] | None:
    """Among histories of the first `end` bars, the one that shows the first bar whose value is another."""
    worst: tuple[int, Difference] | None = None
    for end in ends:
        common = {name: values[:end] for name, values in whole.items()}
        difference = _first_difference(found.compute(bars.upto(end)), common, tolerance, scales=whole)
        if difference and (worst is None or difference.row < worst[1].row):
            worst = end, difference
    return worst


def _differences_at_ends(
    found: Spec, bars: BarHistory, whole: Values, tolerance: float
) -> Iterator[tuple[int, Difference]]:
    """Instruments that have no bars from some bar on, many side by side, must have the values of the whole before."""
    length, instruments = bars.shape
    ends, columns = (part.ravel() for part in np.mgrid[1:length, 0:instruments])
    most = 2 * MOST // length
    if len(ends) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(ends), most, replace=False))
        ends, columns = ends[chosen], columns[chosen]
    size = max(1, BLOCK // length)
    for begin in range(0, len(ends), size):
        end, column = ends[begin : begin + size], columns[begin : begin + size]
        rows = int(end[-1]) + 1
        known = np.arange(rows)[:, np.newaxis] < end
        cut = _masked(bars.upto(rows), column, known)
        common = {name: np.where(known, values[:rows, column], np.nan) for name, values in whole.items()}
        made = {name: np.where(known, values, np.nan) for name, values in found.compute(cut).items()}
        scales = {name: values[:, column] for name, values in whole.items()}
        if difference := _first_difference(made, common, tolerance, scales):
            place = difference.column
            yield int(end[place]), difference._replace(column=int(column[place]))


def _masked(bars: BarHistory, columns: npt.NDArray[np.int64], there: npt.NDArray[np.bool_]) -> BarHistory:
    """These instruments, each as often as asked for, with the bars that are there."""
    fields = {
        field: np.asfortranarray(np.where(there, bars.array(field)[:, columns], np.nan)) for field in FIELDS
    }
    twice = len(set(columns.tolist())) < len(columns)
    symbols = [f"{bars.symbols[j]} {i}" if twice else bars.symbols[j] for i, j in enumerate(columns.tolist())]
    return BarHistory.from_arrays(bars.times_us, symbols, bars.width, bars.tz, copy=False, **fields)


def _with_holes(bars: BarHistory) -> BarHistory:
    there = np.random.default_rng(0).random(bars.shape) >= 0.1
    return _masked(bars, np.arange(len(bars.symbols)), there)


def _looks_ahead(found: Spec, bars: BarHistory, end: int, difference: Difference) -> IndicatorError:
    row, output, column, then, now = difference
    value = f"{then:.10g}, as it was with bars up to {bars.times[end - 1]}"
    hint = "A value may use bars up to its own: no shift(-1), no centred window, no mean of everything, no bfill."
    got = f"{_place(bars, row, column, output)}: {now:.10g}, not {value}"
    return IndicatorError(f"{found} looks ahead", got=got, hint=hint)


def _depends_on_others(found: Spec, bars: BarHistory, difference: Difference) -> IndicatorError:
    row, output, column, one, other = difference
    got = f"{_place(bars, row, column, output)}: {one:.10g}, but {other:.10g} beside other instruments"
    hint = 'Say scope="market" if it is meant to.'
    return IndicatorError(f"{found} of scope instrument", "values of an instrument's own bars", got, hint)


def purity(spec: str | Spec, bars: BarHistory) -> IndicatorError | None:
    """Find out whether the indicator changes its bars, or gives other values when it is asked again.

    In between it is asked for other bars, so that what it has kept of them shows.
    """
    found = parse(spec)
    before = {field: bars.array(field).copy() for field in FIELDS}
    others = _masked(bars, np.arange(len(bars.symbols)), np.ones(bars.shape, np.bool_)).last(
        len(bars) // 2 + 1
    )
    try:
        first = found.compute(bars)
        between, again = found.compute(others), found.compute(others)
        second = found.compute(bars)
    except IndicatorError as error:
        return error
    changed = [
        field for field in FIELDS if not np.array_equal(before[field], bars.array(field), equal_nan=True)
    ]
    if changed:
        return IndicatorError(
            f"{found} changes its bars", got=f"other values of {', '.join(changed)} after it"
        )
    if shared := [name for name, values in first.items() if np.shares_memory(values, second[name])]:
        return IndicatorError(f"{found} gives away its memory", got=f"the same array of {shared[0]} twice")
    for history, one, other in ((bars, first, second), (others, between, again)):
        if difference := _first_difference(one, other, tolerance=0.0):
            row, output, column, then, now = difference
            got = f"{_place(history, row, column, output)}: {then:.10g} at first, then {now:.10g}"
            hint = "The same bars give the same values: no random numbers, no state between calls."
            return IndicatorError(f"{found} is not a function of its bars", got=got, hint=hint)
    return None


def scope(spec: str | Spec, bars: BarHistory, *, tolerance: float = TOLERANCE) -> IndicatorError | None:
    """Find an instrument whose values depend on what else is in the history; of scope market all may."""
    found = parse(spec)
    if found.indicator.scope == "market":
        return None
    try:
        whole = found.compute(bars)
        for column, symbol in enumerate(bars.symbols):
            alone = found.compute(bars.select([symbol]))
            beside = {name: values[:, [column]] for name, values in whole.items()}
            if difference := _first_difference(alone, beside, tolerance):
                return _depends_on_others(found, bars, difference._replace(column=column))
    except IndicatorError as error:
        return error
    return None


def warmup(spec: str | Spec, bars: BarHistory) -> IndicatorError | None:
    """Find a value within the warm-up that the indicator states."""
    found = parse(spec)
    try:
        values = found.compute(bars)
    except IndicatorError as error:
        return error
    # An instrument's warm-up starts with its first bar.
    own = np.cumsum(np.isfinite(bars.array("close")), axis=0)
    for output, array in values.items():
        early = np.argwhere(np.isfinite(array) & (own <= found.warmup))
        if len(early):
            row, column = (int(i) for i in early[0])
            got = f"{_place(bars, row, column, output)}: {array[row, column]:.10g}"
            return IndicatorError(f"{found} with warm-up {found.warmup}", "no value before it", got)
    return None


def reach(spec: str | Spec, bars: BarHistory, *, tolerance: float = 1e-6) -> IndicatorError | None:
    """Find a last value that bars beyond the stated reach still change; without holes in the bars."""
    found = parse(spec)
    if found.reach is None or found.reach >= len(bars):
        return None
    try:
        whole, window = found.compute(bars), found.compute(bars.last(found.reach))
    except IndicatorError as error:
        return error
    scaled = _first_difference(
        {name: values[-1:] for name, values in window.items()},
        {name: values[-1:] for name, values in whole.items()},
        tolerance,
        scales=whole,
    )
    if scaled is None:
        return None
    _, output, column, part, all_of_it = scaled
    got = f"{_place(bars, len(bars) - 1, column, output)}: {part:.10g} instead of {all_of_it:.10g}"
    return IndicatorError(f"{found} with reach {found.reach}", "the value of the whole history", got)


def _first_difference(
    then: Values, now: Values, tolerance: float, scales: Values | None = None
) -> Difference | None:
    found: list[Difference] = []
    for output, values in now.items():
        before = then[output]
        # Of each instrument by itself: what is nothing beside a dear one is all of a cheap one.
        scale = _scale((scales or now)[output])
        with np.errstate(invalid="ignore"):
            same = np.abs(before - values) <= tolerance * scale
        different = np.argwhere(~(same | (before == values) | (np.isnan(before) & np.isnan(values))))
        if len(different):
            row, column = (int(i) for i in different[0])
            found.append(
                Difference(row, output, column, float(before[row, column]), float(values[row, column]))
            )
    return min(found, default=None)


def _scale(values: Floats) -> Floats:
    finite: Floats = np.where(np.isfinite(values), np.abs(values), 0.0).max(axis=0, initial=0.0)
    return finite


def _place(bars: BarHistory, row: int, column: int, output: str) -> str:
    time: pd.Timestamp = bars.times[row]
    return f"{output} of {bars.symbols[column]} at {time} (bar {row})"


__all__ = [
    "TOLERANCE",
    "Difference",
    "HasHistory",
    "check",
    "lookahead",
    "purity",
    "reach",
    "scope",
    "warmup",
]
