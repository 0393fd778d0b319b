"""The manifest of a session log: what was recorded, where it came from, and the hash of its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from marketdash.clock import to_us
from marketdash.errors import ClockError, LogError, UnknownNameError
from marketdash.schema import SCHEMA_VERSION, topic

MANIFEST = "manifest.json"
FORMAT = "marketdash session log"
_AT_ONCE = 1 << 18

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Model):
    """One Parquet file of a log. `sha256` is over the rows, since the file's bytes change with its writer."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    rows: int = Field(ge=0)
    sha256: Sha256


class Highlight(_Model):
    """A moment worth going to."""

    time: str
    text: str

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        return _time(value)


class Manifest(_Model):
    """What `manifest.json` holds; times are ISO 8601 with zone."""

    format: Literal["marketdash session log"] = FORMAT  # type: ignore[assignment]
    version: int
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    title: str
    note: str = Field("", description="one line that says what is special about this session")
    source: str
    calendar: str
    tz: str
    first: str
    last: str
    start: str = Field("", description="where a replay starts when nobody says otherwise")
    pace: float = Field(60.0, gt=0, description="active seconds per second when nobody says otherwise")
    cadence: float = Field(60.0, gt=0, description="seconds of trading between two events of an instrument")
    lateness: float = Field(
        0.0, ge=0, description="seconds after a bar's end within which its trades may come"
    )
    horizon: float = Field(31_622_400.0, gt=0, description="seconds within which a trade may revise bars")
    redistributable: bool = False
    licence: str = ""
    provenance: dict[str, Any] = {}
    highlights: tuple[Highlight, ...] = ()
    instruments: Part
    topics: Annotated[dict[str, Part], Field(min_length=1)]

    @field_validator("tz")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            to_us("2000-01-01", value)
        except (ClockError, LookupError, OSError):
            raise ValueError("the name of a time zone, such as America/New_York") from None
        return value

    @field_validator("first", "last", "start")
    @classmethod
    def _are_times(cls, value: str) -> str:
        return _time(value) if value else value

    @field_validator("topics")
    @classmethod
    def _are_known(cls, value: dict[str, Part]) -> dict[str, Part]:
        for name in value:
            try:
                topic(name)
            except UnknownNameError as error:
                raise ValueError(str(error)) from None
        return value

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of the log in `folder`."""
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise LogError(f"{folder}", f"a session log with a {MANIFEST}", "no such file") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise LogError(f"{path}", "a readable JSON document", str(error)) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise LogError(f"{path}", f'"format": "{FORMAT}"', _short(document))
        if document.get("version") != SCHEMA_VERSION:
            hint = "Rebuild the log, or use the version of marketdash that wrote it."
            raise LogError(f"{path}", f"schema version {SCHEMA_VERSION}", document.get("version"), hint)
        return cls.checked(document, path)

    @classmethod
    def checked(cls, document: Mapping[str, Any], path: Path) -> Manifest:
        """Make a manifest of these fields, or raise the first one that does not fit."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            expected = first["msg"].removeprefix("Value error, ")
            unknown = first["type"] == "extra_forbidden"
            hint = f"The fields are {', '.join(cls.model_fields)}." if unknown else ""
            raise LogError(f"{path}, field {field!r}", expected, _short(first.get("input")), hint) from error

    def write(self, folder: Path) -> None:
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def content_hash(table: pa.Table) -> str:
    """SHA-256 of the rows of a table: column names, types, validity and values, whatever file held them."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        _update(digest, name, column.type, column.iterchunks, len(column), column.null_count)
    return digest.hexdigest()


def file_hash(path: Path) -> tuple[int, str]:
    """Rows and `content_hash` of a Parquet file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        for i, field in enumerate(file.schema_arrow):
            nulls = sum(group.column(i).statistics.null_count for group in groups if group.num_rows)
            chunks = partial(_column_of, file, field.name)
            _update(digest, field.name, field.type, chunks, file.metadata.num_rows, nulls)
        return file.metadata.num_rows, digest.hexdigest()


def _column_of(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    for batch in file.iter_batches(batch_size=_AT_ONCE, columns=[name], use_threads=False):
        yield batch.column(0)


def _update(
    digest: Any, name: str, kind: pa.DataType, chunks: Callable[[], Iterable[pa.Array]], rows: int, nulls: int
) -> None:
    encoded = pa.types.is_dictionary(kind)
    kind = kind.value_type if encoded else kind
    digest.update(f"\0{name}:{kind}:{rows}:".encode())
    if nulls:
        for chunk in chunks():
            digest.update(_bytes(chunk.is_valid()))
    else:
        digest.update(b"full")
    values = (chunk.cast(kind) if encoded else chunk for chunk in chunks())
    if pa.types.is_string(kind):
        # Numbered in order of first appearance, hence canonical; the names come before the numbers.
        numbers: dict[str, int] = {}
        indices = [_numbered(array, numbers) for array in values]
        digest.update(json.dumps(list(numbers)).encode())
        for part in indices:
            digest.update(part)
        return
    for array in values:
        digest.update(_values(array))


def _numbered(array: pa.Array, numbers: dict[str, int]) -> bytes:
    encoded = array.fill_null("").dictionary_encode()
    places = [numbers.setdefault(value, len(numbers)) for value in encoded.dictionary.to_pylist()]
    numbered: bytes = np.array(places, np.int32)[encoded.indices.to_numpy()].tobytes()
    return numbered


def _values(array: pa.Array) -> bytes:
    if pa.types.is_boolean(array.type):
        return _bytes(array.fill_null(False))
    width = {32: pa.int32(), 64: pa.int64()}
    if pa.types.is_temporal(array.type):
        array = array.view(width[array.type.bit_width])
    return _bytes(array.fill_null(0))


def _bytes(array: pa.Array) -> bytes:
    values: bytes = array.to_numpy(zero_copy_only=False).tobytes()
    return values


def _time(value: str) -> str:
    try:
        to_us(value)
    except ClockError:
        raise ValueError("a time in ISO 8601, such as 2018-11-16T09:30:00-05:00") from None
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
