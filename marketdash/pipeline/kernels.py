"""The compiled loops of the pipeline: one pass over the rows of a batch, state in arrays.

Rows are handled strictly one after the other, so that sums are formed in the same order however the
rows were cut into batches. Columns of rings are those of `frames.bars`, of last prices those of
`frames.last`, of segments those of `calendars.Segments`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from marketdash.frames.bars import (
    CLOSE,
    COUNT,
    DAY,
    END,
    GIVEN,
    HIGH,
    KNOWN,
    LOW,
    OPEN,
    REVISION,
    SESSION,
    TIME,
    TURNOVER,
    VOLUME,
)
from marketdash.frames.last import LastPrices

Kernel = Any
"""A compiled function; numba's dispatcher has no type that mypy knows."""

REGULAR = 1
DAY_US = 86_400_000_000
S_START, S_END, S_SESSION, S_DAY, S_OPEN, S_CLOSE, S_OFFSET = range(7)
REVISED, TOO_LATE = range(2)

L_LAST, L_PREVIOUS, L_REGULAR, L_BID, L_ASK, L_BID_SIZE, L_ASK_SIZE = range(len(LastPrices.FLOATS))
L_TIME, L_KNOWN, L_QUOTE_TIME, L_DAY = range(len(LastPrices.INTS))


@njit(cache=True, nogil=True)
def check_ticks(ids, prices, sizes, instruments, verdict):
    """Judge each row: 0 good, 1 unknown instrument, 2 impossible price, 3 impossible size; counts the bad."""
    bad = 0
    for i in range(len(ids)):
        if ids[i] < 0 or ids[i] >= instruments:
            verdict[i] = 1
        elif not (prices[i] > 0.0 and prices[i] < np.inf):
            verdict[i] = 2
        elif sizes[i] < 0.0 or sizes[i] == np.inf:
            verdict[i] = 3
        else:
            verdict[i] = 0
            continue
        bad += 1
    return bad


@njit(cache=True, nogil=True)
def find_segment(t, n, segments, spans, pointers):
    """Row of the segment that holds t for instrument n; `pointers` remembers the last one found."""
    low, high = spans[n, 0], spans[n, 1]
    p = pointers[n]
    if segments[p, S_START] <= t and (p + 1 >= high or t < segments[p + 1, S_START]):
        return p
    while high - low > 1:
        middle = (low + high) // 2
        if segments[middle, S_START] <= t:
            low = middle
        else:
            high = middle
    pointers[n] = low
    return low


@njit(cache=True, nogil=True)
def bounds(t, width, s, segments):
    """Start and end of the bar that holds t in segment s: a bar never straddles a session's end.

    Bars start on whole multiples of their width in the exchange's local time, or where the session
    starts; a daily bar lies between the regular open and close. After the calendar's last segment
    the clock alone decides.
    """
    if width >= DAY_US:
        return segments[s, S_OPEN], segments[s, S_CLOSE]
    offset = segments[s, S_OFFSET]
    floor = (t + offset) // width * width - offset
    if t >= segments[s, S_END] or t < segments[s, S_START]:
        return floor, floor + width
    return max(floor, segments[s, S_START]), min(floor + width, segments[s, S_END])


@njit(cache=True, nogil=True)
def find_bar(ints, n, total, start):
    """Slot of the kept bar that starts at `start`, or -1; searched from the newest."""
    capacity = ints.shape[1]
    b = total - 1
    while b >= 0 and b >= total - capacity:
        slot = b % capacity
        if ints[n, slot, TIME] <= start:
            return slot if ints[n, slot, TIME] == start else -1
        b -= 1
    return -1


@njit(cache=True, nogil=True)
def insert_bar(floats, ints, totals, n, start):
    """Slot of a new bar, kept in order of start; -1 if it is older than all that a full ring keeps."""
    capacity = ints.shape[1]
    total = totals[n]
    oldest = max(total + 1 - capacity, 0)
    if total >= capacity and start < ints[n, oldest % capacity, TIME]:
        return -1
    b = total
    while b > oldest and ints[n, (b - 1) % capacity, TIME] > start:
        floats[n, b % capacity] = floats[n, (b - 1) % capacity]
        ints[n, b % capacity] = ints[n, (b - 1) % capacity]
        b -= 1
    totals[n] = total + 1
    return b % capacity


@njit(cache=True, nogil=True)
def write_ints(row, start, end, known, count, revision, session, day, given):
    row[TIME] = start
    row[END] = end
    row[KNOWN] = known
    row[COUNT] = count
    row[REVISION] = revision
    row[SESSION] = session
    row[DAY] = day
    row[GIVEN] = given


