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
