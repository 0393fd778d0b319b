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

# Compiled at the first call and kept on disk. Nothing here divides by zero, so nothing checks that.
compiled: Kernel = njit(cache=True, nogil=True, error_model="numpy")

S_START, S_END, S_SESSION, S_DAY, S_OPEN, S_CLOSE, S_OFFSET = range(7)
REVISED, TOO_LATE = range(2)
BEGUN, REPLACED, REVISED_PAST, TOLD, REFUSED = range(5)

L_LAST, L_PREVIOUS, L_REGULAR, L_BID, L_ASK, L_BID_SIZE, L_ASK_SIZE = range(len(LastPrices.FLOATS))
L_TIME, L_KNOWN, L_QUOTE_TIME, L_DAY, L_REGULAR_TIME, L_PREVIOUS_TIME = range(len(LastPrices.INTS))

GOOD, INSTRUMENT, PRICE, SIZE, BAR, WHEN, WIDTH = range(7)
AHEAD_US = 15 * 60_000_000
"""How long before its event a row may be known, by the differences between the clocks of this world."""
THE_END_US = 4_102_444_800_000_000
"""The year 2100: a time after it is a number in a wrong unit."""


@compiled
def is_when(t, seen):
    return t > 0 and t <= seen + AHEAD_US and seen < THE_END_US


@compiled
def is_price(price):
    return price > 0.0 and price < np.inf


@compiled
def is_size(size):
    return not (size < 0.0 or size == np.inf)


@compiled
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


@compiled
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


@compiled
def check_bars(ids, times, known, values, bases, limits, instruments, verdict):
    """As `check_ticks`; `values` has a row of open, high, low, close and volume for each bar."""
    bad = 0
    for i in range(len(ids)):
        bar = values[i]
        if ids[i] < 0 or ids[i] >= instruments:
            verdict[i] = INSTRUMENT
        elif bases[i] < 0 or limits[bases[i]] == 0:
            verdict[i] = WIDTH
        elif not (
            is_price(bar[OPEN]) and is_price(bar[HIGH]) and is_price(bar[LOW]) and is_price(bar[CLOSE])
        ):
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def find_late(bases, ids, times, known, read, widths, segments, spans, pointers, late):
    """Mark the ready-made bars by which a bar of the widths `read` changes that had ended before it was known."""
    for i in range(len(ids)):
        late[i] = False
        if ids[i] < 0 or ids[i] >= len(spans) or bases[i] < 0:
            continue
        s = find_segment(times[i], ids[i], segments, spans, pointers)
        for w in read:
            if w >= bases[i]:
                end = bounds(times[i], widths[w], s, segments)[1]
                # One that ends off our grid is not waited for.
                own_end = min(times[i] + widths[w], segments[s, S_END])
                late[i] = end < known[i] or (w == bases[i] and own_end != end and widths[w] < DAY_US)
                break


@compiled
def newest_slot(total, capacity):
    # A division costs more than all else that is done for a tick, and most rings are not full.
    return total - 1 if total <= capacity else (total - 1) % capacity


@compiled
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


@compiled
def insert_bar(floats, ints, totals, n, w, start):
    """Slot of a new bar, kept in order of start; -1 if it is older than all that a full ring keeps."""
    capacity = ints.shape[1]
    total = totals[n, w]
    if total >= capacity and start < ints[n, total % capacity, TIME]:
        return -1
    b = total
    while b > max(total + 1 - capacity, 0) and ints[n, (b - 1) % capacity, TIME] > start:
        for field in range(6):
            floats[n, b % capacity, field] = floats[n, (b - 1) % capacity, field]
        for field in range(10):
            ints[n, b % capacity, field] = ints[n, (b - 1) % capacity, field]
        b -= 1
    totals[n, w] = total + 1
    return b % capacity


@compiled
def note_past(past, used, w, n, start, new):
    past[used[0], 0] = w
    past[used[0], 1] = n
    past[used[0], 2] = start
    past[used[0], 3] = new
    used[0] += 1


@compiled
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


@compiled
def put_head(floats, ints, n, slot, head_floats, head_ints, w):
    """Write the newest bar into its slot of the ring."""
    for field in range(6):
        floats[n, slot, field] = head_floats[n, w, field]
    for field in range(10):
        ints[n, slot, field] = head_ints[n, w, field]


