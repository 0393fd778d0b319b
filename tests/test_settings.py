"""Settings come from arguments, variables and a file, in this order, and are refused in words."""

from pathlib import Path

import pytest

from marketdash.errors import SettingsError
from marketdash.settings import config_file, load_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _: str(tmp_path / "nobody"))
    for name in ("CONFIG", "PORT", "SOURCE", "PLUGINS", "SESSIONS"):
        monkeypatch.delenv(f"MARKETDASH_{name}", raising=False)


def test_an_argument_wins_over_a_variable_which_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert load_settings().port == 5006
    (tmp_path / "marketdash.toml").write_text('port = 1\nsource = "simulated"\nplugins = ["~/mine"]\n')
    assert (load_settings().port, load_settings().source) == (1, "simulated")
    assert load_settings().plugins == (Path.home() / "mine",)
    monkeypatch.setenv("MARKETDASH_PORT", "2")
    assert load_settings().port == 2
    assert load_settings(port=3).port == 3


def test_lists_in_variables_are_split_and_empty_parts_are_no_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_PLUGINS", ":/a:~/b:")
    monkeypatch.setenv("MARKETDASH_SESSIONS", "")
    monkeypatch.setenv("MARKETDASH_YAHOO_SYMBOLS", "AAPL, MSFT,")
    settings = load_settings()
    assert settings.plugins == (Path("/a"), Path.home() / "b")
    assert settings.sessions == (), "an empty variable must not name the working folder"
    assert settings.yahoo_symbols == ("AAPL", "MSFT")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", ["'prot'", "Settings: bars"]),
        ("port = 70000", ["'port'", "65535", "70000"]),
        ("display_hz = nan", ["'display_hz'"]),
        ("port = ", ["TOML", "marketdash.toml"]),
    ],
)
def test_what_cannot_be_used_is_named(text: str, words: list[str], tmp_path: Path):
    (tmp_path / "marketdash.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_variable_that_is_no_json_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MARKETDASH_LICENCES", "{mine")
    with pytest.raises(SettingsError, match="environment.*licences"):
        load_settings()


def test_the_file_can_be_named_and_must_then_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert config_file() is None
    monkeypatch.setenv("MARKETDASH_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(SettingsError, match=r"other\.toml"):
        load_settings()
    (tmp_path / "other.toml").write_text("port = 9")
    assert load_settings().port == 9


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]
