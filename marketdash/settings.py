"""What an operator may choose: defaults, then `marketdash.toml`, then `MARKETDASH_*` variables.

The file is looked for in the working folder, then in the user's configuration folder; a variable
`MARKETDASH_CONFIG` names another one. Nothing is read before somebody asks.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from marketdash.errors import SettingsError


class Settings(BaseSettings):
    """Each field is a setting: `MARKETDASH_<FIELD>` in the environment, `<field>` in the file."""

    model_config = SettingsConfigDict(env_prefix="MARKETDASH_", extra="forbid", frozen=True)

    source: str = Field("auto", description="what to open: auto, simulated, yahoo:SYM,SYM or replay:SESSION")
    host: str = Field("127.0.0.1", description="address to serve on")
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="further host:port names by which browsers reach the server, through a proxy say"
    )
    port: int = Field(5006, ge=0, le=65535, description="port to serve on; 0 takes any free one")
    display_hz: float = Field(5.0, gt=0, le=30, description="how often a screen is brought up to date")
    replays: int = Field(32, ge=1, description="private replays that may run in one process")
    bars: int = Field(1_000_000, ge=1000, description="bars kept per width, over all instruments")
    snapshots_mb: int = Field(
        4_000, ge=0, description="disk by which long replays go back quickly, over all of one process"
    )
    sessions: Annotated[tuple[Path, ...], NoDecode] = Field((), description="further folders of session logs")
    plugins: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders whose .py files are imported"
    )
    yahoo_symbols: Annotated[tuple[str, ...], NoDecode] = Field((), description="symbols for source yahoo")
    yahoo_interval: float = Field(15.0, ge=1, le=86_400, description="seconds between two Yahoo polls")
    yahoo_url: str = Field("", description="send Yahoo requests to this address instead (a test server)")
    licences: dict[str, str] = Field(
        {}, description="source name → the licence under which the operator may show it to others"
    )

    @field_validator("sessions", "plugins", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        # An empty part would be the working folder, whose files nobody asked to import.
        return [part for part in value.split(os.pathsep) if part.strip()] if isinstance(value, str) else value

    @field_validator("sessions", "plugins")
    @classmethod
    def _expand(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser() for path in value)

    @field_validator("yahoo_symbols", "origins", mode="before")
    @classmethod
    def _split_symbols(cls, value: Any) -> Any:
        return (
            [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file()
        layers: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        return (*layers, TomlConfigSettingsSource(settings_cls, file)) if file else layers


def config_file() -> Path | None:
    """The settings file in use, or None."""
    if named := os.environ.get("MARKETDASH_CONFIG"):
        path = Path(named).expanduser()
        if not path.is_file():
            hint = "Correct the variable, or unset it."
            raise SettingsError("MARKETDASH_CONFIG", "the path of a settings file", str(path), hint)
        return path
    places = (Path("marketdash.toml"), Path(platformdirs.user_config_dir("marketdash")) / "marketdash.toml")
    return next((path for path in places if path.is_file()), None)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings now; `overrides` win over variables and file."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        file = config_file()
        variable = f"MARKETDASH_{field.upper()}"
        # The first that could be to blame, in the order in which they win.
        if field in overrides:
            origin = "an argument"
        elif variable in os.environ or file is None:
            origin = variable
        else:
            origin = str(file)
        where = f"The setting {field!r} ({origin})"
        known = ", ".join(sorted(Settings.model_fields))
        hint = f"Settings: {known}." if first["type"] == "extra_forbidden" else ""
        raise SettingsError(where, first["msg"].lower(), repr(first.get("input")), hint) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The settings file {config_file()}", "TOML", str(error)) from error
    except SettingsError:  # which is a ValueError too
        raise
    except ValueError as error:  # a variable that should hold JSON and does not
        raise SettingsError("A setting in the environment", "JSON where it is a table", str(error)) from error


def user_data_dir() -> Path:
    """Where this user's recorded sessions and caches belong."""
    return Path(platformdirs.user_data_dir("marketdash"))
