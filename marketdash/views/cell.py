"""A view in a notebook cell: pumped on the kernel's loop, from the moment the browser shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import panel as pn
from bokeh.models.ui import UIElement
from panel.custom import JSComponent
from panel.io.notebook import block_comm, patch_inline_stylesheets

from marketdash.views.pump import Pump


class Arrival(JSComponent):
    """An invisible piece of the output that calls back when the browser has drawn it.

    What is changed before that moment never reaches the browser: the message has nobody to go to yet.
    """

    # Twice, since the way back to the browser may open a little later than the way to the kernel.
    _esm = """
    export function render({ model }) {
      for (const wait of [100, 1500]) setTimeout(() => model.send_msg("here"), wait)
      return document.createElement("span")
    }
    """

    def __init__(self, arrived: Callable[[], None], **params: Any) -> None:
        self._arrived = arrived
        super().__init__(**({"width": 0, "height": 0, "margin": 0} | params))

    def _handle_msg(self, data: Any) -> None:
        self._arrived()


def in_cell(item: Any) -> Any:
    """What a cell shows for a view, or anything with `market`, `drawn`, `tick`, `redraw`: live where a loop runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return item.drawn
    pump = Pump([item])
    arrived = asyncio.Event()

    def here() -> None:
        item.redraw()
        if arrived.is_set():
            pump.wake()
        else:
            arrived.set()

    def push() -> None:
        with block_comm():
            changed = pump.tick()
        if changed:
            _keep_local(item.drawn)
            pn.io.push_notebook(*_displayed(item.drawn))
        if item.market.closed:
            pump.stop()

    pump.run(push, after=arrived.wait())
    return pn.Column(item.drawn, Arrival(here), sizing_mode="stretch_width", margin=0)


def _keep_local(shown: Any) -> None:
    # A pane that changes names its style sheets anew, at Panel's content network (inline=True only helps at first).
    # Panes would push that at once; blocked, they leave it to us, and held changes of one property are one change.
    for model, _ in getattr(shown, "_models", {}).values():
        for element in model.select({"type": UIElement}):
            patch_inline_stylesheets(element)


def _displayed(shown: Any) -> list[Any]:
    # A push of any pane sends what is held for the whole root; panes that are not rendered have no model.
    return [item for item in shown.select() if getattr(item, "_models", None)][:1]