@compiled
def take_head(floats, ints, n, slot, head_floats, head_ints, w):
    """Read the newest bar from its slot of the ring."""
    for field in range(6):
        head_floats[n, w, field] = floats[n, slot, field]
    for field in range(10):
        head_ints[n, w, field] = ints[n, slot, field]


@compiled
def has_room(n, active, totals, capacities, limits, past, past_used):
    """Whether a row of instrument n can be added without growing a ring or emptying the notes of the past."""
    if past_used[0] + len(active) > len(past):
        return False
    for w in active:
        if capacities[w] <= totals[n, w] < limits[w]:
            return False
    return True


@compiled
def add_ticks(
    begin, ids, times, known, prices, sizes, active, widths, head_floats, head_ints, floats, ints, totals,
    capacities, limits, past, past_used, segments, spans, pointers, touched, late,
):  # fmt: skip
    """Add the rows from `begin` on to the bars of all active widths.

    Returns the number of rows, or the row before which a ring must grow or the notes of the past be
    emptied; call again from that row. `late` counts ticks that changed a bar which had ended, and ticks too
    old for all kept bars. What a ready-made bar tells of already is not added again.
    """
    for i in range(begin, len(ids)):
        n, t = ids[i], times[i]
        if not has_room(n, active, totals, capacities, limits, past, past_used):
            return i
        price, size, seen = prices[i], sizes[i], known[i]
        if size != size:
            size = 0.0
        s = find_segment(t, n, segments, spans, pointers)
        regular = segments[s, S_SESSION] == REGULAR
        touched[n] += 1
        taken, refused, revised = False, False, False
        for w in active:
            if widths[w] >= DAY_US and not regular:
                continue
            if head_ints[n, w, TIME] <= t < head_ints[n, w, END]:
                taken = True
                if head_ints[n, w, GIVEN] == READY_MADE and t < head_ints[n, w, CLOSED]:
                    break  # and so does every wider one
                if seen > head_ints[n, w, END]:
                    head_ints[n, w, REVISION] += 1
                    revised = True
                add_tick(head_floats, head_ints, n, w, t, seen, price, size)
                continue
            became = add_aside(
                n, w, t, seen, price, size, s, widths[w], head_floats, head_ints, floats[w], ints[w], totals,
                past, past_used, segments,
            )  # fmt: skip
            refused |= became == REFUSED
            revised |= became == REVISED_PAST
            taken |= became != REFUSED
            if became == TOLD:
                break
        late[REVISED] += revised
        late[TOO_LATE] += refused and not taken
    return len(ids)


@compiled
def add_aside(
    n, w, t, seen, price, size, s, width, head_floats, head_ints, floats, ints, totals, past, past_used, segments
):  # fmt: skip
    """Add a tick that is not of the newest bar: begin a bar, or find the past one; tells which it was.

    Arrays are read by number and never sliced: a slice counts references, which costs more than a tick.
    """
    total, capacity = totals[n, w], ints.shape[1]
    start, end = bounds(t, width, s, segments)
    if total > 0:
        put_head(floats, ints, n, newest_slot(total, capacity), head_floats, head_ints, w)
    if total == 0 or t >= head_ints[n, w, END]:
        if total > 0:
            start = max(start, head_ints[n, w, END])  # a source's own bars may end off our grid
        totals[n, w] = total + 1
        first_tick(head_floats, head_ints, n, w, start, end, t, seen, price, size, s, segments)
        return BEGUN
    slot = find_bar(ints, n, total, t)
    if slot < 0:
        slot = insert_bar(floats, ints, totals, n, w, start)
        if slot < 0:
            return REFUSED
        first_tick(floats, ints, n, slot, start, end, t, seen, price, size, s, segments)
        note_past(past, past_used, w, n, start, 1)
        return BEGUN
    if ints[n, slot, GIVEN] == READY_MADE and t < ints[n, slot, CLOSED]:
        return TOLD
    add_tick(floats, ints, n, slot, t, seen, price, size)
    ints[n, slot, REVISION] += 1
    note_past(past, past_used, w, n, ints[n, slot, TIME], 0)
    return REVISED_PAST


@compiled
def first_tick(floats, ints, n, slot, start, end, t, seen, price, size, s, segments):
    floats[n, slot, OPEN] = price
    floats[n, slot, HIGH] = price
    floats[n, slot, LOW] = price
    floats[n, slot, CLOSE] = price
    floats[n, slot, VOLUME] = size
    floats[n, slot, TURNOVER] = price * size
    write_ints(ints, n, slot, start, end, seen, 1, segments[s, S_SESSION], segments[s, S_DAY], BUILT, t, t)


