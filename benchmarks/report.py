"""Collects figures and writes them as `benchmarks/latest.json`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

LATEST = Path(__file__).with_name("latest.json")


def machine() -> str:
    """Processor, cores and Python of this machine, in one line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


@dataclass
class Report:
    """Flat keys, each with value, unit, what was measured, and the machine."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    on: str = field(default_factory=machine)

    def add(
        self,
        key: str,
        value: float,
        unit: str,
        what: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Take a figure, with the bar that it shall reach if there is one."""
        figure = {"value": float(f"{value:.4g}"), "unit": unit, "what": what, "machine": self.on}
        bar = ""
        if at_least is not None or at_most is not None:
            met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
            bar = f"≥ {at_least:,.10g}" if at_least is not None else f"≤ {at_most:,.10g}"
            figure |= {"bar": bar, "met": met}
            bar += " met" if met else " MISSED"
        self.figures[key] = figure
        shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        print(f"{key:44s} {shown:>14s} {unit:12s} {bar:20s} {what}", flush=True)

    def write(self, path: Path = LATEST) -> None:
        """Bring the file up to date: keys that were not measured this time keep their figures."""
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(
            json.dumps(dict(sorted((known | self.figures).items())), indent=1) + "\n", encoding="utf-8"
        )


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return median(times)
