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

from marketdash.calendars import DAY_US, FOREVER, REGULAR
from marketdash.frames.bars import (
    BUILT,
    CLOSE,
    CLOSED,
    COUNT,
    DAY,
    END,
    FOLDED,
    GIVEN,
    HIGH,
    KNOWN,
    LOW,
    OPEN,
    OPENED,
    READY_MADE,
    REVISION,
    SESSION,
    TIME,
    TURNOVER,
    VOLUME,
)
from marketdash.frames.last import LastPrices

Kernel = Any
"""A compiled function; numba's dispatcher has no type that mypy knows."""

S_START, S_END, S_SESSION, S_DAY, S_OPEN, S_CLOSE, S_OFFSET = range(7)
REVISED, TOO_LATE = range(2)
IS_TAKEN, IS_REFUSED, IS_REVISING, IS_TOLD = 1, 2, 4, 8

L_LAST, L_PREVIOUS, L_REGULAR, L_BID, L_ASK, L_BID_SIZE, L_ASK_SIZE = range(len(LastPrices.FLOATS))
L_TIME, L_KNOWN, L_QUOTE_TIME, L_DAY, L_REGULAR_TIME, L_PREVIOUS_TIME = range(len(LastPrices.INTS))

GOOD, INSTRUMENT, PRICE, SIZE, BAR, WHEN, WIDTH = range(7)
AHEAD_US = 15 * 60_000_000
"""How long before its event a row may be known, by the differences between the clocks of this world."""
THE_END_US = 4_102_444_800_000_000
"""The year 2100: a time after it is a number in a wrong unit."""


@njit(cache=True, nogil=True)
def is_when(t, seen):
    return t > 0 and t <= seen + AHEAD_US and seen < THE_END_US


@njit(cache=True, nogil=True)
def is_price(price):
    return price > 0.0 and price < np.inf


@njit(cache=True, nogil=True)
def is_size(size):
    return not (size < 0.0 or size == np.inf)


@njit(cache=True, nogil=True)
def check_ticks(ids, times, known, prices, sizes, instruments, verdict):
    """Judge each row, 0 for good ones; returns how many are not."""
    bad = 0
    for i in range(len(ids)):
        if ids[i] < 0 or ids[i] >= instruments:
            verdict[i] = INSTRUMENT
        elif not is_price(prices[i]):
            verdict[i] = PRICE
        elif not is_size(sizes[i]):
            verdict[i] = SIZE
        elif not is_when(times[i], known[i]):
            verdict[i] = WHEN
        else:
            verdict[i] = GOOD
            continue
        bad += 1
    return bad


@njit(cache=True, nogil=True)
def check_quotes(ids, times, known, bids, asks, bid_sizes, ask_sizes, instruments, verdict):
    """As `check_ticks`; a side without a quote is NaN or 0."""
    bad = 0
    for i in range(len(ids)):
        if ids[i] < 0 or ids[i] >= instruments:
            verdict[i] = INSTRUMENT
        elif not (is_size(bids[i]) and is_size(asks[i])):
            verdict[i] = PRICE
        elif not (is_size(bid_sizes[i]) and is_size(ask_sizes[i])):
            verdict[i] = SIZE
        elif not is_when(times[i], known[i]):
            verdict[i] = WHEN
        else:
            verdict[i] = GOOD
            continue
        bad += 1
    return bad