@compiled
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
    floats[n, slot, VOLUME] += size
    floats[n, slot, TURNOVER] += price * size
    if seen > ints[n, slot, KNOWN]:
        ints[n, slot, KNOWN] = seen
    if ints[n, slot, COUNT] >= 0:
        ints[n, slot, COUNT] += 1


@compiled
def merge_bar(floats, ints, n, place, base_floats, base_ints, slot):
    """Fold a narrower bar into the wider one at `place`."""
    floats[n, place, HIGH] = max(floats[n, place, HIGH], base_floats[n, slot, HIGH])
    floats[n, place, LOW] = min(floats[n, place, LOW], base_floats[n, slot, LOW])
    if base_ints[n, slot, CLOSED] >= ints[n, place, CLOSED]:
        floats[n, place, CLOSE] = base_floats[n, slot, CLOSE]
        ints[n, place, CLOSED] = base_ints[n, slot, CLOSED]
    if base_ints[n, slot, OPENED] < ints[n, place, OPENED]:
        floats[n, place, OPEN] = base_floats[n, slot, OPEN]
        ints[n, place, OPENED] = base_ints[n, slot, OPENED]
    floats[n, place, VOLUME] += base_floats[n, slot, VOLUME]
    floats[n, place, TURNOVER] += base_floats[n, slot, TURNOVER]
    ints[n, place, KNOWN] = max(ints[n, place, KNOWN], base_ints[n, slot, KNOWN])
    if ints[n, place, COUNT] < 0 or base_ints[n, slot, COUNT] < 0:
        ints[n, place, COUNT] = -1
    else:
        ints[n, place, COUNT] += base_ints[n, slot, COUNT]


@compiled
def rebuild_bar(floats, ints, n, place, base_floats, base_ints, total):
    """Make the wider bar at `place` anew from the narrower ones; False if they are not all kept any more."""
    capacity = base_ints.shape[1]
    low, high = max(total - capacity, 0), total
    if low > 0 and base_ints[n, low % capacity, TIME] > ints[n, place, TIME]:
        return False
    while low < high:  # to the first narrower bar that starts inside
        middle = (low + high) // 2
        if base_ints[n, middle % capacity, TIME] < ints[n, place, TIME]:
            low = middle + 1
        else:
            high = middle
    first = True
    for b in range(low, total):
        slot = b % capacity
        if base_ints[n, slot, TIME] >= ints[n, place, END]:
            break
        if ints[n, place, SESSION] == REGULAR and base_ints[n, slot, SESSION] != REGULAR:
            continue  # a print during the lunch break is none of the day's
        if first:
            for field in range(6):
                floats[n, place, field] = base_floats[n, slot, field]
            ints[n, place, COUNT] = base_ints[n, slot, COUNT]
            ints[n, place, OPENED] = base_ints[n, slot, OPENED]
            ints[n, place, CLOSED] = base_ints[n, slot, CLOSED]
            ints[n, place, KNOWN] = max(ints[n, place, KNOWN], base_ints[n, slot, KNOWN])
            first = False
        else:
            merge_bar(floats, ints, n, place, base_floats, base_ints, slot)
    return True


@compiled
def correct_bar(floats, ints, n, place, base_floats, base_ints, slot, old, old_ints):
    """Change the wider bar at `place` by what a narrower one was revised by, where it cannot be made anew.

    A high that was too high, or a low too low, stays.
    """
    floats[n, place, HIGH] = max(floats[n, place, HIGH], base_floats[n, slot, HIGH])
    floats[n, place, LOW] = min(floats[n, place, LOW], base_floats[n, slot, LOW])
    if old_ints[OPENED] <= ints[n, place, OPENED]:
        floats[n, place, OPEN] = base_floats[n, slot, OPEN]
        ints[n, place, OPENED] = base_ints[n, slot, OPENED]
    if base_ints[n, slot, CLOSED] >= ints[n, place, CLOSED]:
        floats[n, place, CLOSE] = base_floats[n, slot, CLOSE]
        ints[n, place, CLOSED] = base_ints[n, slot, CLOSED]
    floats[n, place, VOLUME] += base_floats[n, slot, VOLUME] - old[VOLUME]
    floats[n, place, TURNOVER] += base_floats[n, slot, TURNOVER] - old[TURNOVER]
    ints[n, place, KNOWN] = max(ints[n, place, KNOWN], base_ints[n, slot, KNOWN])
    if ints[n, place, COUNT] >= 0 and old_ints[COUNT] >= 0 and base_ints[n, slot, COUNT] >= 0:
        ints[n, place, COUNT] += base_ints[n, slot, COUNT] - old_ints[COUNT]
    else:
        ints[n, place, COUNT] = -1


