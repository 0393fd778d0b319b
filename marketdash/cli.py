"""The command line: serve the dashboard, record a market, list what can be replayed, find out what is wrong."""

from __future__ import annotations

import logging
import math
import platform
import re
import signal
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from marketdash import __version__
from marketdash.errors import MarketdashError, SettingsError
from marketdash.settings import config_file, load_settings

if TYPE_CHECKING:
    from marketdash.log.recorder import RecorderStatus
    from marketdash.log.sealing import LeftBehind
    from marketdash.market import Market
    from marketdash.market.recording import Recording

app = typer.Typer(
    name="marketdash",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

SHOWN_VERSIONS = (
    "panel",
    "bokeh",
    "holoviews",
    "streamz",
    "pandas",
    "pyarrow",
    "numba",
    "ta-lib",
    "yfinance",
)


def main() -> None:
    """Run the command line; our own errors are told in a sentence, without a trace."""
    try:
        app()
    except MarketdashError as error:
        err.print(f"[red]{type(error).__name__}[/red] {escape(str(error))}", highlight=False)
        sys.exit(2)


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    """Set up logging."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


@app.command()
def serve(
    source: Annotated[
        str | None, typer.Option(help="auto, simulated, yahoo:SYM,SYM or replay:SESSION")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="port; 0 takes a free one")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    pace: Annotated[float | None, typer.Option(help="replay: seconds of the market in one second")] = None,
    start: Annotated[str | None, typer.Option(help="replay: where to begin, in the exchange's time")] = None,
    show: Annotated[bool, typer.Option("--show", help="open a browser")] = False,
) -> None:
    """Serve the dashboard, and /health beside it."""
    from marketdash.server.hub import Hub, is_loopback
    from marketdash.server.serve import check_port, serve

    settings = load_settings()
    address = host or settings.host
    bound = check_port(address, settings.port if port is None else port)
    hub = Hub(settings, source=source, start=start, pace=pace, loopback=is_loopback(address))
    with err.status("Looking what can be shown …"):
        hub.prepare()
    err.print(f"Source: [bold]{escape(hub.default)}[/bold]. {escape(hub.reason)}", highlight=False)

    def ready(url: str) -> None:
        out.print(
            f"marketdash {__version__} is at [bold]{url}[/bold] (health: {url}/health). Ctrl-C ends it."
        )

    serve(hub, host=address, port=bound, show=show, ready=ready)


@app.command()
def record(
    source: Annotated[
        str | None, typer.Option(help="auto, simulated, yahoo:SYM,SYM or replay:SESSION")
    ] = None,
    name: Annotated[str, typer.Option(help="what the logs are called; the source's name unless given")] = "",
    into: Annotated[
        Path | None, typer.Option(help="folder of the logs; the user's folder of sessions unless given")
    ] = None,
    span: Annotated[
        str, typer.Option("--for", help="how long, as 90s, 10m or 8h; until Ctrl-C unless given")
    ] = "",
    pace: Annotated[float | None, typer.Option(help="replay: seconds of the market in one second")] = None,
    start: Annotated[str | None, typer.Option(help="replay: where to begin, in the exchange's time")] = None,
) -> None:
    """Record a market into session logs, one per trading day, until Ctrl-C; `replay:NAME` plays them."""
    from marketdash.market.opening import make_market

    seconds = _seconds(span) if span else math.inf
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    with make_market(source, start=start, pace=pace) as market:
        if market.source.mode == "replay":  # from its first row on
            recording = market.record(into, name=name)
            market.start()
        else:  # the past that a source tells at its start is not what happens now
            recording = market.start().record(into, name=name)
        _watch(market, recording, seconds, told)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # told twice, it ends at once and leaves its segment
        with err.status("Sealing …"):
            recording.stop()
    raise typer.Exit(_told_result(recording.status))


def _seconds(span: str) -> int:
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", span.strip())
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise SettingsError("--for", "a length of time such as 90s, 10m or 1h30m", repr(span))
    return total


def _watch(market: Market, recording: Recording, seconds: float, told: threading.Event) -> None:
    """Show how the recording goes until the time is over, the source has no more, or somebody says stop."""
    end, rate, before = time.monotonic() + seconds, 0.0, (time.monotonic(), 0)
    with Live(console=err, auto_refresh=False, transient=True) as live:
        while time.monotonic() < end and not told.wait(min(0.5, max(end - time.monotonic(), 0))):
            now, status = time.monotonic(), recording.status
            if now - before[0] >= 1:
                rate, before = (status.rows - before[1]) / (now - before[0]), (now, status.rows)
            if err.is_terminal:
                live.update(Text(_line(market, status, rate, now)), refresh=True)
            if market.status.state == "ended" or _is_played(market):
                return


def _is_played(market: Market) -> bool:
    """Whether this is a replay that has come to its end."""
    from marketdash.clock import ReplayClock

    clock, now = market.clock, market.clock.now_us()
    return isinstance(clock, ReplayClock) and clock.finished and market.source.complete_until(now) == now


def _line(market: Market, status: RecorderStatus, rate: float, now: float) -> str:
    parts = [f"{market.label} {market.source.name}: {market.status.state}", status.state]
    parts += [f"{status.rows:,} rows", f"{rate:,.0f}/s", f"{status.size / 1e6:,.1f} MB"]
    parts.append(f"on the disk {max(now - status.last_flush, 0):.0f} s ago")
    if lost := sum(status.dropped.values()):
        parts.append(f"{lost:,} rows lost")
    if status.state == "failing":
        parts.append(status.last_error)
    elif market.status.message:
        parts.append(market.status.message)
    return " · ".join(parts)


def _told_result(status: RecorderStatus) -> int:
    """Tell what was recorded and what was not; the exit code."""
    for path in status.sealed:
        out.print(f"Recorded {escape(str(path))}", highlight=False)
    out.print(f"{status.rows:,} rows." if status.rows else "Nothing came, so nothing was recorded.")
    for sentence in status.torn:
        err.print(escape(sentence), highlight=False)
    for reason, rows in status.dropped.items():
        err.print(f"[red]Lost[/red] {rows:,} rows: {escape(reason)}", highlight=False)
    if status.errors:
        err.print(
            f"[red]{status.errors} errors[/red], the last one: {escape(status.last_error)}", highlight=False
        )
    return 1 if status.errors or status.dropped else 0


@app.command()
def seal(
    into: Annotated[
        Path | None, typer.Option(help="folder to look in; all folders of sessions unless given")
    ] = None,
) -> None:
    """Make session logs of what recordings that did not end have left behind."""
    from marketdash.log import SessionLibrary

    library = SessionLibrary(None if into is None else [into])
    for sealed in library.seal():
        for sentence in sealed.torn:
            err.print(escape(sentence), highlight=False)
        what = f"{sealed.rows:,} rows in {sealed.path}" if sealed.path else "a recording without a row"
        out.print(f"Sealed {escape(what)}", highlight=False)
    out.print(f"{len(library.segments())} left.")


@app.command()
def sessions() -> None:
    """List the recorded markets that can be replayed."""
    from marketdash.log import SessionLibrary

    library = SessionLibrary()
    table = Table("session", "from", "to", "what is special", box=None)
    for manifest in library.manifests():
        table.add_row(manifest.name, manifest.first[:10], manifest.last[:10], escape(manifest.note))
    segments = {item.path.name: item for item in library.segments()}
    for item in segments.values():
        what = (
            f"being recorded by process {item.pid}"
            if item.pid is not None
            else "not sealed: `marketdash seal`"
        )
        table.add_row(item.path.name, "", "", what)
    out.print(table)
    readable = {manifest.name for manifest in library.manifests()}
    broken = sorted(set(library.paths()) - readable - set(segments))
    if broken:
        err.print(f"Not readable: {', '.join(broken)}. `marketdash doctor` says why.")


@app.command()
def doctor() -> None:
    """Check versions, settings, sessions, plugins, Yahoo and the port; say what to do about each problem."""
    checks = [*_check_versions(), *_check_settings()]
    if all(good is not False for good, _, _ in checks):  # nothing else can be looked at without settings
        checks += [*_check_sessions(), *_check_plugins(), _check_yahoo(), _check_port()]
    table = Table(box=None, show_header=False)
    for good, what, finding in checks:
        mark = {True: "[green]ok[/green]", False: "[red]problem[/red]", None: "[yellow]note[/yellow]"}[good]
        table.add_row(mark, escape(what), escape(finding))
    out.print(table)
    problems = sum(good is False for good, _, _ in checks)
    out.print("All is well." if not problems else f"{problems} problem{'s' if problems > 1 else ''}.")
    raise typer.Exit(1 if problems else 0)


Check = tuple[bool | None, str, str]


def _check_versions() -> list[Check]:
    found, missing = [], []
    for name in SHOWN_VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    right = sys.version_info >= (3, 11)
    checks: list[Check] = [
        (
            right,
            "Python",
            f"{platform.python_version()}" + ("" if right else ": marketdash needs 3.11 or newer"),
        ),
        (True, "marketdash", f"{__version__} with {', '.join(found)}"),
    ]
    if missing:
        checks.append((False, "packages", f"missing: {', '.join(missing)}. Run `make install`."))
    return checks


def _check_settings() -> list[Check]:
    try:
        file = config_file()
        load_settings()
    except MarketdashError as error:
        return [(False, "settings", str(error))]
    return [(True, "settings", str(file) if file else "defaults and environment; no marketdash.toml")]


def _check_sessions() -> list[Check]:
    from marketdash.log import SessionLibrary

    checks: list[Check] = []
    library = SessionLibrary()
    for name, error in library.check().items():
        checks.append((error is None, f"session {name}", str(error) if error else "whole and in order"))
    checks += [_of_segment(item) for item in library.segments()]
    return checks or [
        (False, "sessions", "none found. Run `python data/build.py`, or reinstall the package.")
    ]


def _of_segment(item: LeftBehind) -> Check:
    name = f"recording {item.path.name}"
    if item.error is not None:
        return False, name, f"{item.error} Move {item.path} away, or delete it."
    if item.pid is not None:
        return True, name, f"is being written by process {item.pid}"
    torn = "".join(f" {sentence}" for sentence in item.torn)
    finding = f"was not ended; {item.rows:,} rows are whole and can be replayed.{torn}"
    return None, name, f"{finding} `marketdash seal` makes a session log of it."


def _check_plugins() -> list[Check]:
    from marketdash.indicators.base import INDICATORS
    from marketdash.registry import Registry
    from marketdash.sources.base import SOURCES
    from marketdash.views.base import VIEWS

    checks: list[Check] = []
    registries: list[Registry] = [SOURCES, INDICATORS, VIEWS]  # type: ignore[type-arg]
    for registry in registries:
        checks.append((True, f"{registry.kind}s", f"{len(list(registry))} found"))
        for what, error in registry.failures.items():
            finding = f"{what}: {type(error).__name__}: {error}"
            if (False, "plugin", finding) not in checks:
                checks.append((False, "plugin", finding))
    return checks


def _check_yahoo() -> Check:
    from marketdash.providers.yahoo import YahooClient
    from marketdash.sources.auto import PATIENCE_S

    answer = YahooClient(base_url=load_settings().yahoo_url).probe(PATIENCE_S)
    if answer:
        return True, "Yahoo", "answers; the default source shows it"
    return None, "Yahoo", f"{answer.reason} The default source replays us-2010-daily instead."


def _check_port() -> Check:
    from marketdash.server.serve import check_port

    settings = load_settings()
    try:
        check_port(settings.host, settings.port)
    except MarketdashError as error:
        return False, f"port {settings.port}", str(error)
    return True, f"port {settings.port}", f"free on {settings.host}"
