"""The files that describe the package agree with one another."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT_TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PROJECT_TEXT)["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]

# Packages that conda-forge lists under another name than the package index does.
CONDA_NAMES: dict[str, str] = {}


def locked() -> dict[str, list[tuple[str, int]]]:
    """Read the lock: name to (version, number of hashes), one for each platform or Python that differs."""
    found: dict[str, list[tuple[str, int]]] = {}
    for block in re.split(r"\n(?=\S)", LOCK):
        head = re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", block)
        assert head, f"requirements.lock has a line that pins nothing: {block[:80]}"
        found.setdefault(canonicalize_name(head[1]), []).append((head[2], block.count("--hash=sha256:")))
    return found


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT, ids=lambda requirement: requirement.name)
def test_a_dependency_is_locked_within_its_range_and_with_hashes(requirement):
    pins = locked().get(canonicalize_name(requirement.name))
    assert pins, "run 'make lock'"
    for version, hashes in pins:
        assert requirement.specifier.contains(version), f"{version} is outside {requirement}: run 'make lock'"
        assert hashes


def test_every_package_of_the_lock_has_hashes():
    assert not [name for name, pins in locked().items() if not all(hashes for _, hashes in pins)]


def test_the_lock_names_no_package_index():
    # Which index serves the packages is the business of the machine that installs them.
    assert not re.findall(r"^.*(?:://|--(?:extra-)?index|--find-links|^-i ).*$", LOCK, re.MULTILINE)


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT, ids=lambda requirement: requirement.name)
def test_a_dependency_has_a_line_and_a_reason_of_its_own(requirement):
    line = re.compile(rf'^ +"{re.escape(requirement.name)}[<>=~;\[][^"]*", +# \S.{{10,}}$', re.MULTILINE)
    assert len(line.findall(PROJECT_TEXT)) == 1, f"{requirement.name} needs one line with a comment behind it"


def test_the_conda_environment_asks_for_the_same_packages_and_ranges():
    wanted = {CONDA_NAMES.get(name := canonicalize_name(r.name), name): r.specifier for r in RUNTIME}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    given = {requirement.name: requirement.specifier for requirement in map(Requirement, listed[2:])}
    assert listed[:2] == ["python=3.11", "pip"]
    assert given == wanted


def test_the_changelog_starts_with_the_version_of_the_project():
    versions = re.findall(
        r"^## \[([^]]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert versions[0] == PROJECT["version"]


def test_the_package_tells_the_version_of_the_project():
    import marketdash

    assert marketdash.__version__ == PROJECT["version"]
