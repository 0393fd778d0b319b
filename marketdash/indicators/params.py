"""Values of an indicator's parameters: what fits the default's kind, and how to say what would."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Limits = tuple[float, float]


def convert(value: Any, default: Any, choices: tuple[str, ...] = ()) -> Any:
    """Make `value` what `default` is: a whole number, a number, a text or a truth.

    >>> convert(20.0, 14), convert("HIGH", "close", ("close", "high"))
    (20, 'high')

    What is none raises `ValueError`, or `OverflowError` if it is too large.
    """
    if isinstance(default, str):
        return _text(value, choices)
    if isinstance(default, bool):
        if isinstance(value, bool | np.bool_):
            return bool(value)
    elif not isinstance(default, int | float):
        return value
    elif isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value):
        if isinstance(default, float):
            return float(value)
        if value == int(value):
            return int(value)
    raise ValueError("not of the default's kind")


def is_within(value: Any, limits: Limits | None) -> bool:
    """Tell whether a converted value respects its limits, if it has any."""
    return limits is None or limits[0] <= value <= limits[1]


def expectation(default: Any, choices: tuple[str, ...], limits: Limits | None) -> str:
    """Say what fits.

    >>> expectation(14, (), (2, 100_000))
    'a whole number from 2 to 100000'
    """
    if choices:
        return f"one of {', '.join(choices)}"
    if isinstance(default, str | bool):
        return "a text" if isinstance(default, str) else "True or False"
    kind = "a whole number" if isinstance(default, int) else "a number"
    return f"{kind} from {limits[0]:.10g} to {limits[1]:.10g}" if limits else kind


def _text(value: Any, choices: tuple[str, ...]) -> str:
    if isinstance(value, str):
        if not choices:
            return value
        for choice in choices:
            if choice.casefold() == value.casefold():
                return choice
    raise ValueError("not one of the choices")


__all__ = ["Limits", "convert", "expectation", "is_within"]