@njit(cache=True, nogil=True)
def add_ticks(
    begin, ids, times, known, prices, sizes, active, widths, floats, ints, totals, limits, full,
    segments, spans, pointers, touched, late,
):  # fmt: skip
    """Add the rows from `begin` on to the bars of all active widths.

    Returns the number of rows, or the row before which a ring must grow (`full` says for which
    instrument); call again from that row. `late` counts ticks that changed a bar which was no longer the
    newest, and ticks too old for any kept bar.
    """
    for i in range(begin, len(ids)):
        n, t = ids[i], times[i]
        if full[n]:
            return i
        price, size, seen = prices[i], sizes[i], known[i]
        if size != size:
            size = 0.0
        s = find_segment(t, n, segments, spans, pointers)
        session = segments[s, S_SESSION]
        touched[n] += 1
        for w in active:
            if widths[w] >= DAY_US and session != REGULAR:
                continue
            total, capacity = totals[w][n], ints[w].shape[1]
            slot = (total - 1) % capacity
            fresh = total == 0
            if not fresh:
                newest = ints[w][n, slot]
                if t >= newest[TIME] and t < newest[END]:
                    bar = floats[w][n, slot]
                    bar[HIGH] = max(bar[HIGH], price)
                    bar[LOW] = min(bar[LOW], price)
                    bar[CLOSE] = price
                    bar[VOLUME] += size
                    bar[TURNOVER] += price * size
                    newest[KNOWN] = max(newest[KNOWN], seen)
                    newest[COUNT] += 1
                    continue
                fresh = t >= newest[END]
            start, end = bounds(t, widths[w], s, segments)
            if fresh:
                slot = total % capacity
                totals[w][n] = total + 1
            else:
                slot = find_bar(ints[w], n, total, start)
                if slot >= 0:  # the order within a past bar is unknown: its open and close stay
                    bar = floats[w][n, slot]
                    bar[HIGH] = max(bar[HIGH], price)
                    bar[LOW] = min(bar[LOW], price)
                    bar[VOLUME] += size
                    bar[TURNOVER] += price * size
                    past = ints[w][n, slot]
                    past[KNOWN] = max(past[KNOWN], seen)
                    past[COUNT] += 1
                    past[REVISION] += 1
                    late[REVISED] += 1
                    continue
                slot = insert_bar(floats[w], ints[w], totals[w], n, start)
                if slot < 0:
                    late[TOO_LATE] += 1
                    continue
            if totals[w][n] >= capacity and capacity < limits[w]:
                full[n] = True
            bar = floats[w][n, slot]
            bar[OPEN] = bar[HIGH] = bar[LOW] = bar[CLOSE] = price
            bar[VOLUME] = size
            bar[TURNOVER] = price * size
            write_ints(ints[w][n, slot], start, end, seen, 1, 0, session, segments[s, S_DAY], 0)
    return len(ids)


@njit(cache=True, nogil=True)
def merge_bar(target, target_ints, values, seen, count):
    """Fold a narrower bar that follows in time into a wider one."""
    target[HIGH] = max(target[HIGH], values[HIGH])
    target[LOW] = min(target[LOW], values[LOW])
    target[CLOSE] = values[CLOSE]
    target[VOLUME] += values[VOLUME]
    target[TURNOVER] += values[TURNOVER]
    target_ints[KNOWN] = max(target_ints[KNOWN], seen)
    if target_ints[COUNT] < 0 or count < 0:
        target_ints[COUNT] = -1
    else:
        target_ints[COUNT] += count


@njit(cache=True, nogil=True)
def rebuild_bar(floats, ints, total, n, target, target_ints):
    """Make a wider bar anew from the narrower ones; False if they are not all kept any more."""
    capacity = ints.shape[1]
    b = max(total - capacity, 0)
    if b > 0 and ints[n, b % capacity, TIME] > target_ints[TIME]:
        return False
    first = True
    low, high = b, total  # the first narrower bar that starts inside
    while low < high:
        middle = (low + high) // 2
        if ints[n, middle % capacity, TIME] < target_ints[TIME]:
            low = middle + 1
        else:
            high = middle
    for b in range(low, total):
        slot = b % capacity
        if ints[n, slot, TIME] >= target_ints[END]:
            break
        if target_ints[SESSION] == REGULAR and ints[n, slot, SESSION] != REGULAR:
            continue
        if first:
            target[:] = floats[n, slot]
            target_ints[COUNT] = ints[n, slot, COUNT]
            target_ints[KNOWN] = max(target_ints[KNOWN], ints[n, slot, KNOWN])
            first = False
        else:
            merge_bar(target, target_ints, floats[n, slot], ints[n, slot, KNOWN], ints[n, slot, COUNT])
    return True


