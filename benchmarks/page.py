"""The page: what a viewer costs when it comes, and at every display tick."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from bokeh.document import Document
from bokeh.protocol import Protocol
from panel.io.state import set_curdoc

from benchmarks.report import Report, seconds
from marketdash.pages.overview import Overview
from marketdash.server.hub import Hub
from marketdash.settings import load_settings

TICKS = 60


def run(report: Report) -> None:
    """Measure one recorded and one simulated screen, on the server's side."""
    for name, source in (("recorded", "replay:us-2010-daily"), ("simulated", "simulated")):
        asyncio.run(measure(report, name, source))


async def measure(report: Report, name: str, source: str) -> None:
    """Build pages of a market that runs, then let it tick."""
    hub = Hub(load_settings(), source=source)
    hub.take(source, "anonymous")  # a shared market is there before the viewer comes
    screens: list[Overview] = []

    def build() -> None:
        screen = Overview(hub)
        with set_curdoc(Document()):
            screen.page().get_root()
        screens.append(screen)

    build()
    report.add(
        f"page.build_ms.{name}", seconds(build, 5) * 1e3, "ms", "one viewer's page, until its models exist"
    )
    for screen in screens[1:]:
        screen.close()
    await tick(report, name, screens[0])
    screens[0].close()
    hub.close()


async def tick(report: Report, name: str, screen: Overview) -> None:
    """Seconds of processor time and bytes per display tick of one viewer."""
    doc = Document()
    with set_curdoc(doc):
        doc.add_root(screen.page().get_root(doc))
    events: list[object] = []
    doc.on_change_dispatch_to(_Listener(events))
    protocol, times, sizes, busy = Protocol(), [], [], 0
    for _ in range(TICKS):
        await asyncio.sleep(screen.pump.period)
        events.clear()
        begin = time.process_time()
        with set_curdoc(doc):
            busy += screen.pump.tick()
        if events:
            message = protocol.create("PATCH-DOC", list(events))
            size = len(message.content_json) + sum(len(buffer.to_bytes()) for buffer in message.buffers)
            sizes.append(size)
        times.append(time.process_time() - begin)
    assert busy > TICKS / 10, "nothing moved, so nothing was measured"
    assert sizes, "nothing was sent"
    report.add(
        f"page.update_ms.{name}",
        median(times) * 1e3,
        "ms",
        "processor time of one display tick of one viewer",
    )
    report.add(
        f"page.update_ms.{name}.mean", sum(times) / len(times) * 1e3, "ms", "the same, mean: with slow views"
    )
    report.add(
        f"page.update_bytes.{name}",
        median(sizes),
        "bytes",
        "sent to one viewer in a tick that changed something",
    )
    share = sum(times) / len(times) / screen.pump.period
    report.add(
        f"page.viewers_per_core.{name}", 1 / share, "viewers", f"at {1 / screen.pump.period:g} ticks a second"
    )


class _Listener:
    def __init__(self, events: list[object]) -> None:
        self.events = events

    def _document_patched(self, event: object) -> None:
        self.events.append(event)
