"""What every test may ask for: a browser, the recorded data, and skips that cannot hide."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A fixture here marks the tests that use it, so that no mark can be forgotten.
MARKS = {"chromium": "browser", "real_data": "real_data"}
# How long an example takes, or its making, says more about the machine than about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What a change is judged by must not depend on chance; elsewhere each run tries new examples.
settings.register_profile("steady", settings.get_profile("patient"), derandomize=True)
settings.load_profile("steady" if os.environ.get("MARKETDASH_CI") else "patient")

# Several things are waited for in one test, and each may take long on a machine whose cores are taken.
BROWSER_TIMEOUT_S = 600
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Launch one browser for the session. Its tests are plain functions: they cannot await."""
    playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright_api.sync_playwright() as playwright:
        executable = chromium_path(playwright.chromium.executable_path)
        if executable is None:
            pytest.skip("There is no Chromium: run .ci/install_browser.sh")
        # Playwright's own headless flag would choose the old mode; --headless=new is among the arguments.
        browser = playwright.chromium.launch(
            executable_path=executable, headless=False, args=list(CHROMIUM_ARGUMENTS)
        )
        yield browser
        browser.close()


def chromium_path(bundled: str) -> str | None:
    """Find the system's Chromium, or else Playwright's own."""
    candidates = (*(shutil.which(name) for name in CHROMIUMS), bundled)
    return next((path for path in candidates if path and Path(path).exists()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder of recorded market data, which is too large to travel with the tests."""
    folder = os.environ.get("MARKETDASH_TEST_DATA")
    if not folder:
        pytest.skip("MARKETDASH_TEST_DATA does not name a folder of recorded market data")
    if not Path(folder).is_dir():
        pytest.fail(f"MARKETDASH_TEST_DATA names {folder}, which is not a folder")
    return Path(folder)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKS:
                item.add_marker(MARKS[fixture])
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.timeout(BROWSER_TIMEOUT_S))
    # Once Playwright's loop has started in a process, no test that awaits can run in it.
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if not hasattr(report, "wasxfail"):
        fail_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    fail_skip(report)
    return report


def fail_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where everything is provided, as in continuous integration, a skip is a fault of the set-up."""
    if report.skipped and os.environ.get("MARKETDASH_CI") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"MARKETDASH_CI=1 admits no skip here. {reason}"
