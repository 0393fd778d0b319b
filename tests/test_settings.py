"""Settings: a file, the environment, and which wins."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from marketdash.errors import SettingsError
from marketdash.settings import Settings, config_file, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty working folder, and an environment in which nothing is set."""
    for name in list(os.environ):
        if name.upper().startswith("MARKETDASH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XDG_CONFIG_DIRS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refusal(**overrides: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(**overrides)
    return caught.value


def test_without_a_file_and_variables_the_defaults_hold():
    settings = load_settings()
    assert config_file() is None
    assert (settings.source, settings.host, settings.port) == ("auto", "127.0.0.1", 5006)
    assert settings.sessions == settings.plugins == settings.yahoo_symbols == ()


def test_a_file_wins_over_defaults_a_variable_over_the_file_an_argument_over_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder / "marketdash.toml", 'port = 1\nreplays = 2\nhost = "a"\n')
    monkeypatch.setenv("MARKETDASH_REPLAYS", "3")
    monkeypatch.setenv("MARKETDASH_HOST", "b")
    settings = load_settings(host="c")
    assert (settings.port, settings.replays, settings.host) == (1, 3, "c")
    assert settings.display_hz == 5.0


def test_the_named_file_goes_before_the_working_folders_and_that_before_the_users(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder / "config" / "marketdash" / "marketdash.toml", "port = 1\n")
    assert load_settings().port == 1
    write(folder / "marketdash.toml", "port = 2\n")
    assert load_settings().port == 2
    monkeypatch.setenv("MARKETDASH_CONFIG", str(write(folder / "named.toml", "port = 3\n")))
    assert load_settings().port == 3


def test_nothing_is_kept_from_one_reading_to_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_PORT", "1")
    first = load_settings()
    monkeypatch.setenv("MARKETDASH_PORT", "2")
    assert (first.port, load_settings().port) == (1, 2)


def test_settings_cannot_be_changed_behind_ones_back():
    with pytest.raises(ValidationError):
        load_settings().port = 1  # type: ignore[misc]


def test_a_named_file_that_is_missing_is_refused_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MARKETDASH_CONFIG", str(folder / "gone.toml"))
    error = refusal()
    assert error.where == "MARKETDASH_CONFIG"
    assert error.expected == "the path of a settings file"
    assert error.got == str(folder / "gone.toml")
    assert error.hint


def test_an_unknown_setting_is_refused_with_the_known_ones(folder: Path):
    write(folder / "marketdash.toml", "prot = 5\n")
    error = refusal()
    assert "'prot'" in error.where
    assert "marketdash.toml" in error.where
    assert all(name in error.hint for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "http"),
        ("port", ""),
        ("display_hz", "0"),
        ("display_hz", "nan"),
        ("replays", "0"),
        ("bars", "999"),
        ("yahoo_interval", "0.5"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"MARKETDASH_{name.upper()}", value)
    error = refusal()
    assert repr(name) in error.where
    assert "MARKETDASH_" in error.where
    assert error.expected.startswith("input should be")
    assert value.strip("'") in str(error.got)


def test_a_wrong_value_in_a_file_is_refused_with_the_files_name(folder: Path):
    write(folder / "marketdash.toml", 'port = "http"\n')
    error = refusal()
    assert "'port'" in error.where
    assert "marketdash.toml" in error.where


def test_a_file_that_is_not_toml_is_refused_with_its_name(folder: Path):
    write(folder / "marketdash.toml", "port: 5\n")
    error = refusal()
    assert "marketdash.toml" in error.where
    assert error.expected == "TOML"
    assert "line 1" in str(error.got)


def test_lists_of_folders_are_split_where_the_system_splits_paths(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_PLUGINS", os.pathsep.join(["/a,b", "", " ", "~/c"]))
    monkeypatch.setenv("MARKETDASH_SESSIONS", "/d")
    settings = load_settings()
    assert settings.plugins == (Path("/a,b"), Path.home() / "c")
    assert settings.sessions == (Path("/d"),)


def test_lists_of_symbols_are_split_at_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_YAHOO_SYMBOLS", "AAPL, ^GSPC,,ES=F ,")
    assert load_settings().yahoo_symbols == ("AAPL", "^GSPC", "ES=F")


def test_a_file_may_say_lists_as_lists_or_as_the_variables_do(folder: Path):
    write(folder / "marketdash.toml", f'yahoo_symbols = ["A", "B"]\nplugins = "x{os.pathsep}~/y"\n')
    settings = load_settings()
    assert settings.yahoo_symbols == ("A", "B")
    assert settings.plugins == (Path("x"), Path.home() / "y")


def test_a_table_is_json_in_a_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_LICENCES", '{"yahoo": "by letter"}')
    assert load_settings().licences == {"yahoo": "by letter"}
    monkeypatch.setenv("MARKETDASH_LICENCES", "yahoo")
    error = refusal()
    assert error.expected.startswith("JSON")
    assert "licences" in str(error.got)


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())
