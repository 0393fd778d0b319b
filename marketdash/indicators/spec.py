"""An indicator with its parameters, written as traders write it: `SMA(20)`, `MACD(12,26,9)`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from marketdash.errors import IndicatorError
from marketdash.indicators.base import INDICATORS, Indicator, Output, Params
from marketdash.indicators.history import BarHistory, Floats
from marketdash.indicators.tables import to_table
from marketdash.indicators.windows import Windows

MAX_LENGTH = 200
HINT = "Write it like SMA(20), MACD(12, 26, 9) or SMA(20, price=high)."


@dataclass(frozen=True, eq=False)
class Spec:
    """An indicator and all its parameters; its text is its shortest name, which `parse` reads back.

    Two specs are equal if they name the same indicator with the same parameters.
    """

    indicator: Indicator
    params: Params

    def __str__(self) -> str:
        return self.indicator.name + _arguments(self.indicator, self.params)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Spec) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The indicator's outputs."""
        return self.indicator.outputs

    @property
    def overlay(self) -> bool:
        """Whether the outputs are prices, to be drawn over them: not those of a volume."""
        return self.indicator.overlay and "volume" not in self.params.values()

    @property
    def warmup(self) -> int:
        """Number of an instrument's bars before the first that can have a value."""
        return self.indicator.warmup(self.params)

    @property
    def reach(self) -> int | None:
        """Number of an instrument's last bars that determine its last value; None if all of them do."""
        return self.indicator.reach(self.params)

    @property
    def series(self) -> tuple[str, ...]:
        """Fields that alone make an instrument's values; none if the indicator needs a history."""
        return self.indicator.series(self.params)

    def compute(self, bars: BarHistory | Windows) -> dict[str, Floats]:
        """Compute each output as an array of shape (T, N); of `Windows` the last row alone."""
        return self.indicator.compute(bars, self.params)


def parse(text: str | Spec) -> Spec:
    """Read an indicator with its parameters.

    >>> str(parse("macd(12, 26, signalperiod=9)"))
    'MACD(12,26,9)'

    Names are compared without case, and what is left out has its default. An unknown indicator raises
    `UnknownNameError`, all else that does not fit `IndicatorError`. Nothing in the text is executed.
    """
    if isinstance(text, Spec):
        return text
    name, positional, named = _read(text)
    found = INDICATORS.get(name)
    if len(positional) > len(found.params):
        names = f" ({', '.join(found.params)})" if found.params else ""
        expected = f"at most {len(found.params)} parameters{names}"
        raise IndicatorError(f"Indicator {found.name}", expected, str(len(positional)))
    given = dict(zip(found.params, positional, strict=False))
    if twice := sorted(given.keys() & named.keys()):
        raise IndicatorError(f"Indicator {found.name}", "each parameter once", f"{twice[0]} twice")
    return Spec(found, MappingProxyType(found.bind(given | named)))


def compute(spec: str | Spec, bars: BarHistory | Windows) -> dict[str, Floats]:
    """Compute each output of an indicator as a new float64 array of shape (T, N); NaN is no value."""
    return parse(spec).compute(bars)


def table(spec: str | Spec, bars: BarHistory) -> pd.DataFrame:
    """Compute an indicator as a table: time by instrument for one output, else columns (symbol, output)."""
    return to_table(compute(spec, bars), bars)


def _read(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_LENGTH:
        got = (
            repr(text)[:40]
            if not isinstance(text, str) or len(text) <= MAX_LENGTH
            else f"{len(text)} characters"
        )
        raise IndicatorError("An indicator", "its name, with parameters in parentheses", got, HINT)
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise ValueError("not a name with parameters")
        keywords = [(str(item.arg), _value(item.value)) for item in node.keywords if item.arg]
        if len(dict(keywords)) < len(node.keywords):
            raise ValueError("a parameter twice, or a starred one")
        return node.func.id, [_value(item) for item in node.args], dict(keywords)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"The indicator {text!r}"
        raise IndicatorError(where, "its name, with parameters in parentheses", str(error), HINT) from error


def _value(node: ast.expr) -> Any:
    # A bare name is a text, so that nobody needs to quote `high` or `EMA`.
    if isinstance(node, ast.Name):
        return node.id
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, str | int | float):
        raise ValueError(f"{ast.unparse(node)}, which is neither a number nor a name")
    return value


def _arguments(indicator: Indicator, params: Mapping[str, Any]) -> str:
    # Whole numbers (periods) always show; what follows the last one only where it differs from its default.
    names = list(indicator.params)
    differs = [params[name] != indicator.params[name] for name in names]
    shown = [
        i
        for i, name in enumerate(names)
        if not isinstance(params[name], str) and (differs[i] or isinstance(params[name], int))
    ]
    last = shown[-1] + 1 if shown else 0
    parts = [_text(params[name]) for name in names[:last]]
    parts += [f"{name}={_text(params[name])}" for i, name in enumerate(names) if i >= last and differs[i]]
    return f"({','.join(parts)})" if parts else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isidentifier() and value not in ("True", "False", "None") else repr(value)
    return (
        str(int(value))
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        else repr(value)
    )


__all__ = ["Spec", "compute", "parse", "table"]
