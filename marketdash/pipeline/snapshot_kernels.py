"""The compiled loops that take bars out of rings and put them back."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from marketdash.frames.bars import RECORD
from marketdash.pipeline.kernels import compiled, copy_record, ring_at


@compiled
def take_out(ints, base, capacity, first, stop, places, out):
    """Copy the bars of instrument n from number `first[n]` to before `stop[n]` to the record `places[n]` of `out`."""
    for n in range(len(first)):
        for b in range(first[n], stop[n]):
            copy_record(
                out, (places[n] + b - first[n]) * RECORD, ints, ring_at(base, n, b % capacity, capacity)
            )


@compiled
def put_back(ints, base, capacity, low, high, first, places, kept):
    """Copy what `take_out` has written, as far as it lies from number `low[n]` to before `high[n]`, into a ring.

    `high` becomes the number before which bars are still missing; returns of how many instruments.
    """
    missing = 0
    for n in range(len(first)):
        begin = max(first[n], low[n])
        for b in range(begin, high[n]):
            copy_record(
                ints, ring_at(base, n, b % capacity, capacity), kept, (places[n] + b - first[n]) * RECORD
            )
        high[n] = min(high[n], max(begin, low[n]))
        missing += high[n] > low[n]
    return missing
