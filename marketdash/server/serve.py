"""`marketdash serve`: the dashboard and `/health` on one port."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import panel as pn
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from marketdash.errors import SettingsError
from marketdash.pages.overview import Overview
from marketdash.server.app import dashboard
from marketdash.server.health import HealthHandler
from marketdash.server.hub import Hub, is_loopback
from marketdash.settings import Settings
from marketdash.sources.auto import FALLBACK

log = logging.getLogger(__name__)

UNUSED_MS = 15_000


def serve(
    of: Hub,
    *,
    host: str = "127.0.0.1",
    port: int = 5006,
    show: bool = False,
    ready: Callable[[str], None] | None = None,
    unused_ms: int = UNUSED_MS,
) -> None:
    """Serve until interrupted. `ready(url)` is called once the port answers; `unused_ms` is how long the
    session of a browser that has left lives on."""
    of.loopback = is_loopback(host)
    port = check_port(host, port)
    warm(of.settings)
    server = pn.serve(
        {"/": lambda: dashboard(of)},
        address=host,
        port=port,
        title="marketdash",
        show=show,
        start=False,
        websocket_origin=[*(f"{name}:{port}" for name in _names(host)), *of.settings.origins],
        extra_patterns=[(r"/health", HealthHandler, {"of": of})],
        unused_session_lifetime_milliseconds=unused_ms,
        check_unused_sessions_milliseconds=max(unused_ms // 2, 500),
        verbose=False,
    )
    url = f"http://{_names(host)[0]}:{port}"
    server.start()
    _hush(server.io_loop.asyncio_loop)
    if ready is not None:
        server.io_loop.add_callback(ready, url)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        log.info("Stopped.")
    finally:
        of.close()
        server.stop()


def _hush(loop: asyncio.AbstractEventLoop) -> None:
    # A tab that is closed while a tick is on its way is no error; Tornado and Bokeh report it as three.
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), WebSocketClosedError | StreamClosedError):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def check_port(host: str, port: int) -> int:
    """The port to bind (a free one for 0), or an error that says what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = f"Stop what listens there, or take another one: --port {port + 1}, or --port 0 for any free one."
                raise SettingsError(f"Port {port} on {host}", "a free port", "one in use", hint) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                hint = "Ports below 1024 need privileges; take a higher one."
                raise SettingsError(
                    f"Port {port} on {host}", "a port you may open", error.strerror, hint
                ) from error
            raise SettingsError(f"The address {host}", "one of this machine", error.strerror) from error
        return int(probe.getsockname()[1])


def warm(settings: Settings) -> None:
    """Do once what the first viewer would wait for: load the libraries, compile the kernels, draw one page."""
    spare = Hub(settings, source=FALLBACK)
    try:
        screen = Overview(spare)
        screen.page().get_root()
        screen.close()
    finally:
        spare.close()


def _names(host: str) -> tuple[str, ...]:
    """The names under which a browser's page may open its socket."""
    here = ("localhost", "127.0.0.1")  # Bokeh knows no [::1]
    if is_loopback(host):
        return here
    return (*here, socket.gethostname(), socket.getfqdn()) if host in ("0.0.0.0", "::") else (host,)