@njit(cache=True, nogil=True)
def check_bars(ids, times, known, values, bases, limits, instruments, verdict):
    """As `check_ticks`; `values` has a row of open, high, low, close and volume for each bar."""
    bad = 0
    for i in range(len(ids)):
        bar = values[i]
        if ids[i] < 0 or ids[i] >= instruments:
            verdict[i] = INSTRUMENT
        elif bases[i] < 0 or limits[bases[i]] == 0:
            verdict[i] = WIDTH
        elif not (is_price(bar[OPEN]) and is_price(bar[HIGH]) and is_price(bar[LOW]) and is_price(bar[CLOSE])):
            verdict[i] = PRICE
        elif bar[HIGH] < bar[LOW]:
            verdict[i] = BAR
        elif not is_size(bar[VOLUME]):
            verdict[i] = SIZE
        elif not is_when(times[i], known[i]):
            verdict[i] = WHEN
        else:
            verdict[i] = GOOD
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
    starts; a daily bar lies between the regular open and close.
    """
    if width >= DAY_US:
        return segments[s, S_OPEN], segments[s, S_CLOSE]
    offset = segments[s, S_OFFSET]
    floor = (t + offset) // width * width - offset
    return max(floor, segments[s, S_START]), min(floor + width, segments[s, S_END])


@njit(cache=True, nogil=True)
def next_boundary(t, width, segments, spans):
    """The first moment after t at which a bar of this width may end, by any of the calendars."""
    first = FOREVER
    for c in range(len(spans)):
        low, high = spans[c, 0], spans[c, 1]
        while high - low > 1:
            middle = (low + high) // 2
            if segments[middle, S_START] <= t:
                low = middle
            else:
                high = middle
        end = segments[low, S_END]
        if width < DAY_US:
            end = bounds(t, width, low, segments)[1]
        first = min(first, end)
    return first


@njit(cache=True, nogil=True)
def newest_slot(total, capacity):
    # A division costs more than all else that is done for a tick, and most rings are not full.
    return total - 1 if total <= capacity else (total - 1) % capacity


@njit(cache=True, nogil=True)
def find_bar(ints, n, total, t):
    """Slot of the kept bar that holds the moment t, or -1."""
    capacity = ints.shape[1]
    low, high = max(total - capacity, 0), total
    while low < high:  # to the first bar that starts after t
        middle = (low + high) // 2
        if ints[n, middle % capacity, TIME] <= t:
            low = middle + 1
        else:
            high = middle
    if low == max(total - capacity, 0):
        return -1
    slot = (low - 1) % capacity
    return slot if t < ints[n, slot, END] else -1


@njit(cache=True, nogil=True)
def insert_bar(floats, ints, totals, n, start):
    """Slot of a new bar, kept in order of start; -1 if it is older than all that a full ring keeps."""
    capacity = ints.shape[1]
    total = totals[n]
    if total >= capacity and start < ints[n, total % capacity, TIME]:
        return -1
    b = total
    while b > max(total + 1 - capacity, 0) and ints[n, (b - 1) % capacity, TIME] > start:
        floats[n, b % capacity] = floats[n, (b - 1) % capacity]
        ints[n, b % capacity] = ints[n, (b - 1) % capacity]
        b -= 1
    totals[n] = total + 1
    return b % capacity


@njit(cache=True, nogil=True)
def note_past(past, used, w, n, start, new):
    past[used[0], 0] = w
    past[used[0], 1] = n
    past[used[0], 2] = start
    past[used[0], 3] = new
    used[0] += 1


@njit(cache=True, nogil=True)
def write_ints(ints, n, slot, start, end, known, count, session, day, given, opened, closed):
    ints[n, slot, TIME] = start
    ints[n, slot, END] = end
    ints[n, slot, KNOWN] = known
    ints[n, slot, COUNT] = count
    ints[n, slot, REVISION] = 0
    ints[n, slot, SESSION] = session
    ints[n, slot, DAY] = day
    ints[n, slot, GIVEN] = given
    ints[n, slot, OPENED] = opened
    ints[n, slot, CLOSED] = closed


@njit(cache=True, nogil=True)
def add_ticks(
    progress, ids, times, known, prices, sizes, active, widths, floats, ints, totals, limits,
    past, past_used, segments, spans, pointers, touched, late, rows, marks,
):  # fmt: skip
    """Add ticks to the bars of all active widths, one width after the other.

    Returns whether all was done; if not, a ring must grow or the notes of the past be emptied before the next
    call, which goes on where `progress` (place in active, row) says. `rows` and `marks` are room for a
    number per tick: its segment, and what became of it. `late` counts ticks that changed a bar which had
    ended, and ticks too old for all kept bars. What a ready-made bar tells of already is not added again.
    """
    if progress[0] == 0 and progress[1] == 0:
        for i in range(len(ids)):
            rows[i] = find_segment(times[i], ids[i], segments, spans, pointers)
            marks[i] = 0
            touched[ids[i]] += 1
    while progress[0] < len(active):
        w = active[progress[0]]
        row = _add_ticks(
            progress[1], w, ids, times, known, prices, sizes, widths[w], floats[w], ints[w], totals[w], limits[w],
            past, past_used, segments, rows, marks,
        )  # fmt: skip
        if row < len(ids):
            progress[1] = row
            return False
        progress[0] += 1
        progress[1] = 0
    for i in range(len(ids)):
        if marks[i]:
            late[REVISED] += marks[i] & IS_REVISING != 0
            late[TOO_LATE] += marks[i] & (IS_REFUSED | IS_TAKEN) == IS_REFUSED
    return True


@njit(cache=True, nogil=True)
def _add_ticks(
    begin, w, ids, times, known, prices, sizes, width, floats, ints, total, limit,
    past, past_used, segments, rows, marks,
):  # fmt: skip
    # Arrays are read by number and never sliced: each slice would count references, for more than a tick costs.
    capacity = ints.shape[1]
    for i in range(begin, len(ids)):
        n, t = ids[i], times[i]
        s = rows[i]
        if marks[i] & IS_TOLD or (width >= DAY_US and segments[s, S_SESSION] != REGULAR):
            continue
        slot = newest_slot(total[n], capacity)
        if total[n] > 0 and t >= ints[n, slot, TIME] and t < ints[n, slot, END]:
            if ints[n, slot, GIVEN] == READY_MADE and t < ints[n, slot, CLOSED]:
                marks[i] |= IS_TOLD | IS_TAKEN
                continue
            if known[i] > ints[n, slot, END]:
                ints[n, slot, REVISION] += 1
                marks[i] |= IS_REVISING
            marks[i] |= IS_TAKEN
            add_tick(floats, ints, n, slot, t, known[i], prices[i], sizes[i])
            continue
        start, end = bounds(t, width, s, segments)
        if total[n] == 0 or t >= ints[n, slot, END]:
            if total[n] >= capacity and capacity < limit:
                return i
            if total[n] > 0:  # a source's own bars may end off our grid
                start = max(start, ints[n, slot, END])
            slot = newest_slot(total[n] + 1, capacity)
            total[n] += 1
        else:
            if past_used[0] >= len(past):
                return i
            slot = find_bar(ints, n, total[n], t)
            if slot >= 0:
                if ints[n, slot, GIVEN] == READY_MADE and t < ints[n, slot, CLOSED]:
                    marks[i] |= IS_TOLD | IS_TAKEN
                    continue
                marks[i] |= IS_REVISING | IS_TAKEN
                add_tick(floats, ints, n, slot, t, known[i], prices[i], sizes[i])
                ints[n, slot, REVISION] += 1
                note_past(past, past_used, w, n, ints[n, slot, TIME], 0)
                continue
            if total[n] >= capacity and capacity < limit:
                return i
            slot = insert_bar(floats, ints, total, n, start)
            if slot < 0:
                marks[i] |= IS_REFUSED
                continue
            note_past(past, past_used, w, n, start, 1)
        marks[i] |= IS_TAKEN
        price, size = prices[i], sizes[i]
        if size != size:
            size = 0.0
        floats[n, slot, OPEN] = price
        floats[n, slot, HIGH] = price
        floats[n, slot, LOW] = price
        floats[n, slot, CLOSE] = price
        floats[n, slot, VOLUME] = size
        floats[n, slot, TURNOVER] = price * size
        write_ints(ints, n, slot, start, end, known[i], 1, segments[s, S_SESSION], segments[s, S_DAY], BUILT, t, t)
    return len(ids)


@njit(cache=True, nogil=True)
def add_tick(floats, ints, n, slot, t, seen, price, size):
    """Add a tick to a bar that has ticks before and perhaps after it; of ticks at one time the first to come opens."""
    if price > floats[n, slot, HIGH]:
        floats[n, slot, HIGH] = price
    if price < floats[n, slot, LOW]:
        floats[n, slot, LOW] = price
    if t >= ints[n, slot, CLOSED]:
        floats[n, slot, CLOSE] = price
        ints[n, slot, CLOSED] = t
    elif t < ints[n, slot, OPENED]:
        floats[n, slot, OPEN] = price
        ints[n, slot, OPENED] = t
    if size == size:
        floats[n, slot, VOLUME] += size
        floats[n, slot, TURNOVER] += price * size
    if seen > ints[n, slot, KNOWN]:
        ints[n, slot, KNOWN] = seen
    if ints[n, slot, COUNT] >= 0:
        ints[n, slot, COUNT] += 1


@njit(cache=True, nogil=True)
def merge_bar(target, target_ints, values, ints):
    """Fold a narrower bar into a wider one."""
    target[HIGH] = max(target[HIGH], values[HIGH])
    target[LOW] = min(target[LOW], values[LOW])
    if ints[CLOSED] >= target_ints[CLOSED]:
        target[CLOSE] = values[CLOSE]
        target_ints[CLOSED] = ints[CLOSED]
    if ints[OPENED] < target_ints[OPENED]:
        target[OPEN] = values[OPEN]
        target_ints[OPENED] = ints[OPENED]
    target[VOLUME] += values[VOLUME]
    target[TURNOVER] += values[TURNOVER]
    target_ints[KNOWN] = max(target_ints[KNOWN], ints[KNOWN])
    if target_ints[COUNT] < 0 or ints[COUNT] < 0:
        target_ints[COUNT] = -1
    else:
        target_ints[COUNT] += ints[COUNT]


@njit(cache=True, nogil=True)
def rebuild_bar(floats, ints, total, n, target, target_ints):
    """Make a wider bar anew from the narrower ones; False if they are not all kept any more."""
    capacity = ints.shape[1]
    low, high = max(total - capacity, 0), total
    if low > 0 and ints[n, low % capacity, TIME] > target_ints[TIME]:
        return False
    while low < high:  # to the first narrower bar that starts inside
        middle = (low + high) // 2
        if ints[n, middle % capacity, TIME] < target_ints[TIME]:
            low = middle + 1
        else:
            high = middle
    first = True
    for b in range(low, total):
        slot = b % capacity
        if ints[n, slot, TIME] >= target_ints[END]:
            break
        if target_ints[SESSION] == REGULAR and ints[n, slot, SESSION] != REGULAR:
            continue  # a print during the lunch break is none of the day's
        if first:
            target[:] = floats[n, slot]
            target_ints[COUNT] = ints[n, slot, COUNT]
            target_ints[OPENED] = ints[n, slot, OPENED]
            target_ints[CLOSED] = ints[n, slot, CLOSED]
            target_ints[KNOWN] = max(target_ints[KNOWN], ints[n, slot, KNOWN])
            first = False
        else:
            merge_bar(target, target_ints, floats[n, slot], ints[n, slot])
    return True


@njit(cache=True, nogil=True)
def correct_bar(target, target_ints, old, old_ints, new, new_ints):
    """Change a wider bar by what a narrower one was revised by, where it cannot be made anew.

    A high that was too high, or a low too low, stays.
    """
    target[HIGH] = max(target[HIGH], new[HIGH])
    target[LOW] = min(target[LOW], new[LOW])
    if old_ints[OPENED] <= target_ints[OPENED]:
        target[OPEN] = new[OPEN]
        target_ints[OPENED] = new_ints[OPENED]
    if new_ints[CLOSED] >= target_ints[CLOSED]:
        target[CLOSE] = new[CLOSE]
        target_ints[CLOSED] = new_ints[CLOSED]
    target[VOLUME] += new[VOLUME] - old[VOLUME]
    target[TURNOVER] += new[TURNOVER] - old[TURNOVER]
    target_ints[KNOWN] = max(target_ints[KNOWN], new_ints[KNOWN])
    if target_ints[COUNT] >= 0 and old_ints[COUNT] >= 0 and new_ints[COUNT] >= 0:
        target_ints[COUNT] += new_ints[COUNT] - old_ints[COUNT]
    else:
        target_ints[COUNT] = -1


@njit(cache=True, nogil=True)
def is_same(a, b):
    for i in range(len(a)):
        if a[i] != b[i] and not (a[i] != a[i] and b[i] != b[i]):
            return False
    return True


@njit(cache=True, nogil=True)
def has_room(n, active, ints, totals, limits):
    for w in active:
        if totals[w][n] >= ints[w].shape[1] and ints[w].shape[1] < limits[w]:
            return False
    return True


@njit(cache=True, nogil=True)
def add_bars(
    begin, bases, ids, times, known, values, counts, active, widths, floats, ints, totals, limits,
    past, past_used, segments, spans, pointers, touched, late,
):  # fmt: skip
    """Put ready-made bars of the widths `bases` in their place and fold them into the wider widths.

    A bar that is there already is replaced, and the wider bars around it are made anew; that counts as a
    revision if the bar had ended. A ready-made wider bar is never changed by narrower ones, and hides
    them from those wider still. Returns the number of rows, or the row before which a ring must grow or the
    notes of the past be emptied; call again from that row.
    """
    old, old_ints = np.empty(6), np.empty(len(ints[0][0, 0]), np.int64)
    for i in range(begin, len(ids)):
        n, t, seen, base = ids[i], times[i], known[i], bases[i]
        if past_used[0] + len(active) > len(past) or not has_room(n, active, ints, totals, limits):
            return i
        s = find_segment(t, n, segments, spans, pointers)
        session, day = segments[s, S_SESSION], segments[s, S_DAY]
        # A daily bar belongs to its trading day, at whatever hour of it the source has stamped it.
        start, end = bounds(t, widths[base], s, segments)
        if widths[base] >= DAY_US:
            session = REGULAR
        else:  # the source knows where its bars start
            start, end = t, min(t + widths[base], segments[s, S_END])
        place, total = ints[base][n], totals[base][n]
        slot = newest_slot(total, len(place))
        newest = total == 0 or place[slot, TIME] <= start
        if not newest:
            slot = find_bar(ints[base], n, total, start)
        replaced = total > 0 and slot >= 0 and place[slot, TIME] == start
        revised, revision = False, 0
        if replaced:
            bar_ints = place[slot]
            told = bar_ints[GIVEN] == READY_MADE and bar_ints[COUNT] == counts[i]
            if told and is_same(floats[base][n, slot], values[i]):
                bar_ints[KNOWN] = max(bar_ints[KNOWN], seen)
                bar_ints[CLOSED] = max(bar_ints[CLOSED], min(bar_ints[KNOWN], end))
                continue
            old[:], old_ints[:] = floats[base][n, slot], bar_ints
            revised = not newest or seen > end or bar_ints[KNOWN] >= end
            revision = bar_ints[REVISION] + revised
            seen = max(bar_ints[KNOWN], seen)
        elif newest:
            slot = newest_slot(total + 1, len(place))
            totals[base][n] = total + 1
        else:
            slot = insert_bar(floats[base], ints[base], totals[base], n, start)
            if slot < 0:
                late[TOO_LATE] += 1
                continue
        if not newest:
            note_past(past, past_used, base, n, start, not replaced)
        touched[n] += 1
        late[REVISED] += revised
        bar, bar_ints = floats[base][n, slot], place[slot]
        bar[:] = values[i]
        write_ints(ints[base], n, slot, start, end, seen, counts[i], session, day, READY_MADE, start, min(seen, end))
        bar_ints[REVISION] = revision
        for w in active:
            if w <= base or (widths[w] >= DAY_US and session != REGULAR):
                continue
            place, total = ints[w][n], totals[w][n]
            slot = newest_slot(total, len(place))
            newest = total == 0 or place[slot, TIME] <= start
            if total > 0 and (not newest or start >= place[slot, END]):
                slot = find_bar(ints[w], n, total, start)
            if slot < 0:
                start_of, end_of = bounds(start, widths[w], s, segments)
                if newest:
                    slot = newest_slot(total + 1, len(place))
                    totals[w][n] = total + 1
                else:
                    slot = insert_bar(floats[w], ints[w], totals[w], n, start_of)
                    if slot < 0:
                        continue
                    note_past(past, past_used, w, n, start_of, 1)
                floats[w][n, slot] = bar
                write_ints(
                    ints[w], n, slot, start_of, end_of, seen, counts[i], session, day, FOLDED + base,
                    bar_ints[OPENED], bar_ints[CLOSED],
                )  # fmt: skip
                continue
            wide, wide_ints = floats[w][n, slot], place[slot]
            if wide_ints[GIVEN] == READY_MADE:
                break
            if not replaced:
                merge_bar(wide, wide_ints, bar, bar_ints)
            elif wide_ints[GIVEN] > FOLDED + base or not rebuild_bar(
                floats[base], ints[base], totals[base][n], n, wide, wide_ints
            ):
                correct_bar(wide, wide_ints, old, old_ints, bar, bar_ints)
            if wide_ints[GIVEN] < FOLDED + base:
                wide_ints[GIVEN] = FOLDED + base
            if revised and (not newest or seen > wide_ints[END]):
                wide_ints[REVISION] += 1
            if not newest:
                note_past(past, past_used, w, n, wide_ints[TIME], 0)
    return len(ids)


@njit(cache=True, nogil=True)
def last_ticks(ids, times, known, prices, segments, spans, pointers, floats, ints):
    """Bring last prices up to date; a tick older than the last one is only looked at for a close."""
    for i in range(len(ids)):
        n, t = ids[i], times[i]
        s = find_segment(t, n, segments, spans, pointers)
        set_last(floats, ints, n, prices[i], t, known[i], segments[s, S_DAY], segments[s, S_SESSION])


@njit(cache=True, nogil=True)
def set_last(floats, ints, n, price, t, seen, day, session):
    if t >= ints[n, L_TIME]:
        if day > ints[n, L_DAY]:
            if floats[n, L_REGULAR] == floats[n, L_REGULAR]:
                floats[n, L_PREVIOUS] = floats[n, L_REGULAR]
                ints[n, L_PREVIOUS_TIME] = ints[n, L_REGULAR_TIME]
            elif floats[n, L_LAST] == floats[n, L_LAST]:
                floats[n, L_PREVIOUS] = floats[n, L_LAST]  # until a regular price comes
            ints[n, L_DAY] = day
        floats[n, L_LAST] = price
        ints[n, L_TIME] = t
        ints[n, L_KNOWN] = seen
    if session == REGULAR:
        if t >= ints[n, L_REGULAR_TIME]:
            floats[n, L_REGULAR] = price
            ints[n, L_REGULAR_TIME] = t
        if day < ints[n, L_DAY] and t >= ints[n, L_PREVIOUS_TIME]:
            floats[n, L_PREVIOUS] = price
            ints[n, L_PREVIOUS_TIME] = t


@njit(cache=True, nogil=True)
def last_bars(bases, ids, times, known, closes, widths, segments, spans, pointers, floats, ints):
    """Bring last prices up to date from bars: a close is the price of the bar's end, or of when it was known."""
    for i in range(len(ids)):
        n, t, width = ids[i], times[i], widths[bases[i]]
        s = find_segment(t, n, segments, spans, pointers)
        end, session = min(t + width, segments[s, S_END]), segments[s, S_SESSION]
        if width >= DAY_US:
            end, session = segments[s, S_CLOSE], REGULAR
        set_last(floats, ints, n, closes[i], min(end, known[i]), known[i], segments[s, S_DAY], session)


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