@compiled
def is_same(a, b):
    for i in range(len(a)):
        if a[i] != b[i] and not (a[i] != a[i] and b[i] != b[i]):
            return False
    return True


@compiled
def add_bars(
    begin, bases, ids, times, known, values, counts, active, widths, head_floats, head_ints, floats, ints, totals,
    capacities, limits, past, past_used, segments, spans, pointers, touched, late,
):  # fmt: skip
    """Put ready-made bars of the widths `bases` in their place and fold them into the wider widths.

    A bar that is there already is replaced, and the wider bars around it are made anew; that counts as a
    revision if the bar had ended. A ready-made wider bar is never changed by narrower ones, and hides
    them from those wider still. Returns the number of rows, or the row before which a ring must grow or the
    notes of the past be emptied; call again from that row.
    """
    old, old_ints = np.empty(6), np.empty(10, np.int64)
    for i in range(begin, len(ids)):
        n, base = ids[i], bases[i]
        if not has_room(n, active, totals, capacities, limits, past, past_used):
            return i
        s = find_segment(times[i], n, segments, spans, pointers)
        base_floats, base_ints = floats[base], ints[base]
        slot, became = put_bar(
            n, base, times[i], known[i], values[i], counts[i], s, widths[base], head_floats, head_ints,
            base_floats, base_ints, totals, past, past_used, segments, late, old, old_ints,
        )  # fmt: skip
        if slot < 0:
            continue
        touched[n] += 1
        for w in active:
            if w <= base or (widths[w] >= DAY_US and segments[s, S_SESSION] != REGULAR):
                continue
            if not fold_bar(
                n, w, base, slot, became, s, widths[w], head_floats, head_ints, base_floats, base_ints,
                floats[w], ints[w], totals, past, past_used, segments, old, old_ints,
            ):  # fmt: skip
                break
    return len(ids)


@compiled
def put_bar(
    n, base, t, seen, values, count, s, width, head_floats, head_ints, floats, ints, totals,
    past, past_used, segments, late, old, old_ints,
):  # fmt: skip
    """Put a ready-made bar in its place; returns its slot (-1 if nothing changes) and what became of it.

    `old` and `old_ints` receive the bar that was there.
    """
    total, capacity = totals[n, base], ints.shape[1]
    if total > 0:
        put_head(floats, ints, n, newest_slot(total, capacity), head_floats, head_ints, base)
    session = segments[s, S_SESSION]
    start, end = bounds(t, width, s, segments)
    if width >= DAY_US:  # it belongs to its trading day, at whatever hour of it the source has stamped it
        session = REGULAR
    else:  # the source knows where its bars start
        start, end = t, min(t + width, segments[s, S_END])
    newest = total == 0 or start >= head_ints[n, base, TIME]
    slot = newest_slot(total, capacity) if newest else find_bar(ints, n, total, start)
    became, revision = BEGUN, 0
    if total > 0 and slot >= 0 and ints[n, slot, TIME] == start:
        for field in range(6):
            old[field] = floats[n, slot, field]
        for field in range(10):
            old_ints[field] = ints[n, slot, field]
        if old_ints[GIVEN] == READY_MADE and old_ints[COUNT] == count and is_same(old, values):
            ints[n, slot, KNOWN] = max(old_ints[KNOWN], seen)
            ints[n, slot, CLOSED] = min(ints[n, slot, KNOWN], end)
            took_head = newest_slot(totals[n, base], capacity)
            take_head(floats, ints, n, took_head, head_floats, head_ints, base)
            return -1, became
        became = REPLACED
        if not newest or seen > end or old_ints[KNOWN] >= end:
            became = REVISED_PAST
        revision = old_ints[REVISION] + (became == REVISED_PAST)
        late[REVISED] += became == REVISED_PAST
        seen = max(old_ints[KNOWN], seen)
    elif newest:
        slot = newest_slot(total + 1, capacity)
        totals[n, base] = total + 1
    else:
        slot = insert_bar(floats, ints, totals, n, base, start)
        if slot < 0:
            late[TOO_LATE] += 1
            return -1, became
    if not newest:
        note_past(past, past_used, base, n, start, became == BEGUN)
    for field in range(6):
        floats[n, slot, field] = values[field]
    day, closed = segments[s, S_DAY], min(seen, end)
    write_ints(ints, n, slot, start, end, seen, count, session, day, READY_MADE, start, closed)
    ints[n, slot, REVISION] = revision
    take_head(floats, ints, n, newest_slot(totals[n, base], capacity), head_floats, head_ints, base)
    return slot, became


