"""Whether an indicator can be trusted: each check is one call, and returns None or the error it found.

error = checks.lookahead("my_signal(20)", bars)
assert error is None, error
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from marketdash.errors import IndicatorError
from marketdash.indicators.history import FIELDS, BarHistory, Floats
from marketdash.indicators.spec import Spec, parse

TOLERANCE = 1e-9
"""Difference, as a fraction of an output's largest value, that rounding may make."""

Values = Mapping[str, Floats]
Check = Callable[[Spec, BarHistory], IndicatorError | None]


def check(spec: str | Spec, bars: BarHistory) -> IndicatorError | None:
    """Make all checks of this module and return the first error, or None."""
    checks = (purity, lookahead, warmup, reach)
    return next((error for one in checks if (error := one(spec, bars)) is not None), None)


def lookahead(
    spec: str | Spec, bars: BarHistory, *, cuts: int = 12, tolerance: float = TOLERANCE
) -> IndicatorError | None:
    """Find the first bar whose value changes when later bars become known.

    The indicator is computed on the whole history and on `cuts` shorter ones that start alike; their common
    bars must agree.
    """
    found = parse(spec)
    worst: tuple[int, str] | None = None
    try:
        whole = found.compute(bars)
        for end in np.unique(np.linspace(1, len(bars) - 1, cuts).astype(int)) if len(bars) > 1 else ():
            early = found.compute(bars.upto(int(end)))
            difference = _first_difference(
                early, {name: values[:end] for name, values in whole.items()}, tolerance
            )
            if difference and (worst is None or difference[0] < worst[0]):
                row, output, column, then, now = difference
                value = f"{then:.10g}, as it was with bars up to {bars.times[end - 1]}"
                worst = row, f"{_place(bars, row, column, output)}: {now:.10g}, not {value}"
    except IndicatorError as error:
        return error
    hint = "A value may use bars up to its own: no shift(-1), no centred window, no mean of everything."
    return IndicatorError(f"{found} looks ahead", got=worst[1], hint=hint) if worst else None


def purity(spec: str | Spec, bars: BarHistory) -> IndicatorError | None:
    """Find out whether the indicator changes its bars, or gives other values when it is asked again."""
    found = parse(spec)
    before = {field: bars.array(field).copy() for field in FIELDS}
    try:
        first, second = found.compute(bars), found.compute(bars)
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
    if difference := _first_difference(first, second, tolerance=0.0):
        row, output, column, then, now = difference
        got = f"{_place(bars, row, column, output)}: {then:.10g} at first, then {now:.10g}"
        hint = "The same bars give the same values: no random numbers, no state between calls."
        return IndicatorError(f"{found} is not a function of its bars", got=got, hint=hint)
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
) -> tuple[int, str, int, float, float] | None:
    found: list[tuple[int, str, int, float, float]] = []
    for output, values in now.items():
        before = then[output]
        scale = _scale((scales or now)[output])
        with np.errstate(invalid="ignore"):
            same = np.abs(before - values) <= tolerance * scale
        different = np.argwhere(~(same | (before == values) | (np.isnan(before) & np.isnan(values))))
        if len(different):
            row, column = (int(i) for i in different[0])
            found.append((row, output, column, float(before[row, column]), float(values[row, column])))
    return min(found, default=None)


def _scale(values: Floats) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) else 0.0


def _place(bars: BarHistory, row: int, column: int, output: str) -> str:
    time: pd.Timestamp = bars.times[row]
    return f"{output} of {bars.symbols[column]} at {time} (bar {row})"


__all__ = ["TOLERANCE", "check", "lookahead", "purity", "reach", "warmup"]
