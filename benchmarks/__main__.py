"""Run the benchmark groups: every module of this package that has a `run(report)`, which all but `PARTS` have."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.report import LATEST, Report

PARTS = {"__main__", "report", "day", "expected", "peers", "latency", "indicators"}
"""Modules that are no group of their own; the engine measures latency and indicators with the rest."""


def main() -> None:
    """Run the chosen groups one after the other and write the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated groups; all when empty")
    groups = {}
    for module in pkgutil.iter_modules(benchmarks.__path__, "benchmarks."):
        if (name := module.name.rpartition(".")[2]) not in PARTS:
            groups[name] = module.name
    chosen = [name.strip() for name in parser.parse_args().only.split(",") if name.strip()] or sorted(groups)
    if unknown := set(chosen) - set(groups):
        parser.error(f"unknown group {', '.join(sorted(unknown))}; groups: {', '.join(sorted(groups))}")
    report = Report()
    print(report.on)
    for name in chosen:
        importlib.import_module(groups[name]).run(report)
        report.write()
    print(f"Written to {LATEST}.")


if __name__ == "__main__":
    main()
