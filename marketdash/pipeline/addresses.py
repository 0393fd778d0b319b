"""Where the columns of a batch of ticks lie in memory, so that kernels read them in place.

To ask pyarrow for one column takes 2 µs, for all of a batch more than a hundred ticks take to become bars. The
Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html) tells all of them at once in 7 µs.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,call-arg,var-annotated"
from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from marketdash.pipeline import columns
from marketdash.pipeline.kernels import (
    add_ticks,
    check_ticks,
    compiled,
    inlined,
    site_ticks,
    span_of_times,
    stamp_rows,
)
from marketdash.schema import TOPICS

Ints = npt.NDArray[np.int64]

READ = ("instrument_id", "time", "known_at", "seq", "price", "size", "conditions", "session", "trading_day")
KNOWN_AT, SEQ, SIZE, CONDITIONS, SESSION, DAY = (
    READ.index(name) for name in ("known_at", "seq", "size", "conditions", "session", "trading_day")
)
COLUMNS = 9
"""Addresses of a batch: the first seven of READ, then those of what each tick changes and of its segment."""

FULL, EMPTY, MIXED = range(3)
"""Whether a column has no nulls, nothing but nulls, or some."""

_CHILDREN, _BUFFERS, _OFFSET, _NULLS = 48, 40, 16, 8
"""Places of the members of a `struct ArrowArray`."""

_NAMES = TOPICS["ticks"].schema.names
_PLACES = np.array([_NAMES.index(name) for name in READ], np.int64)
_SIZES = np.array([TOPICS["ticks"].schema.field(name).type.bit_width // 8 for name in READ], np.int64)

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Ticks(NamedTuple):
    """The columns of ticks as kernels see them.

    `effects` are bits of `marketdash.conditions`, `rows` the segments of the sessions' table.
    """

    ids: npt.NDArray[np.int32]
    times: Ints
    known: Ints
    seqs: Ints
    prices: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    conditions: npt.NDArray[np.uint32]
    effects: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int32]


class TickColumns:
    """The addresses of one batch after the other; what they lead to lives until the next one is read."""

    def __init__(self) -> None:
        self.addresses = np.zeros(COLUMNS, np.int64)
        self.nulls = np.zeros(len(READ), np.int64)
        self.length = 0
        self._alive: Any = None
        self._make_room(1024)

    def _make_room(self, rows: int) -> None:
        self._no_seq = np.full(rows, -1, np.int64)
        self._no_size = np.full(rows, np.nan)
        self._no_conditions = np.zeros(rows, np.uint32)
        self.effects, self.rows = np.zeros(rows, np.uint8), np.zeros(rows, np.int32)
        self.verdict = np.zeros(rows, np.int8)
        self._site = (self.effects.ctypes.data, self.rows.ctypes.data)
        self._missing = {
            SEQ: self._no_seq.ctypes.data,
            SIZE: self._no_size.ctypes.data,
            CONDITIONS: self._no_conditions.ctypes.data,
        }

    def read(self, batch: pa.RecordBatch) -> None:
        """Find the columns of a batch in the topic's schema; what is null reads as -1, NaN or no condition.

        Only known-at must be there: `nulls[KNOWN_AT]` tells if it is not.
        """
        self.length = batch.num_rows
        if self.length > len(self.effects):
            self._make_room(2 * self.length)
        capsules = batch.__arrow_c_array__()
        _locate(_pointer_of(capsules[1], b"arrow_array"), _PLACES, _SIZES, self.addresses, self.nulls)
        self._alive = capsules, batch
        self.addresses[-2:] = self._site
        if self.nulls[: CONDITIONS + 1].any() and not self.nulls[KNOWN_AT]:
            self._fill(batch)

    def _fill(self, batch: pa.RecordBatch) -> None:
        for place, address in self._missing.items():
            if self.nulls[place] == EMPTY:
                self.addresses[place] = address
        if (self.nulls[: CONDITIONS + 1] == MIXED).any():
            filled = (*columns.ticks(batch), columns.conditions(batch))
            self._alive = filled
            self.addresses[: CONDITIONS + 1] = [column.ctypes.data for column in filled]


@intrinsic
def _load(typingctx, address):
    """The eight bytes at an address."""

    def generate(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], cgutils.intp_t.as_pointer()))

    return types.int64(types.int64), generate


@intrinsic
def _array(typingctx, address, length, dtype):
    """The array of so many values at an address, which somebody else keeps alive."""
    made = types.Array(dtype.instance_type, 1, "C")

    def generate(context, builder, signature, args):
        array = context.make_array(made)(context, builder)
        item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(made.dtype)))
        populate_array(
            array,
            data=builder.inttoptr(args[0], array.data.type),
            shape=[args[1]],
            strides=[item],
            itemsize=item,
            meminfo=None,
        )
        return array._getvalue()

    return made(types.int64, types.int64, dtype), generate


@compiled
def _locate(batch, places, sizes, addresses, nulls):
    """Write the address of each column's first value, and whether there are nulls among them."""
    length, children, begin = _load(batch), _load(batch + _CHILDREN), _load(batch + _OFFSET)
    for k in range(len(places)):
        child = _load(children + 8 * places[k])
        buffers, offset = _load(child + _BUFFERS), _load(child + _OFFSET) + begin
        validity, missing = _load(buffers), _load(child + _NULLS)
        if k < len(addresses) - 2:
            addresses[k] = _load(buffers + 8) + offset * sizes[k]
        if validity == 0:
            missing = 0
        elif missing < 0 or begin or _load(child) != length:
            bits = _array(validity, (offset + length + 7) // 8, np.uint8)
            missing = 0
            for i in range(offset, offset + length):
                missing += not bits[i >> 3] >> (i & 7) & 1
        nulls[k] = FULL if missing == 0 else EMPTY if missing == length else MIXED


@inlined
def ticks_at(addresses, length):
    """The columns that lie at these addresses."""
    return Ticks(
        _array(addresses[0], length, np.int32),
        _array(addresses[1], length, np.int64),
        _array(addresses[2], length, np.int64),
        _array(addresses[3], length, np.int64),
        _array(addresses[4], length, np.float64),
        _array(addresses[5], length, np.float64),
        _array(addresses[6], length, np.uint32),
        _array(addresses[7], length, np.uint8),
        _array(addresses[8], length, np.int32),
    )


@compiled
def check(addresses, length, reach, tapes, rules, tick_sizes, segments, spans, pointers, band, recent, recent_floats,
          recent_ints, appended, verdict):  # fmt: skip
    """`kernels.check_ticks`; -1, and nothing done, if the table of sessions must grow: to the last two of `reach`.

    `reach` begins with the moments from which and to which it reaches now.
    """
    ticks = ticks_at(addresses, length)
    first, last = span_of_times(ticks.ids, ticks.times, ticks.known)
    if last and (first < reach[0] or last > reach[1]):
        reach[2], reach[3] = first, last
        return -1
    return check_ticks(
        ticks, tapes, rules, tick_sizes, segments, spans, pointers, band, recent, recent_floats, recent_ints, appended,
        verdict,
    )  # fmt: skip


@compiled
def site(addresses, length, tapes, rules, segments, spans, pointers):
    """`kernels.site_ticks`."""
    site_ticks(ticks_at(addresses, length), tapes, rules, segments, spans, pointers)


@compiled
def stamp(addresses, length, segments, sessions, days):
    """Session and trading day of ticks whose segments are known."""
    ticks = ticks_at(addresses, length)
    stamp_rows(ticks.rows, segments, sessions, days)


@compiled
def add(begin, addresses, length, lateness, horizon, store, segments, last, late):
    """`kernels.add_ticks`."""
    return add_ticks(begin, ticks_at(addresses, length), lateness, horizon, store, segments, last, late)
