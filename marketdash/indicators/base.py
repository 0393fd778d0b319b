"""What an indicator is, and the door through which a function becomes one."""

from __future__ import annotations

import inspect
import keyword
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from marketdash.errors import IndicatorError, MarketdashError, UnknownNameError
from marketdash.indicators.history import BarHistory, Floats
from marketdash.indicators.params import Limits, convert, expectation, is_within
from marketdash.indicators.tables import from_table, to_table
from marketdash.indicators.windows import Windows
from marketdash.registry import Registry

INDICATORS: Registry[Indicator] = Registry("indicator", home="marketdash.indicators")

Scope = Literal["instrument", "market"]
Style = Literal["line", "histogram", "dots", "area"]
Role = Literal["main", "signal", "upper", "lower", "pattern", "state"]
Params = Mapping[str, Any]
Count = int | Callable[[Params], int]

STYLES: tuple[Style, ...] = ("line", "histogram", "dots", "area")
VALUE = "value"
"""Name of the output of an indicator that has one."""


class Output(NamedTuple):
    """One series that an indicator gives, and how it asks to be drawn.

    `role` tells what it is beside the others: `main`; `signal`, which goes with the main one and is drawn
    dashed; `upper` and `lower`, the limits of a band; `pattern`, which is 0 where nothing is found and
    otherwise a mark at that bar (below 0 bearish, above 0 bullish); `state`, a code that has no place on the
    others' scale.
    """

    name: str
    style: Style = "line"
    role: Role = "main"


@dataclass(frozen=True, eq=False)
class Indicator(ABC):
    """A pure function of bars, with the parameters it takes and the hints a chart needs.

    `params` gives each parameter's default, in order. `overlay` says that the outputs are prices, to be drawn
    over them. With scope `instrument` an instrument's values depend on its own bars alone, with scope
    `market` on those of all instruments in the history. `levels` are horizontal guide lines.
    """

    name: str
    group: str
    doc: str
    params: Params
    outputs: tuple[Output, ...]
    overlay: bool = False
    scope: Scope = "instrument"
    levels: tuple[float, ...] = ()

    def warmup(self, params: Params | None = None) -> int:
        """Number of an instrument's bars before the first that can have a value."""
        return self._warmup(self.bind(params))

    def reach(self, params: Params | None = None) -> int | None:
        """Number of an instrument's last bars that determine its last value; None if all of them do.

        Where older bars fade away but never vanish (as in an exponential average), so many that the rest
        weighs less than a millionth.
        """
        return self._reach(self.bind(params))

    def limits(self, param: str) -> Limits | None:
        """Smallest and largest value of a numeric parameter (with defaults for the others), if it has any."""
        return None

    def choices(self, param: str) -> tuple[str, ...]:
        """The values that a text parameter may have; none means any."""
        return ()

    def bind(self, params: Params | None = None) -> dict[str, Any]:
        """Complete the parameters with defaults; what does not fit raises `IndicatorError`."""
        given = dict(params or {})
        if unknown := [name for name in given if name not in self.params]:
            expected = f"parameters {', '.join(self.params)}" if self.params else "no parameters"
            hint = UnknownNameError("parameter", unknown[0], self.params).hint if self.params else ""
            raise IndicatorError(f"Indicator {self.name}", expected, unknown[0], hint)
        bound = {
            name: self._converted(name, given.get(name, default)) for name, default in self.params.items()
        }
        if not self._is_allowed(bound):
            for name, value in bound.items():
                if not is_within(value, self.limits(name)):
                    raise self._refusal(name, value)
            raise IndicatorError(f"Indicator {self.name}", "parameters that go together", f"{bound}")
        return bound

    def series(self, params: Params | None = None) -> tuple[str, ...]:
        """Fields that alone, bar by bar of an instrument, make its values: such an indicator takes `Windows` too.

        None of them: the indicator needs a history, since it looks at times or at other instruments, or may.
        """
        return ()

    def compute(self, bars: BarHistory | Windows, params: Params | None = None) -> dict[str, Floats]:
        """Compute each output: a new float64 array of shape (T, N), NaN where there is no value.

        Of `Windows`, which only those with `series` take, it has the last row alone. Raises `IndicatorError` if
        a parameter does not fit or the computation fails.
        """
        bound = self.bind(params)
        if isinstance(bars, Windows):
            return self._newest(bars, bound)
        if not len(bars) or not bars.symbols:
            return {output.name: np.full(bars.shape, np.nan, order="F") for output in self.outputs}
        return self._values(bars, bound)

    def __call__(self, bars: BarHistory, **params: Any) -> pd.DataFrame:
        """Compute a table: time by instrument for one output, else columns (symbol, output)."""
        return to_table(self.compute(bars, params), bars)

    def _converted(self, param: str, value: Any) -> Any:
        try:
            return convert(value, self.params[param], self.choices(param))
        except (ValueError, OverflowError):
            raise self._refusal(param, value) from None

    def _is_allowed(self, params: Params) -> bool:
        return all(is_within(value, self.limits(name)) for name, value in params.items())

    def _refusal(self, param: str, value: Any) -> IndicatorError:
        expected = expectation(self.params[param], self.choices(param), self.limits(param))
        return IndicatorError(f"Indicator {self.name}, parameter {param}", expected, repr(value))

    @abstractmethod
    def _warmup(self, params: Params) -> int: ...

    @abstractmethod
    def _reach(self, params: Params) -> int | None: ...

    @abstractmethod
    def _values(self, bars: BarHistory, params: Params) -> dict[str, Floats]:
        """Compute with complete parameters, on a history that is not empty."""

    def _newest(self, windows: Windows, params: Params) -> dict[str, Floats]:
        """Compute the last values with complete parameters; those with `series` can."""
        raise IndicatorError(f"Indicator {self.name}", "a bar history", "windows")


