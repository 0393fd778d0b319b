"""One viewer's dashboard, for `panel serve` and for `marketdash serve`."""

from __future__ import annotations

import logging
from typing import Any

import panel as pn
from panel.io.resources import LOCAL_DIST

from marketdash.pages.overview import Overview
from marketdash.server.hub import Hub, hub

log = logging.getLogger(__name__)


def dashboard(of: Hub | None = None) -> Any:
    """Make the page of this session: its own screen and replay, freed when the browser leaves.

    What the address names (`?source=…&symbol=…`) is shown, and the address follows what is chosen.
    """
    used = of or hub()
    query = pn.state.location.query_params if pn.state.location else {}
    wanted = {name: str(query[name]) for name in ("source", "symbol") if query.get(name)}
    screen = Overview(
        used, principal=pn.state.user or "anonymous", display_hz=used.settings.display_hz, **wanted
    )
    doc = pn.state.curdoc
    if doc is not None:
        # A session that is made anew for a socket (its page was rendered by another process, or long ago)
        # has rendered no page; without this its panes would name style sheets on Panel's content network.
        doc.template_variables.setdefault("dist_url", LOCAL_DIST)
    if pn.state.location is not None:
        pn.state.location.sync(screen, {"source": "source", "symbol": "symbol"})
    if doc is not None:
        used.screens.add(screen)
        screen.pump.start(doc)

        def leave(_: Any) -> None:
            used.screens.discard(screen)
            screen.close()

        doc.on_session_destroyed(leave)
    return screen.page()