@compiled
def fold_bar(
    n, w, base, slot, became, s, width, head_floats, head_ints, base_floats, base_ints,
    floats, ints, totals, past, past_used, segments, old, old_ints,
):  # fmt: skip
    """Fold a ready-made bar into a wider width; False if a ready-made wider bar hides it from here on."""
    total, capacity = totals[n, w], ints.shape[1]
    start = base_ints[n, slot, TIME]
    newest = total == 0 or start >= head_ints[n, w, TIME]
    if total > 0:
        put_head(floats, ints, n, newest_slot(total, capacity), head_floats, head_ints, w)
    place = find_bar(ints, n, total, start)
    if place < 0:
        start_of, end_of = bounds(start, width, s, segments)
        if newest:
            place = newest_slot(total + 1, capacity)
            totals[n, w] = total + 1
        else:
            place = insert_bar(floats, ints, totals, n, w, start_of)
            if place < 0:
                return True
            note_past(past, past_used, w, n, start_of, 1)
        for field in range(6):
            floats[n, place, field] = base_floats[n, slot, field]
        write_ints(
            ints, n, place, start_of, end_of, base_ints[n, slot, KNOWN], base_ints[n, slot, COUNT],
            base_ints[n, slot, SESSION], base_ints[n, slot, DAY], FOLDED + base,
            base_ints[n, slot, OPENED], base_ints[n, slot, CLOSED],
        )  # fmt: skip
    else:
        given = ints[n, place, GIVEN]
        if given == READY_MADE:
            return False
        if became == BEGUN:
            merge_bar(floats, ints, n, place, base_floats, base_ints, slot)
        elif given > FOLDED + base or not rebuild_bar(
            floats, ints, n, place, base_floats, base_ints, totals[n, base]
        ):
            correct_bar(floats, ints, n, place, base_floats, base_ints, slot, old, old_ints)
        ints[n, place, GIVEN] = max(given, FOLDED + base)
        if became == REVISED_PAST and (not newest or base_ints[n, slot, KNOWN] > ints[n, place, END]):
            ints[n, place, REVISION] += 1
        if not newest:
            note_past(past, past_used, w, n, ints[n, place, TIME], 0)
    take_head(floats, ints, n, newest_slot(totals[n, w], capacity), head_floats, head_ints, w)
    return True


@compiled
def last_ticks(ids, times, known, prices, segments, spans, pointers, floats, ints):
    """Bring last prices up to date; a tick older than the last one is only looked at for a close."""
    for i in range(len(ids)):
        n, t = ids[i], times[i]
        s = find_segment(t, n, segments, spans, pointers)
        set_last(floats, ints, n, prices[i], t, known[i], segments[s, S_DAY], segments[s, S_SESSION])


@compiled
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


@compiled
def last_bars(bases, ids, times, known, closes, widths, segments, spans, pointers, floats, ints):
    """Bring last prices up to date from bars: a close is the price of the bar's end, or of when it was known."""
    for i in range(len(ids)):
        n, t, width = ids[i], times[i], widths[bases[i]]
        s = find_segment(t, n, segments, spans, pointers)
        end, session = min(t + width, segments[s, S_END]), segments[s, S_SESSION]
        if width >= DAY_US:
            end, session = segments[s, S_CLOSE], REGULAR
        set_last(floats, ints, n, closes[i], min(end, known[i]), known[i], segments[s, S_DAY], session)


@compiled
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


@compiled
def stamp(ids, times, segments, spans, pointers, sessions, days):
    """Session and trading day of each row."""
    for i in range(len(ids)):
        s = find_segment(times[i], ids[i], segments, spans, pointers)
        sessions[i] = segments[s, S_SESSION]
        days[i] = segments[s, S_DAY]
