"""The first screen: seconds from opening the address to moving candles and a treemap, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from statistics import median

from benchmarks.report import Report

RUNS = 5
PAINTED = """() => {
  const models = []
  for (const doc of (window.Bokeh ? window.Bokeh.documents : [])) models.push(...doc._all_models.values())
  const sources = models.filter((model) => model.type === "ColumnDataSource")
  const candles = sources.some((source) => source.name === "bars" && source.data.i.length)
  const tiles = Math.max(0, ...sources.filter((s) => "left" in s.data).map((s) => s.data.left.length))
  return candles && tiles >= 300 && Bokeh.documents[0].is_idle
}"""
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def run(report: Report) -> None:
    """Serve the recorded market, open it in fresh browsers."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-c", "from marketdash.cli import main; main()", "serve", "--port", "0"]
    command += ["--source", "replay:us-2010-daily"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        try:
            assert server.stdout is not None
            url = next(
                found.group() for line in server.stdout if (found := re.search(r"http://\S+?:\d+", line))
            )
            report.add(
                "page.serve_s", time.perf_counter() - begin, "s", "from the command to an open port, warmed"
            )
            with sync_playwright() as playwright:
                path = shutil.which("chromium") or shutil.which("google-chrome")
                browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
                times = [paint(browser, url) for _ in range(RUNS)]
                browser.close()
        finally:
            server.terminate()
    what = "from opening the page to candles and a treemap of 300 stocks and more, an empty browser cache"
    report.add("page.first_paint_s", median(times), "s", what)
    report.add("page.first_paint_s.max", max(times), "s", f"the slowest of {RUNS}")


def paint(browser: object, url: str) -> float:
    """Seconds until a page in a fresh profile shows what it is for."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})  # type: ignore[attr-defined]
    page = context.new_page()
    begin = time.perf_counter()
    page.goto(url)
    page.wait_for_function(PAINTED, timeout=60_000, polling=50)
    elapsed = time.perf_counter() - begin
    context.close()
    return elapsed