def indicator(
    name: str,
    warmup: Count = 0,
    *,
    overlay: bool = False,
    scope: Scope = "instrument",
    outputs: Iterable[str] | None = None,
    styles: Style | Mapping[str, Style] | None = None,
    levels: Iterable[float] = (),
    limits: Mapping[str, Limits] | None = None,
    reach: Count | None = None,
    group: str = "Custom",
) -> Callable[[Callable[..., Any]], Indicator]:
    """Register a function of bars: `@indicator("spread_z", warmup=60)`.

    The function takes a `BarHistory` and returns a table like `bars.close` (for one instrument a Series
    will do), or a mapping with one for each of `outputs`. Its further arguments are the indicator's
    parameters: they need defaults, and stay within `limits` where those are given. Its docstring is what a
    person reads. `warmup` counts the bars before the first value and `reach` those that determine a value
    (None: all), each a number or a function of the parameters. The function must neither look ahead nor keep
    anything from one call to the next; `marketdash.indicators.checks` tells. What cannot be an indicator
    raises `IndicatorError`.
    """

    # Checked at once: `@indicator` without a name would otherwise register nothing, and say nothing.
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        hint = 'Write @indicator("my_signal").'
        raise IndicatorError("The name of an indicator", "letters, digits and underscores", repr(name), hint)

    def register(function: Callable[..., Any]) -> Indicator:
        drawn = (VALUE,) if outputs is None else tuple(outputs)
        by_name = dict.fromkeys(drawn, styles) if styles is None or isinstance(styles, str) else dict(styles)
        if wrong := [style for style in by_name.values() if style is not None and style not in STYLES]:
            raise IndicatorError(f"Indicator {name}", f"styles {', '.join(STYLES)}", wrong[0])
        if unknown := sorted(by_name.keys() - set(drawn)):
            raise IndicatorError(f"Indicator {name}", f"styles of outputs {', '.join(drawn)}", unknown[0])
        made = _FunctionIndicator(
            name,
            group,
            inspect.getdoc(function) or "",
            MappingProxyType(_defaults(name, function)),
            tuple(Output(output, by_name.get(output) or "line") for output in drawn),
            overlay,
            scope,
            tuple(levels),
            function=function,
            warmup_count=warmup,
            reach_count=reach,
            bounds=MappingProxyType(dict(limits or {})),
        )
        return INDICATORS.add(name, made)

    return register


@dataclass(frozen=True, eq=False, kw_only=True)
class _FunctionIndicator(Indicator):
    """An indicator that somebody wrote as a function."""

    function: Callable[..., Any]
    warmup_count: Count
    reach_count: Count | None
    bounds: Mapping[str, Limits]

    def limits(self, param: str) -> Limits | None:
        return self.bounds.get(param)

    def _warmup(self, params: Params) -> int:
        return self.warmup_count(params) if callable(self.warmup_count) else self.warmup_count

    def _reach(self, params: Params) -> int | None:
        return self.reach_count(params) if callable(self.reach_count) else self.reach_count

    def _values(self, bars: BarHistory, params: Params) -> dict[str, Floats]:
        try:
            made = self.function(bars, **params)
        except MarketdashError:
            raise
        except Exception as error:
            hint = "Bars cannot be written to: work on a copy." if "read-only" in str(error) else ""
            got = f"{type(error).__name__}: {error}"
            raise IndicatorError(f"Indicator {self.name} on {bars!r}", "a result", got, hint) from error
        names = [output.name for output in self.outputs]
        # A lone table needs no name when there is a lone output.
        lone = names[0] if len(names) == 1 else VALUE
        tables = made if isinstance(made, Mapping) else {lone: made}
        if set(tables) != set(names):
            hint = "Name them in @indicator(…, outputs=…)." if isinstance(made, Mapping) else ""
            got = ", ".join(str(name) for name in tables)
            raise IndicatorError(f"Indicator {self.name}", f"outputs {', '.join(names)}", got, hint)
        where = f"Indicator {self.name}"
        return {
            name: from_table(tables[name], bars, where if len(names) == 1 else f"{where}, output {name}")
            for name in names
        }


def _defaults(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise IndicatorError(f"Indicator {name}", "a function of bars", "one without arguments")
    params = {}
    for parameter in parameters[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise IndicatorError(f"Indicator {name}", "named parameters after the bars", str(parameter))
        if parameter.default is parameter.empty:
            raise IndicatorError(f"Indicator {name}, parameter {parameter.name}", "a default", "none")
        params[parameter.name] = parameter.default
    return params


__all__ = ["INDICATORS", "Indicator", "Output", "indicator"]
