"""`import marketdash` costs next to nothing; what is heavy comes when it is used."""

import json
import subprocess
import sys

HEAVY = {
    "bokeh", "exchange_calendars", "holoviews", "hvplot", "numba", "numpy", "pandas", "panel",
    "panel_material_ui", "pyarrow", "streamz", "talib", "tornado", "typer", "yfinance",
}  # fmt: skip
# The package itself, and what little of the standard library a lazy facade needs.
MODULE_BUDGET = 40

REPORT = """
import json, sys
before = set(sys.modules)
import marketdash
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def modules_after_import() -> list[str]:
    """Import in a process of its own: this one has imported everything already."""
    child = subprocess.run([sys.executable, "-c", REPORT], capture_output=True, text=True, check=True)
    return json.loads(child.stdout)


def test_importing_the_package_imports_no_heavy_library():
    imported = {module.partition(".")[0] for module in modules_after_import()}
    assert not imported & HEAVY, "move these imports to where they are used"


def test_importing_the_package_stays_within_its_module_budget():
    modules = modules_after_import()
    assert len(modules) <= MODULE_BUDGET, f"{len(modules)} modules instead of {MODULE_BUDGET}: {modules}"


def test_every_public_name_resolves():
    import marketdash

    missing = [name for name in getattr(marketdash, "__all__", ()) if not hasattr(marketdash, name)]
    assert not missing
