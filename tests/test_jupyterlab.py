"""Two lines in a real JupyterLab give a chart that moves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from serving import PATIENCE_S, end, eventually, free_port

CELLS = """
import marketdash as md
market = md.open("replay:us-2018-11-minute", start="2018-11-16 10:30", pace=300)
md.candles(market, "NVDA", "5min", indicators=["SMA(20)", "RSI(14)"])
"""

STATE = """() => {
  for (const doc of (window.Bokeh ? window.Bokeh.documents : [])) {
    const source = doc.get_model_by_name("bars")
    if (source) return JSON.stringify([Array.from(source.data.i), Array.from(source.data.c).slice(-3)])
  }
  return null
}"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """A JupyterLab on loopback whose folder holds one notebook; it reaches no network."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS.strip())])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "chart.ipynb")
    port = free_port()
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += [
        "--IdentityProvider.token=",
        "--ServerApp.allow_root=True",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "lab.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(f"{url}/api/status"), 2 * PATIENCE_S, "JupyterLab answers")
            yield url
        finally:
            end(process)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(json.load(answer))
    except OSError:
        return False


def test_two_lines_in_jupyterlab_give_a_chart_that_moves(lab: str, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(2 * PATIENCE_S * 1000)
    foreign: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not _is_local(request.url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}/lab/tree/chart.ipynb?reset", wait_until="domcontentloaded")
    # A cell that is run before its kernel is there is not run at all.
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    prompt = page.locator(".jp-Notebook .jp-InputArea-prompt").first

    def run() -> bool:
        # While the notebook is still being laid out a click may get lost, and the keys after it.
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2_000)
        return re.search(r"[*\d]", prompt.inner_text()) is not None

    eventually(run, what="the cell is run")
    page.wait_for_function(f"({STATE})() !== null")
    first = page.evaluate(STATE)
    page.wait_for_function(f"(before) => ({STATE})() !== before", arg=first)

    def numbers() -> list[int]:
        return [int(number) for number in json.loads(page.evaluate(STATE))[0]]

    def whole() -> bool:
        return (found := numbers()) == list(range(found[0], found[-1] + 1))

    # What changed before the browser could be reached comes with the second drawing, soon after the first.
    eventually(whole, what="no bar is missing from the chart")
    newest = numbers()[-1]
    eventually(lambda: numbers()[-1] >= newest + 4, what="more bars")
    assert whole(), "bars are missing from the chart"
    page.locator(".jp-OutputArea-output canvas").first.wait_for(state="attached")
    assert not foreign, f"the notebook asked other machines: {foreign[:3]}"
    assert not errors
    if folder := os.environ.get("MARKETDASH_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/jupyterlab.png")
    page.close()


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "http://localhost"))