@njit(cache=True, nogil=True)
def add_bars(
    begin, base, ids, times, known, values, counts, active, widths, floats, ints, totals, limits, full,
    segments, spans, pointers, touched, late,
):  # fmt: skip
    """Put ready-made bars of the width `base` in their place and fold them into the wider widths.

    A bar that is there already is replaced, and its revision counted up; the wider bars around it are
    then made anew. A ready-made wider bar is never changed by narrower ones. Returns as `add_ticks`.
    """
    for i in range(begin, len(ids)):
        n, t, seen = ids[i], times[i], known[i]
        if full[n]:
            return i
        s = find_segment(t, n, segments, spans, pointers)
        session = segments[s, S_SESSION]
        touched[n] += 1
        appended = True
        for w in active:
            if w < base or (widths[w] >= DAY_US and session != REGULAR):
                continue
            start, end = bounds(t, widths[w], s, segments)
            if w == base:  # the source knows where its bars start
                start = t
                if widths[w] < DAY_US:
                    end = min(t + widths[w], segments[s, S_END]) if t < segments[s, S_END] else t + widths[w]
            total, capacity = totals[w][n], ints[w].shape[1]
            slot = (total - 1) % capacity
            known_bar = total > 0 and ints[w][n, slot, TIME] == start
            newest = total == 0 or ints[w][n, slot, TIME] <= start
            if not known_bar and not newest:
                slot = find_bar(ints[w], n, total, start)
                known_bar = slot >= 0
            if not known_bar:
                if newest:
                    slot = total % capacity
                    totals[w][n] = total + 1
                else:
                    slot = insert_bar(floats[w], ints[w], totals[w], n, start)
                    if slot < 0:
                        late[TOO_LATE] += 1
                        if w == base:
                            break
                        continue
                if totals[w][n] >= capacity and capacity < limits[w]:
                    full[n] = True
                floats[w][n, slot] = values[i]
                write_ints(
                    ints[w][n, slot], start, end, seen, counts[i], 0, session, segments[s, S_DAY], w == base
                )
                if w == base:
                    appended = newest
                continue
            bar, bar_ints = floats[w][n, slot], ints[w][n, slot]
            if w == base:
                revision = bar_ints[REVISION] + 1
                bar[:] = values[i]
                write_ints(
                    bar_ints, start, end, max(bar_ints[KNOWN], seen), counts[i], revision, session, segments[s, S_DAY], 1
                )  # fmt: skip
                late[REVISED] += not newest
                appended = False
            elif bar_ints[GIVEN]:
                continue
            elif appended or not rebuild_bar(floats[base], ints[base], totals[base][n], n, bar, bar_ints):
                merge_bar(bar, bar_ints, values[i], seen, counts[i])
            elif not newest:
                bar_ints[REVISION] += 1
    return len(ids)


@njit(cache=True, nogil=True)
def last_ticks(ids, times, known, prices, segments, spans, pointers, floats, ints):
    """Bring last prices up to date; a tick older than the last one changes nothing."""
    for i in range(len(ids)):
        n, t = ids[i], times[i]
        if t < ints[n, L_TIME]:
            continue
        s = find_segment(t, n, segments, spans, pointers)
        set_last(floats[n], ints[n], prices[i], t, known[i], segments[s, S_DAY], segments[s, S_SESSION])


@njit(cache=True, nogil=True)
def set_last(floats, ints, price, t, seen, day, session):
    if day > ints[L_DAY]:
        if floats[L_REGULAR] == floats[L_REGULAR]:
            floats[L_PREVIOUS] = floats[L_REGULAR]
        elif floats[L_LAST] == floats[L_LAST]:
            floats[L_PREVIOUS] = floats[L_LAST]
        ints[L_DAY] = day
    floats[L_LAST] = price
    if session == REGULAR:
        floats[L_REGULAR] = price
    ints[L_TIME] = t
    ints[L_KNOWN] = seen


@njit(cache=True, nogil=True)
def last_bars(ids, times, known, closes, width, segments, spans, pointers, floats, ints):
    """Bring last prices up to date from bars: a close is the price of the bar's end, or of when it was known."""
    for i in range(len(ids)):
        n, t = ids[i], times[i]
        s = find_segment(t, n, segments, spans, pointers)
        start, end = bounds(t, width, s, segments)
        if width < DAY_US:
            end = t + width
        moment = min(end, known[i])
        if moment < ints[n, L_TIME] or not closes[i] > 0.0:
            continue
        set_last(floats[n], ints[n], closes[i], moment, known[i], segments[s, S_DAY], segments[s, S_SESSION])


@njit(cache=True, nogil=True)
def last_quotes(ids, times, known, bids, asks, bid_sizes, ask_sizes, floats, ints):
    """Bring best bids and asks up to date; a quote older than the last one changes nothing."""
    for i in range(len(ids)):
        n = ids[i]
        if times[i] < ints[n, L_QUOTE_TIME]:
            continue
        floats[n, L_BID] = bids[i]
        floats[n, L_ASK] = asks[i]
        floats[n, L_BID_SIZE] = bid_sizes[i]
        floats[n, L_ASK_SIZE] = ask_sizes[i]
        ints[n, L_QUOTE_TIME] = times[i]


@njit(cache=True, nogil=True)
def stamp(ids, times, segments, spans, pointers, sessions, days):
    """Session and trading day of each row."""
    for i in range(len(ids)):
        s = find_segment(times[i], ids[i], segments, spans, pointers)
        sessions[i] = segments[s, S_SESSION]
        days[i] = segments[s, S_DAY]
