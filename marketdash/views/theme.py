"""The look that views share: colours that read on dark and on light, figures without clutter, state chips."""

from __future__ import annotations

from typing import Any

from bokeh.models import DataRange1d, Range1d
from bokeh.plotting import figure

UP, DOWN, FLAT = "#1fa98f", "#e5534b", "#8b93a1"
"""Rising, falling, unchanged: of different lightness too, for those who do not tell red from green."""

ACCENT = "#4c8dff"
SERIES = ("#4c8dff", "#f0a63a", "#b07cf0", "#2fb5c7", "#e86aa6", "#9bbf3b")
"""Colours of indicator lines, in order."""

FONT = "Inter, Roboto, 'Helvetica Neue', Arial, sans-serif"
MUTED = "#8b93a1"
"""Axis labels and captions, on both grounds."""

GRID_ALPHA = 0.14

STATE_COLOURS = {
    "live": UP,
    "delayed": "#f0a63a",
    "stale": DOWN,
    "closed": FLAT,
    "replay": ACCENT,
    "simulated": "#b07cf0",
    "none": FLAT,
}
"""State of a value → colour of its chip."""

MISSING = FLAT + "1c"
"""Where there is nothing to colour: hardly more than the ground."""

RISEN, FALLEN = "#18a1a4", "#c9403a"
"""The ends of rising and falling on surfaces: to who sees no red or green blue and olive, light and dark."""


def diverging(steps: int = 65) -> list[str]:
    """Colours from falling over unchanged to rising; where little moved the ground shows, dark or light.

    >>> diverging(3)
    ['#c9403af5', '#8b93a129', '#18a1a4f5']
    """
    return [_mixed(2 * i / (steps - 1) - 1) for i in range(steps)]


def _mixed(k: float) -> str:
    strength, end = abs(k) ** 0.85, RISEN if k > 0 else FALLEN
    # A third of the way the hue is pure; from there on only the ground fades.
    parts = [a + (b - a) * min(3 * strength, 1.0) for a, b in zip(_rgb(FLAT), _rgb(end), strict=True)]
    return "#" + "".join(f"{round(part):02x}" for part in (*parts, 255 * (0.16 + 0.8 * strength)))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def plot(**options: Any) -> figure:
    """A figure with transparent ground, faint grid, quiet axes and no toolbar; the theme gives text and ground."""
    defaults: dict[str, Any] = {
        "toolbar_location": None,
        "sizing_mode": "stretch_width",
        "y_axis_location": "right",
        "output_backend": "canvas",
        "min_border": 0,
        "outline_line_color": None,
        "background_fill_alpha": 0.0,
        "border_fill_alpha": 0.0,
    }
    made = figure(**(defaults | options))
    made.grid.grid_line_color = MUTED
    made.grid.grid_line_alpha = GRID_ALPHA
    for axis in made.axis:
        axis.axis_line_color = None
        axis.major_tick_line_color = None
        axis.minor_tick_line_color = None
        axis.major_label_text_color = MUTED
        axis.major_label_text_font = FONT
        axis.major_label_text_font_size = "11px"
    return made


def sign_colour(change: float) -> str:
    """The colour of a change: rising, falling or unchanged (also for NaN)."""
    return UP if change > 0 else DOWN if change < 0 else FLAT


__all__ = ["DataRange1d", "Range1d", "plot", "sign_colour"]
