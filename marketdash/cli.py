"""The command line: serve the dashboard, list what can be replayed, find out what is wrong."""

from __future__ import annotations

import logging
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marketdash import __version__
from marketdash.errors import MarketdashError
from marketdash.settings import config_file, load_settings

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
def sessions() -> None:
    """List the recorded markets that can be replayed."""
    from marketdash.log import SessionLibrary

    library = SessionLibrary()
    table = Table("session", "from", "to", "what is special", box=None)
    for manifest in library.manifests():
        table.add_row(manifest.name, manifest.first[:10], manifest.last[:10], escape(manifest.note))
    out.print(table)
    readable = {manifest.name for manifest in library.manifests()}
    broken = sorted(set(library.paths()) - readable)
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
    for name, error in SessionLibrary().check().items():
        checks.append((error is None, f"session {name}", str(error) if error else "whole and in order"))
    return checks or [
        (False, "sessions", "none found. Run `python data/build.py`, or reinstall the package.")
    ]


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
