"""The compiled loops of the pipeline: one pass over the rows of a batch, state in arrays.

Rows are handled strictly one after the other, so that sums are formed in the same order however the
rows were cut into batches. Columns of rings are those of `frames.bars`, of last prices those of
`frames.last`, of segments those of `calendars.Segments`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,call-arg"
from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from marketdash.calendars import DAY_US, FOREVER, REGULAR
from marketdash.conditions import ALL, LAST
from marketdash.conditions import HIGH_LOW as EXTREMES
from marketdash.conditions import OPEN as OPENS
from marketdash.conditions import VOLUME as VOLUMES
from marketdash.frames.bars import (
    BUILT,
    CLOSE,
    CLOSED,
    CLOSED_SEQ,
    COUNT,
    DAY,
    END,
    FOLDED,
    FRESH,
    FRESH_CLOSE,
    FRESH_CLOSE_KNOWN,
    FRESH_CLOSED,
    FRESH_COUNT,
    FRESH_HIGH,
    FRESH_KNOWN,
    FRESH_LISTED,
    FRESH_LOW,
    FRESH_SEQ,
    FRESH_TURNOVER,
    FRESH_TURNOVER_REST,
    FRESH_UNTIL,
    FRESH_VOLUME,
    FRESH_VOLUME_REST,
    GIVEN,
    HIGH,
    KNOWN,
    LOW,
    N_FLOATS,
    OPEN,
    OPENED,
    OPENED_SEQ,
    READY_MADE,
    RECORD,
    REVISION,
    SESSION,
    TIME,
    TOLD_AGAIN,
    TURNOVER,
    TURNOVER_REST,
    VOLUME,
    VOLUME_REST,
)
from marketdash.frames.last import LastPrices
from marketdash.schema import WIDTHS

Kernel = Any
"""A compiled function; numba's dispatcher has no type that mypy knows."""

PLACE = (1 << 47) - 1
"""Numbers masked by it cannot be negative, which spares the compiled code to look at each index for that."""

# Nothing here divides by zero, so nothing checks that. Nothing makes an array, so none is counted: to count references
# to those that are handed about took a quarter of the time.
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def sources_hash(folder: Path) -> bytes:
    """A hash over what kernels are made of: the files of this package, and of those whose constants they use."""
    files = sorted(folder.glob("pipeline/*.py")) + sorted(folder.glob("frames/*.py"))
    files += [folder / f"{name}.py" for name in ("calendars", "conditions", "schema")]
    return sha256(b"".join(file.read_bytes() for file in files)).digest()


def compiled(function: Any, **options: Any) -> Kernel:
    """Compile at the first call, and keep what comes out until a file changes from which a kernel may be made.

    Numba looks at the file of a function alone, and would go on with the old code of what it calls elsewhere.
    """
    made = njit(**_OPTIONS, **options)(function)
    if kept := getattr(getattr(made, "_cache", None), "_cache_file", None):
        kept._source_stamp = _SOURCES
    return made


def inlined(function: Any) -> Kernel:
    return compiled(function, inline="always")


_SOURCES = sources_hash(Path(__file__).parents[1])

WIDTHS_KNOWN = len(WIDTHS)


@intrinsic
def fetch(typingctx, array, index):
    """Have the processor bring the line that holds `array[index]` while it works on something else."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        whole = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [pointer.type],
            ir.FunctionType(ir.VoidType(), [pointer.type, whole, whole, whole]),
        )
        builder.call(function, [pointer, whole(1), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


S_START, S_END, S_SESSION, S_DAY, S_OPEN, S_CLOSE, S_OFFSET = range(7)
REVISED, TOO_LATE = range(2)
BEGUN, REPLACED, REVISED_PAST, SORTED_IN, TOLD, REFUSED, WAITS = range(7)

L_LAST, L_PREVIOUS, L_REGULAR, L_BID, L_ASK, L_BID_SIZE, L_ASK_SIZE = range(len(LastPrices.FLOATS))
(
    L_TIME, L_KNOWN, L_QUOTE_TIME, L_DAY, L_REGULAR_TIME, L_PREVIOUS_TIME, L_SEQ, L_REGULAR_SEQ, L_PREVIOUS_SEQ,
) = range(len(LastPrices.INTS))  # fmt: skip

GOOD, INSTRUMENT, PRICE, SIZE, BAR, WHEN, WIDTH, TWICE, FAR, FREED = range(10)
B_PRICE, B_STEP, B_TIME, B_HELD, B_HELD_PRICE, B_COUNT = range(6)
N_BAND = 8
BAND_SHARE, BAND_STEPS, BAND_TICKS, BAND_PRINTS, BAND_MEMORY, BAND_WARMUP = 0.05, 20.0, 5.0, 3, 32.0, 20
BAND_SILENCE_US, BAND_WIDEST = 300_000_000.0, 10.0

R_TOP, R_NEWEST, R_CURSOR, R_PATIENT = range(4)
N_RECENT = 4
T_TIME, T_SEQ, T_BEFORE, T_AFTER, T_ID, T_EFFECTS = range(6)
T_PRICE, T_SIZE = range(2)
HELD, VOID, CHANGED, BEGINS, LATER = 16, 32, 64, 128, 256
"""Marks of a recent tick beside its effects: held as absurd, cancelled, corrected, one that a bar may begin with, or
may begin with since it was corrected."""
LAG_BITS = 9
"""Above the marks: how long after it happened the tick was known, in microseconds."""
DISORDER = 32
"""How many ticks of an instrument may come with lower numbers before one whose number is looked for."""
NEARBY = 256
"""How many ticks a search looks at that comes soon after one that was long and in vain."""

AHEAD_US = 15 * 60_000_000
"""How long before its event a row may be known, by the differences between the clocks of this world."""
THE_END_US = 4_102_444_800_000_000
"""The year 2100: a time after it is a number in a wrong unit."""
THE_BEGINNING_US = THE_END_US // 1000
"""February 1970: until then a time is a number in a wrong unit too, of milliseconds or seconds."""


@compiled
def is_when(t, seen):
    return t > THE_BEGINNING_US and t <= seen + AHEAD_US and seen < THE_END_US


@compiled
def is_price(price):
    return price > 0.0 and price < np.inf


@compiled
def is_size(size):
    return not (size < 0.0 or size == np.inf)


@compiled
def span_of_times(ids, times, known):
    """The first and the last possible time of the rows; (0, 0) without one."""
    first, last = FOREVER, 0
    for i in range(len(ids)):
        if is_when(times[i], known[i]):
            first, last = min(first, times[i]), max(last, times[i])
    return (first, last) if last else (0, 0)


@compiled
def check_ticks(
    ticks, tapes, rules, tick_sizes, segments, spans, pointers, band, recent, recent_floats, recent_ints, appended,
    verdict,
):  # fmt: skip
    """Judge each tick, 0 for good ones; returns how many are not.

    Of each good one `effects` tells what it changes by its conditions, and `rows` its segment.
    """
    times, known, seqs, prices, sizes = ticks.times, ticks.known, ticks.seqs, ticks.prices, ticks.sizes
    ids, effects, rows, bad = ticks.ids, ticks.effects, ticks.rows, 0
    for i in range(len(ids)):
        n, t = ids[i], times[i]
        if n < 0 or n >= len(spans):
            verdict[i] = INSTRUMENT
        elif not is_price(prices[i]):
            verdict[i] = PRICE
        elif not is_size(sizes[i]):
            verdict[i] = SIZE
        elif not is_when(t, known[i]):
            verdict[i] = WHEN
        else:
            verdict[i] = GOOD
        if verdict[i] != GOOD:
            bad += 1
            continue
        s = find_segment(t, n, segments, spans, pointers)
        rows[i] = s
        effects[i] = effects_of(ticks.conditions[i], tapes[n], segments[s, S_SESSION] == REGULAR, rules)
        if seqs[i] >= 0:
            if seqs[i] > recent[n, R_TOP]:
                recent[n, R_TOP] = seqs[i]
            else:
                found = find_recent(n, seqs[i], recent, recent_ints, appended[0])
                slot = found & (len(recent_ints) - 1)
                if (
                    found >= 0 and recent_ints[slot, T_TIME] == t and (
                        recent_ints[slot, T_EFFECTS] & (VOID | CHANGED) or (recent_floats[slot, T_PRICE] == prices[i]
                        and not recent_floats[slot, T_SIZE] < sizes[i] and not recent_floats[slot, T_SIZE] > sizes[i])
                    )
                ):  # fmt: skip
                    verdict[i] = TWICE
                    bad += 1
                    continue
        if effects[i] & (LAST | EXTREMES):
            verdict[i] = judge_price(n, t, prices[i], tick_sizes[n], band)
            bad += verdict[i] != GOOD
            if verdict[i] == FREED:
                free_held(n, recent, recent_ints, appended[0])
        marks = effects[i] | (BEGINS if effects[i] & OPENS else 0) | (known[i] - t) << LAG_BITS
        if verdict[i] == FAR:
            marks |= HELD  # but remembered: sent again it must not agree with itself
        append_recent(n, t, seqs[i], prices[i], sizes[i], marks, recent, recent_floats, recent_ints, appended)
    return bad


@compiled
def effects_of(conditions, tape, regular, rules):
    """What a trade with these conditions changes: what all of them allow."""
    allowed = ALL
    bit = 0
    while conditions:
        if conditions & 1:
            allowed &= rules[tape, int(regular), bit]
        conditions >>= 1
        bit += 1
    return allowed


@compiled
def judge_price(n, t, price, tick_size, band):
    """GOOD for a price near the last one, FAR for one that is not; FREED if the price has really gone there.

    Near is within 5 % or 20 times the mean step, whichever is more, and farther the longer nothing was
    traded. The third print in a row that is far from where the price was, but near to the other two, tells
    that it has moved. An instrument's first prints are not judged: nothing is known yet of its ways.
    """
    last, step = band[n, B_PRICE], band[n, B_STEP]
    silence = max(t - band[n, B_TIME], 0.0)
    patience = min(1.0 + silence / BAND_SILENCE_US, BAND_WIDEST)
    distance = abs(price - last)
    near = max(BAND_SHARE * last, BAND_STEPS * step, BAND_TICKS * tick_size) * patience
    if distance <= near or band[n, B_COUNT] < BAND_WARMUP:
        if band[n, B_COUNT] > 0:
            band[n, B_STEP] = step + (distance - step) / BAND_MEMORY
        band[n, B_COUNT] += 1
        band[n, B_PRICE] = price
        band[n, B_TIME] = max(band[n, B_TIME], t)
        band[n, B_HELD] = 0
        return GOOD
    held = band[n, B_HELD_PRICE]
    if band[n, B_HELD] > 0 and abs(price - held) <= max(BAND_SHARE * held, BAND_TICKS * tick_size):
        band[n, B_HELD] += 1
        if band[n, B_HELD] >= BAND_PRINTS:
            band[n, B_PRICE], band[n, B_HELD] = price, 0
            band[n, B_TIME] = max(band[n, B_TIME], t)
            return FREED
    else:
        band[n, B_HELD], band[n, B_HELD_PRICE] = 1, price
    return FAR


@compiled
def free_held(n, recent, ints, appended):
    """The last prints of an instrument that were held are held no longer."""
    at, freed = recent[n, R_NEWEST], 0
    while is_recent(at, len(ints), appended) and freed < BAND_PRINTS - 1:
        slot = at & (len(ints) - 1)
        if ints[slot, T_EFFECTS] & HELD and not ints[slot, T_EFFECTS] & VOID:
            ints[slot, T_EFFECTS] -= HELD
            freed += 1
        at = ints[slot, T_BEFORE]


@compiled
def append_recent(n, t, seq, price, size, marks, recent, floats, ints, appended):
    """Remember a tick among the recent ones of all instruments, and as the newest of its own."""
    number = appended[0]
    slot, before = number & (len(ints) - 1), recent[n, R_NEWEST]
    ints[slot, T_TIME], ints[slot, T_SEQ] = t, seq
    ints[slot, T_BEFORE], ints[slot, T_AFTER] = before, -1
    ints[slot, T_ID], ints[slot, T_EFFECTS] = n, marks
    floats[slot, T_PRICE], floats[slot, T_SIZE] = price, size
    if is_recent(before, len(ints), number + 1):  # else this one lies in its place
        ints[before & (len(ints) - 1), T_AFTER] = number
    recent[n, R_NEWEST] = number
    appended[0] = number + 1


@compiled
def is_recent(number, kept, appended):
    return number >= 0 and number >= appended - kept


@compiled
def find_recent(n, seq, recent, ints, appended):
    """Number of the recent tick of an instrument that its source calls `seq`, or -1.

    Sources number in order, or nearly: found are ticks before which at most `DISORDER` came with a lower number.
    The search begins where the last one ended, since what is sent again is sent in order. One that was long and in
    vain is not repeated for a while, so that rows in a wrong order cost no more than some dozens of steps each.
    """
    kept = len(ints)
    at = recent[n, R_CURSOR]
    if not is_recent(at, kept, appended) or ints[at & (kept - 1), T_ID] != n:
        at = recent[n, R_NEWEST]
    if not is_recent(at, kept, appended):
        return -1
    while ints[at & (kept - 1), T_SEQ] < seq and ints[at & (kept - 1), T_AFTER] >= 0:
        at = ints[at & (kept - 1), T_AFTER]
    for _ in range(DISORDER):  # and a little farther, for those that came out of order
        if ints[at & (kept - 1), T_AFTER] < 0:
            break
        at = ints[at & (kept - 1), T_AFTER]
    recent[n, R_CURSOR] = at
    lower, steps, most = 0, 0, kept if appended >= recent[n, R_PATIENT] else NEARBY
    while is_recent(at, kept, appended) and lower <= 2 * DISORDER and steps < most:
        found = ints[at & (kept - 1), T_SEQ]
        if found == seq:
            recent[n, R_CURSOR] = at
            return at
        lower += found < seq
        at = ints[at & (kept - 1), T_BEFORE]
        steps += 1
    if steps > NEARBY:
        recent[n, R_CURSOR], recent[n, R_PATIENT] = -1, appended + steps // DISORDER
    return -1


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
def ring_at(base, n, slot, capacity):
    """Place of a record in the ring that begins at `base`."""
    return (base + (n * capacity + slot) * RECORD) & PLACE


@compiled
def head_at(n, w):
    """Place of the newest bar of a width among all newest bars."""
    return ((n * WIDTHS_KNOWN + w) * RECORD) & PLACE


@compiled
def newest_at(base, n, total, capacity):
    """Place of the newest bar in its ring."""
    return ring_at(base, n, newest_slot(total, capacity), capacity)


@inlined
def copy_record(to, at, of, begin):
    to_place, of_place = at & PLACE, begin & PLACE
    for field in range(RECORD):
        to[to_place + field] = of[of_place + field]


@inlined
def fetch_record(ints, at):
    fetch(ints, at)
    fetch(ints, at + 8)
    fetch(ints, at + RECORD - 1)


@compiled
def find_bar(ints, base, n, total, capacity, t):
    """Place in the ring of the kept bar that holds the moment t, or -1."""
    low, high = max(total - capacity, 0), total
    while low < high:  # to the first bar that starts after t
        middle = (low + high) // 2
        if ints[ring_at(base, n, middle % capacity, capacity) + TIME] <= t:
            low = middle + 1
        else:
            high = middle
    if low == max(total - capacity, 0):
        return -1
    at = ring_at(base, n, (low - 1) % capacity, capacity)
    return at if t < ints[at + END] else -1


@compiled
def find_before(ints, base, n, total, capacity, t):
    """Place in the ring of the last kept bar that starts before t, or -1."""
    for b in range(total - 1, max(total - capacity, 0) - 1, -1):
        at = ring_at(base, n, b % capacity, capacity)
        if ints[at + TIME] <= t:
            return at
    return -1


@compiled
def insert_bar(ints, base, totals, capacity, n, w, start):
    """Place of a new bar, kept in order of start; -1 if it is older than all that a full ring keeps."""
    total = totals[n, w]
    if total >= capacity and start < ints[ring_at(base, n, total % capacity, capacity) + TIME]:
        return -1
    b = total
    while b > max(total + 1 - capacity, 0):
        before = ring_at(base, n, (b - 1) % capacity, capacity)
        if ints[before + TIME] <= start:
            break
        copy_record(ints, ring_at(base, n, b % capacity, capacity), ints, before)
        b -= 1
    totals[n, w] = total + 1
    return ring_at(base, n, b % capacity, capacity)


@compiled
def note_past(past, used, w, n, start, new):
    past[used[0], 0] = w
    past[used[0], 1] = n
    past[used[0], 2] = start
    past[used[0], 3] = new
    used[0] += 1


@compiled
def write_ints(ints, at, start, end, known, count, session, day, given, opened, closed, seq):
    ints[at + TIME], ints[at + END], ints[at + KNOWN] = start, end, known
    ints[at + COUNT], ints[at + REVISION] = count, 0
    ints[at + SESSION], ints[at + DAY], ints[at + GIVEN] = session, day, given
    ints[at + OPENED], ints[at + CLOSED] = opened, closed
    ints[at + OPENED_SEQ], ints[at + CLOSED_SEQ] = seq, seq


@compiled
def write_prices(floats, at, price):
    floats[at + OPEN] = floats[at + HIGH] = floats[at + LOW] = floats[at + CLOSE] = price
    floats[at + VOLUME] = floats[at + TURNOVER] = 0.0
    floats[at + VOLUME_REST] = floats[at + TURNOVER_REST] = 0.0


@compiled
def has_room(n, store):
    """Whether a row of instrument n can be added without growing a ring or emptying the notes of the past."""
    if store.past_used[0] + len(store.active) > len(store.past):
        return False
    for w in store.active:
        if store.capacities[w] <= store.totals[n, w] < store.limits[w]:
            return False
    return True


@compiled
def add_exactly(floats, total, rest, more, more_rest):
    """Add to a sum whose rounding error is kept, so that it does not depend on the order of additions.

    The two-sum of Knuth (The Art of Computer Programming 4.2.2), and its fast form by Dekker (1971).
    """
    before = floats[total]
    rounded = before + more
    share = rounded - before
    error = floats[rest] + (before - (rounded - share)) + (more - share) + more_rest
    whole = rounded + error
    floats[total] = whole
    floats[rest] = error - (whole - rounded)


@compiled
def add_fresh(floats, total, rest, more):
    """As `add_exactly`, in the sums of a batch; what is left over is put in order when they are folded."""
    before = floats[total]
    rounded = before + more
    share = rounded - before
    floats[total] = rounded
    floats[rest] += (before - (rounded - share)) + (more - share)


@compiled
def is_after(t, seq, than, than_seq):
    return t > than or (t == than and seq >= than_seq)


@compiled
def add_ticks(begin, ticks, lateness, horizon, store, segments, last, late):
    """Add the ticks from `begin` on to the bars of all active widths, and to the last prices.

    Returns the number of ticks, or the tick before which a ring must grow or the notes of the past be
    emptied; call again from that one. `rows` are the ticks' segments. `late` counts ticks that changed a bar
    which was complete (known more than `lateness` after its end), and ticks that came too late to: known
    more than `horizon` after they happened, or too old for all kept bars. What a ready-made bar tells of already
    is not added again.

    Most ticks belong to the newest bars of all widths, which lie inside one another. These are summed up
    once per instrument, and folded into the seven bars when another bar begins, and at the end of the batch.
    """
    used, done = 0, len(ticks.ids)
    for i in range(begin, len(ticks.ids)):
        n, t, seq, seen = ticks.ids[i] & PLACE, ticks.times[i], ticks.seqs[i], ticks.known[i]
        f = (n * FRESH) & PLACE
        until = store.fresh_ints[f + FRESH_UNTIL]
        if until > 0 and is_after(
            t, seq, store.fresh_ints[f + FRESH_CLOSED], store.fresh_ints[f + FRESH_SEQ]
        ):
            goes_on = t < until and seen <= until + lateness
            if not goes_on and t >= until and ticks.effects[i] == ALL:
                if not has_room(n, store):
                    done = i
                    break
                price, s = ticks.prices[i], ticks.rows[i]
                goes_on = begin_bars(n, t, seq, seen, price, s, lateness, store, segments, last)
            if goes_on:
                if store.fresh_ints[f + FRESH_LISTED] == 0:
                    store.fresh_ints[f + FRESH_LISTED] = 1
                    store.fresh_ids[used] = n
                    used += 1
                add_to_fresh(store, f, t, seq, seen, ticks.prices[i], ticks.sizes[i], ticks.effects[i])
                continue
        if not has_room(n, store):
            done = i
            break
        fold_fresh(n, store, last)
        add_apart(
            n, t, seq, seen, ticks.prices[i], ticks.sizes[i], ticks.effects[i], ticks.rows[i], lateness, horizon, store,
            segments, last, late,
        )  # fmt: skip
        open_fresh(n, store)
    for k in range(used):
        store.fresh_ints[store.fresh_ids[k] * FRESH + FRESH_LISTED] = 0
        fold_fresh(store.fresh_ids[k], store, last)
    return done


@inlined
def add_to_fresh(store, f, t, seq, seen, price, size, effects):
    """Add a tick to the sums of its instrument's ticks in this batch; it comes after those before it."""
    if effects & EXTREMES:
        store.fresh_floats[f + FRESH_HIGH] = max(store.fresh_floats[f + FRESH_HIGH], price)
        store.fresh_floats[f + FRESH_LOW] = min(store.fresh_floats[f + FRESH_LOW], price)
    if effects & LAST:
        store.fresh_floats[f + FRESH_CLOSE] = price
        store.fresh_ints[f + FRESH_CLOSED], store.fresh_ints[f + FRESH_SEQ] = t, seq
        store.fresh_ints[f + FRESH_CLOSE_KNOWN] = seen
    if effects & VOLUMES:
        if size == size:
            add_fresh(store.fresh_floats, f + FRESH_VOLUME, f + FRESH_VOLUME_REST, size)
            add_fresh(store.fresh_floats, f + FRESH_TURNOVER, f + FRESH_TURNOVER_REST, price * size)
        store.fresh_ints[f + FRESH_COUNT] += 1
    store.fresh_ints[f + FRESH_KNOWN] = max(store.fresh_ints[f + FRESH_KNOWN], seen)


@compiled
def fold_fresh(n, store, last):
    """Add the sums of an instrument's ticks to its newest bars and its last price, and empty them."""
    f = (n * FRESH) & PLACE
    seen = store.fresh_ints[f + FRESH_KNOWN]
    if seen == 0:
        return
    narrowest = head_at(n, store.active[0])
    session, day = store.head_ints[narrowest + SESSION], store.head_ints[narrowest + DAY]
    sums, facts = store.fresh_floats, store.fresh_ints
    high, low, close = sums[f + FRESH_HIGH], sums[f + FRESH_LOW], sums[f + FRESH_CLOSE]
    volume, volume_rest = sums[f + FRESH_VOLUME], sums[f + FRESH_VOLUME_REST]
    turnover, turnover_rest = sums[f + FRESH_TURNOVER], sums[f + FRESH_TURNOVER_REST]
    closed, seq, count = facts[f + FRESH_CLOSED], facts[f + FRESH_SEQ], facts[f + FRESH_COUNT]
    close_known = facts[f + FRESH_CLOSE_KNOWN]
    closes = close_known != 0
    for w in store.active:
        if store.widths[w] >= DAY_US and session != REGULAR:
            continue
        at = head_at(n, w)
        store.head_floats[at + HIGH] = max(store.head_floats[at + HIGH], high)
        store.head_floats[at + LOW] = min(store.head_floats[at + LOW], low)
        if closes:
            store.head_floats[at + CLOSE] = close
            store.head_ints[at + CLOSED], store.head_ints[at + CLOSED_SEQ] = closed, seq
        add_exactly(store.head_floats, at + VOLUME, at + VOLUME_REST, volume, volume_rest)
        add_exactly(store.head_floats, at + TURNOVER, at + TURNOVER_REST, turnover, turnover_rest)
        store.head_ints[at + KNOWN] = max(store.head_ints[at + KNOWN], seen)
        store.head_ints[at + COUNT] += count
    if closes:
        set_last(last.floats, last.ints, n, close, closed, seq, close_known, day, session)
    store.touched[n] += 1
    empty_fresh(store, f)


@inlined
def empty_fresh(store, f):
    store.fresh_floats[f + FRESH_HIGH], store.fresh_floats[f + FRESH_LOW] = -np.inf, np.inf
    store.fresh_floats[f + FRESH_VOLUME] = store.fresh_floats[f + FRESH_VOLUME_REST] = 0.0
    store.fresh_floats[f + FRESH_TURNOVER] = store.fresh_floats[f + FRESH_TURNOVER_REST] = 0.0
    store.fresh_ints[f + FRESH_COUNT] = store.fresh_ints[f + FRESH_KNOWN] = store.fresh_ints[
        f + FRESH_CLOSE_KNOWN
    ] = 0


@compiled
def open_fresh(n, store):
    """Let the next ticks be summed up if they belong to the newest bars of all widths, and change nothing else."""
    f, narrowest = (n * FRESH) & PLACE, head_at(n, store.active[0])
    ints = store.head_ints
    start, end, regular = ints[narrowest + TIME], ints[narrowest + END], ints[narrowest + SESSION] == REGULAR
    store.fresh_ints[f + FRESH_UNTIL] = 0
    for w in store.active:
        if store.widths[w] >= DAY_US and not regular:
            continue
        at = head_at(n, w)
        inside = store.totals[n, w] > 0 and ints[at + TIME] <= start and end <= ints[at + END]
        if (
            not inside
            or ints[at + GIVEN] != BUILT
            or ints[at + CLOSED] < 0
            or store.waiting_ints[at + KNOWN] != 0
        ):
            return
    store.fresh_ints[f + FRESH_UNTIL] = end
    store.fresh_ints[f + FRESH_CLOSED] = ints[narrowest + CLOSED]
    store.fresh_ints[f + FRESH_SEQ] = ints[narrowest + CLOSED_SEQ]
    empty_fresh(store, f)


@compiled
def begin_bars(n, t, seq, seen, price, s, lateness, store, segments, last):
    """Begin a bar at each width whose newest has ended before t, without the tick's volume.

    False, and nothing begun, if the tick cannot be summed up with those to come: a newest bar that it lies in was
    told by the source, or begins after it, or it is late.
    """
    f, session = (n * FRESH) & PLACE, segments[s, S_SESSION]
    for w in store.active:
        at = head_at(n, w)
        if store.widths[w] >= DAY_US:
            if session != REGULAR:
                continue
            if store.waiting_ints[at + KNOWN] != 0:  # outside of the day's session nobody looked for that
                return False
        if store.totals[n, w] > 0:
            if t >= store.head_ints[at + END]:
                newest = newest_at(store.offsets[w], n, store.totals[n, w], store.capacities[w])
                fetch_record(store.ints, newest)
            elif t < store.head_ints[at + TIME] or store.head_ints[at + GIVEN] != BUILT:
                return False
    if seen > bounds(t, store.widths[store.active[0]], s, segments)[1] + lateness:
        return False
    fold_fresh(n, store, last)
    until = FOREVER
    for w in store.active:
        if store.widths[w] >= DAY_US and session != REGULAR:
            continue
        at, total = head_at(n, w), store.totals[n, w]
        if total == 0 or t >= store.head_ints[at + END]:
            start, end = bounds(t, store.widths[w], s, segments)
            if total > 0:
                copy_record(
                    store.ints,
                    newest_at(store.offsets[w], n, total, store.capacities[w]),
                    store.head_ints,
                    at,
                )
                start = max(start, store.head_ints[at + END])  # a source's own bars may end off our grid
            store.totals[n, w] = total + 1
            write_prices(store.head_floats, at, price)
            write_ints(
                store.head_ints, at, start, end, seen, 0, session, segments[s, S_DAY], BUILT, t, t, seq
            )
        until = min(until, store.head_ints[at + END])
    store.fresh_ints[f + FRESH_UNTIL] = until
    empty_fresh(store, f)
    return True


@compiled
def add_apart(n, t, seq, seen, price, size, effects, s, lateness, horizon, store, segments, last, late):
    """Add one tick to the bar of each width that it belongs to, and to the last price."""
    session = segments[s, S_SESSION]
    if seen > t + horizon:
        late[TOO_LATE] += 1
        if effects & LAST:  # on a Sunday a price of Friday is the last one
            set_last(last.floats, last.ints, n, price, t, seq, seen, segments[s, S_DAY], session)
        return
    store.touched[n] += 1
    taken, refused, revised = False, False, False
    for w in store.active:
        if store.widths[w] >= DAY_US and session != REGULAR:
            continue
        at = head_at(n, w)
        if store.head_ints[at + TIME] <= t < store.head_ints[at + END]:
            if store.head_ints[at + GIVEN] == READY_MADE and t < store.head_ints[at + CLOSED]:
                taken = True
                break  # and so does every wider one
            taken = True
            if seen > store.head_ints[at + END] + lateness:
                store.head_ints[at + REVISION] += 1
                note_past(store.past, store.past_used, w, n, store.head_ints[at + TIME], 0)
                revised = True
            add_tick(store.head_floats, store.head_ints, at, t, seq, seen, price, size, effects)
            continue
        became = add_aside(n, w, t, seq, seen, price, size, effects, s, lateness, store, segments)
        refused |= became == REFUSED
        revised |= became == REVISED_PAST
        taken |= became != REFUSED
        if became == TOLD:
            break
    late[REVISED] += revised
    late[TOO_LATE] += refused and not taken
    if effects & LAST:
        set_last(last.floats, last.ints, n, price, t, seq, seen, segments[s, S_DAY], session)


@compiled
def add_aside(n, w, t, seq, seen, price, size, effects, s, lateness, store, segments):
    """Add a tick that is not of the newest bar: begin a bar, or find the past one; tells which it was.

    Arrays are read by number and never sliced: a slice counts references, which costs more than a tick.
    """
    total, head, base, capacity = store.totals[n, w], head_at(n, w), store.offsets[w], store.capacities[w]
    start, end = bounds(t, store.widths[w], s, segments)
    newest = total == 0 or t >= store.head_ints[head + END]
    if newest and total > 0:
        start = max(start, store.head_ints[head + END])  # a source's own bars may end off our grid
    if newest and not effects & OPENS:
        wait(head, start, end, t, seq, seen, price, size, effects, s, total, store, segments)
        return WAITS
    if (
        newest
        and store.waiting_ints[head + KNOWN] != 0
        and store.waiting_ints[head + TIME] < start
        and total > 0
    ):
        add_volume(store.head_floats, store.head_ints, head, store.waiting_floats, store.waiting_ints, head)
        store.waiting_ints[head + KNOWN] = 0
    if total > 0:
        copy_record(store.ints, newest_at(base, n, total, capacity), store.head_ints, head)
    if newest:
        store.totals[n, w] = total + 1
        first_tick(
            store.head_floats, store.head_ints, head, start, end, t, seq, seen, price, size, effects, s, segments
        )  # fmt: skip
        if store.waiting_ints[head + KNOWN] != 0 and store.waiting_ints[head + TIME] <= start:
            if store.waiting_ints[head + TIME] < start:
                forget_prices(store.waiting_floats, store.waiting_ints, head)
            merge_bar(
                store.head_floats, store.head_ints, head, store.waiting_floats, store.waiting_ints, head
            )
            store.waiting_ints[head + KNOWN] = 0
        return BEGUN
    at = find_bar(store.ints, base, n, total, capacity, t)
    if at >= 0:
        end = store.ints[at + END]
    if at < 0 and not effects & OPENS:  # its volume belongs to the bar before
        at = find_before(store.ints, base, n, total, capacity, t)
        if at < 0:
            return REFUSED
        effects &= VOLUMES
    if at < 0:
        at = insert_bar(store.ints, base, store.totals, capacity, n, w, start)
        if at < 0:
            return REFUSED
        first_tick(store.floats, store.ints, at, start, end, t, seq, seen, price, size, effects, s, segments)
        note_past(store.past, store.past_used, w, n, start, 1)
        return BEGUN
    if store.ints[at + GIVEN] == READY_MADE and t < store.ints[at + CLOSED]:
        return TOLD
    add_tick(store.floats, store.ints, at, t, seq, seen, price, size, effects)
    note_past(store.past, store.past_used, w, n, store.ints[at + TIME], 0)
    if seen <= end + lateness:
        return SORTED_IN
    store.ints[at + REVISION] += 1
    return REVISED_PAST


@compiled
def wait(head, start, end, t, seq, seen, price, size, effects, s, total, store, segments):
    """Keep a trade that makes no price until one comes that begins its bar, or its bar's time is over.

    Then its volume belongs to the bar before, as vendors of bars have it, since a bar without a price is none.
    """
    if store.waiting_ints[head + KNOWN] != 0 and store.waiting_ints[head + TIME] < start:
        if total > 0:
            add_volume(
                store.head_floats, store.head_ints, head, store.waiting_floats, store.waiting_ints, head
            )
            store.waiting_ints[head + KNOWN] = 0
        else:  # before the first bar of all, it waits for that one
            store.waiting_ints[head + TIME], store.waiting_ints[head + END] = start, end
            forget_prices(store.waiting_floats, store.waiting_ints, head)
    if store.waiting_ints[head + KNOWN] == 0:
        first_tick(
            store.waiting_floats, store.waiting_ints, head, start, end, t, seq, seen, price, size, effects, s, segments
        )  # fmt: skip
    else:
        add_tick(store.waiting_floats, store.waiting_ints, head, t, seq, seen, price, size, effects)


@compiled
def forget_prices(floats, ints, at):
    """Leave only the volume, the turnover and the count of trades that wait."""
    floats[at + OPEN] = floats[at + HIGH] = floats[at + LOW] = floats[at + CLOSE] = np.nan
    ints[at + CLOSED] = -1


@compiled
def add_volume(floats, ints, at, base_floats, base_ints, base):
    """Add another bar's volume, turnover and count, and none of its prices."""
    add_sums(floats, at, base_floats, base)
    ints[at + KNOWN] = max(ints[at + KNOWN], base_ints[base + KNOWN])
    if ints[at + COUNT] >= 0:
        ints[at + COUNT] += base_ints[base + COUNT]


@compiled
def first_tick(floats, ints, at, start, end, t, seq, seen, price, size, effects, s, segments):
    write_prices(floats, at, np.nan)
    write_ints(
        ints, at, start, end, seen, 0, segments[s, S_SESSION], segments[s, S_DAY], BUILT, FOREVER, -1, -1
    )
    add_tick(floats, ints, at, t, seq, seen, price, size, effects)


@compiled
def is_emptied(floats, ints, at):
    """Whether all trades that made this bar's prices were cancelled: it shows the close of the bar before it."""
    return ints[at + OPENED] == FOREVER and floats[at + OPEN] == floats[at + OPEN]


@compiled
def add_tick(floats, ints, at, t, seq, seen, price, size, effects):
    """Add a tick to a bar that may have ticks before and after it; of ticks at one time the lower number is first."""
    if is_emptied(floats, ints, at):
        if effects & OPENS:
            forget_prices(floats, ints, at)
        else:
            effects &= VOLUMES
    if effects & EXTREMES:
        if not price <= floats[at + HIGH]:
            floats[at + HIGH] = price
        if not price >= floats[at + LOW]:
            floats[at + LOW] = price
    if effects & LAST and is_after(t, seq, ints[at + CLOSED], ints[at + CLOSED_SEQ]):
        floats[at + CLOSE] = price
        ints[at + CLOSED], ints[at + CLOSED_SEQ] = t, seq
    if effects & OPENS and not is_after(t, seq, ints[at + OPENED], ints[at + OPENED_SEQ]):
        floats[at + OPEN] = price
        ints[at + OPENED], ints[at + OPENED_SEQ] = t, seq
        if ints[at + CLOSED] < 0:
            floats[at + CLOSE] = price  # until one comes that may set it
    if effects & VOLUMES:
        if size == size:
            add_exactly(floats, at + VOLUME, at + VOLUME_REST, size, 0.0)
            add_exactly(floats, at + TURNOVER, at + TURNOVER_REST, price * size, 0.0)
        if ints[at + COUNT] >= 0:
            ints[at + COUNT] += 1
    ints[at + KNOWN] = max(ints[at + KNOWN], seen)


@compiled
def widen(floats, at, base_floats, base):
    """Let a bar reach as high and as low as another one; NaN reaches nowhere."""
    if base_floats[base + HIGH] > 0.0 and not base_floats[base + HIGH] <= floats[at + HIGH]:
        floats[at + HIGH] = base_floats[base + HIGH]
    if base_floats[base + LOW] > 0.0 and not base_floats[base + LOW] >= floats[at + LOW]:
        floats[at + LOW] = base_floats[base + LOW]


@compiled
def take_close(floats, ints, at, base_floats, base_ints, base):
    floats[at + CLOSE] = base_floats[base + CLOSE]
    ints[at + CLOSED], ints[at + CLOSED_SEQ] = base_ints[base + CLOSED], base_ints[base + CLOSED_SEQ]


@compiled
def take_open(floats, ints, at, base_floats, base_ints, base):
    floats[at + OPEN] = base_floats[base + OPEN]
    ints[at + OPENED], ints[at + OPENED_SEQ] = base_ints[base + OPENED], base_ints[base + OPENED_SEQ]


@compiled
def add_sums(floats, at, base_floats, base):
    for total, rest in ((VOLUME, VOLUME_REST), (TURNOVER, TURNOVER_REST)):
        add_exactly(floats, at + total, at + rest, base_floats[base + total], base_floats[base + rest])


@compiled
def merge_bar(floats, ints, at, base_floats, base_ints, base):
    """Fold the narrower bar at `base` into the wider one at `at`."""
    if is_emptied(floats, ints, at):
        forget_prices(floats, ints, at)
    if not is_emptied(base_floats, base_ints, base):
        widen(floats, at, base_floats, base)
    if base_ints[base + CLOSED] >= 0 and is_after(
        base_ints[base + CLOSED], base_ints[base + CLOSED_SEQ], ints[at + CLOSED], ints[at + CLOSED_SEQ]
    ):
        take_close(floats, ints, at, base_floats, base_ints, base)
    if not is_after(
        base_ints[base + OPENED], base_ints[base + OPENED_SEQ], ints[at + OPENED], ints[at + OPENED_SEQ]
    ):
        take_open(floats, ints, at, base_floats, base_ints, base)
    add_sums(floats, at, base_floats, base)
    ints[at + KNOWN] = max(ints[at + KNOWN], base_ints[base + KNOWN])
    if ints[at + COUNT] < 0 or base_ints[base + COUNT] < 0:
        ints[at + COUNT] = -1
    else:
        ints[at + COUNT] += base_ints[base + COUNT]


@compiled
def rebuild_bar(floats, ints, at, base, n, total, capacity):
    """Make the wider bar at `at` anew from the narrower ones; False if they are not all kept any more."""
    low, high = max(total - capacity, 0), total
    if low > 0 and ints[ring_at(base, n, low % capacity, capacity) + TIME] > ints[at + TIME]:
        return False
    while low < high:  # to the first narrower bar that starts inside
        middle = (low + high) // 2
        if ints[ring_at(base, n, middle % capacity, capacity) + TIME] < ints[at + TIME]:
            low = middle + 1
        else:
            high = middle
    first = True
    for b in range(low, total):
        narrow = ring_at(base, n, b % capacity, capacity)
        if ints[narrow + TIME] >= ints[at + END]:
            break
        if ints[at + SESSION] == REGULAR and ints[narrow + SESSION] != REGULAR:
            continue  # a print during the lunch break is none of the day's
        if first:
            known = max(ints[at + KNOWN], ints[narrow + KNOWN])
            for field in range(N_FLOATS):
                floats[at + field] = floats[narrow + field]
            take_open(floats, ints, at, floats, ints, narrow)
            take_close(floats, ints, at, floats, ints, narrow)
            ints[at + COUNT], ints[at + KNOWN] = ints[narrow + COUNT], known
            if is_emptied(floats, ints, at):
                forget_prices(floats, ints, at)
            first = False
        else:
            merge_bar(floats, ints, at, floats, ints, narrow)
    return True


@compiled
def correct_bar(floats, ints, at, base_floats, base_ints, base, old_floats, old_ints):
    """Change the wider bar at `at` by what a narrower one was revised by, where it cannot be made anew.

    A high that was too high, or a low too low, stays.
    """
    if is_emptied(floats, ints, at):
        forget_prices(floats, ints, at)
    widen(floats, at, base_floats, base)
    if old_ints[OPENED] <= ints[at + OPENED]:
        take_open(floats, ints, at, base_floats, base_ints, base)
    if base_ints[base + CLOSED] >= ints[at + CLOSED]:
        take_close(floats, ints, at, base_floats, base_ints, base)
    add_sums(floats, at, base_floats, base)
    for total, rest in ((VOLUME, VOLUME_REST), (TURNOVER, TURNOVER_REST)):
        add_exactly(floats, at + total, at + rest, -old_floats[total], -old_floats[rest])
    ints[at + KNOWN] = max(ints[at + KNOWN], base_ints[base + KNOWN])
    if ints[at + COUNT] >= 0 and old_ints[COUNT] >= 0 and base_ints[base + COUNT] >= 0:
        ints[at + COUNT] += base_ints[base + COUNT] - old_ints[COUNT]
    else:
        ints[at + COUNT] = -1


@compiled
def is_same(old, values):
    for i in range(len(values)):
        if old[i] != values[i] and not (old[i] != old[i] and values[i] != values[i]):
            return False
    return True


@compiled
def add_bars(
    begin,
    bases,
    ids,
    times,
    known,
    values,
    counts,
    store,
    segments,
    spans,
    pointers,
    late,
    old_floats,
    old_ints,
):
    """Put ready-made bars of the widths `bases` in their place and fold them into the wider widths.

    A bar that is there already is replaced, and the wider bars around it are made anew; that counts as a
    revision if the bar had ended. A ready-made wider bar is never changed by narrower ones, and hides
    them from those wider still. Returns the number of rows, or the row before which a ring must grow or the
    notes of the past be emptied; call again from that row.
    """
    for i in range(begin, len(ids)):
        n, base = ids[i], bases[i]
        if not has_room(n, store):
            return i
        s = find_segment(times[i], n, segments, spans, pointers)
        at, became = put_bar(
            n, base, times[i], known[i], values[i], counts[i], s, store, segments, late, old_floats, old_ints
        )  # fmt: skip
        if at < 0:
            continue
        store.touched[n] += 1
        for w in store.active:
            if w <= base or (store.widths[w] >= DAY_US and segments[s, S_SESSION] != REGULAR):
                continue
            if not fold_bar(
                n, w, base, at, became, s, store, segments, old_floats, old_ints
            ):  # fmt: skip
                break
    return len(ids)


@compiled
def put_bar(n, base, t, seen, values, count, s, store, segments, late, old_floats, old_ints):
    """Put a ready-made bar in its place; returns its place (-1 if nothing changes) and what became of it.

    `old_floats` and `old_ints` receive the bar that was there.
    """
    total, head, ring, capacity = (
        store.totals[n, base],
        head_at(n, base),
        store.offsets[base],
        store.capacities[base],
    )
    width = store.widths[base]
    if total > 0:
        copy_record(store.ints, newest_at(ring, n, total, capacity), store.head_ints, head)
    session = segments[s, S_SESSION]
    start, end = bounds(t, width, s, segments)
    if width >= DAY_US:  # it belongs to its trading day, at whatever hour of it the source has stamped it
        session = REGULAR
    else:  # the source knows where its bars start
        start, end = t, min(t + width, segments[s, S_END])
    newest = total == 0 or start >= store.head_ints[head + TIME]
    at = -1
    if total > 0:
        at = (
            newest_at(ring, n, total, capacity)
            if newest
            else find_bar(store.ints, ring, n, total, capacity, start)
        )
    became, revision = BEGUN, 0
    if at >= 0 and store.ints[at + TIME] == start:
        copy_record(old_ints, 0, store.ints, at)
        if old_ints[GIVEN] == READY_MADE and old_ints[COUNT] == count and is_same(old_floats, values):
            store.ints[at + KNOWN] = max(old_ints[KNOWN], seen)
            store.ints[at + CLOSED] = min(store.ints[at + KNOWN], end)
            copy_record(store.head_ints, head, store.ints, newest_at(ring, n, total, capacity))
            if not newest:
                note_past(store.past, store.past_used, base, n, start, TOLD_AGAIN)
            return -1, became
        became = REPLACED
        if not newest or seen > end or old_ints[KNOWN] >= end:
            became = REVISED_PAST
        revision = old_ints[REVISION] + (became == REVISED_PAST)
        late[REVISED] += became == REVISED_PAST
        seen = max(old_ints[KNOWN], seen)
    elif newest:
        at = newest_at(ring, n, total + 1, capacity)
        store.totals[n, base] = total + 1
    else:
        at = insert_bar(store.ints, ring, store.totals, capacity, n, base, start)
        if at < 0:
            late[TOO_LATE] += 1
            return -1, became
    if not newest:
        note_past(store.past, store.past_used, base, n, start, became == BEGUN)
    for field in range(len(values)):
        store.floats[at + field] = values[field]
    store.floats[at + VOLUME_REST] = store.floats[at + TURNOVER_REST] = 0.0
    day, closed = segments[s, S_DAY], min(seen, end)
    write_ints(store.ints, at, start, end, seen, count, session, day, READY_MADE, start, closed, -1)
    store.ints[at + REVISION] = revision
    copy_record(store.head_ints, head, store.ints, newest_at(ring, n, store.totals[n, base], capacity))
    return at, became


@compiled
def fold_bar(n, w, base, base_at, became, s, store, segments, old_floats, old_ints):
    """Fold a ready-made bar into a wider width; False if a ready-made wider bar hides it from here on."""
    total, head, ring, capacity = store.totals[n, w], head_at(n, w), store.offsets[w], store.capacities[w]
    start = store.ints[base_at + TIME]
    newest = total == 0 or start >= store.head_ints[head + TIME]
    if total > 0:
        copy_record(store.ints, newest_at(ring, n, total, capacity), store.head_ints, head)
    at = find_bar(store.ints, ring, n, total, capacity, start)
    if at < 0:
        start_of, end_of = bounds(start, store.widths[w], s, segments)
        if newest:
            at = newest_at(ring, n, total + 1, capacity)
            store.totals[n, w] = total + 1
        else:
            at = insert_bar(store.ints, ring, store.totals, capacity, n, w, start_of)
            if at < 0:
                return True
            note_past(store.past, store.past_used, w, n, start_of, 1)
        copy_record(store.ints, at, store.ints, base_at)
        store.ints[at + TIME], store.ints[at + END] = start_of, end_of
        store.ints[at + REVISION], store.ints[at + GIVEN] = 0, FOLDED + base
    else:
        given = store.ints[at + GIVEN]
        if given == READY_MADE:
            return False
        if became == BEGUN:
            merge_bar(store.floats, store.ints, at, store.floats, store.ints, base_at)
        elif given > FOLDED + base or not rebuild_bar(
            store.floats,
            store.ints,
            at,
            store.offsets[base],
            n,
            store.totals[n, base],
            store.capacities[base],
        ):
            correct_bar(store.floats, store.ints, at, store.floats, store.ints, base_at, old_floats, old_ints)
        store.ints[at + GIVEN] = max(given, FOLDED + base)
        if became == REVISED_PAST and (not newest or store.ints[base_at + KNOWN] > store.ints[at + END]):
            store.ints[at + REVISION] += 1
        if not newest:
            note_past(store.past, store.past_used, w, n, store.ints[at + TIME], 0)
    copy_record(store.head_ints, head, store.ints, newest_at(ring, n, store.totals[n, w], capacity))
    return True


@compiled
def set_last(floats, ints, n, price, t, seq, seen, day, session):
    """Bring a last price up to date; one that is older is only looked at for a close."""
    if is_after(t, seq, ints[n, L_TIME], ints[n, L_SEQ]):
        if day > ints[n, L_DAY]:
            if floats[n, L_REGULAR] == floats[n, L_REGULAR]:
                floats[n, L_PREVIOUS] = floats[n, L_REGULAR]
                ints[n, L_PREVIOUS_TIME], ints[n, L_PREVIOUS_SEQ] = (
                    ints[n, L_REGULAR_TIME],
                    ints[n, L_REGULAR_SEQ],
                )
            elif floats[n, L_LAST] == floats[n, L_LAST]:
                floats[n, L_PREVIOUS] = floats[n, L_LAST]  # until a regular price comes
            ints[n, L_DAY] = day
        floats[n, L_LAST] = price
        ints[n, L_TIME], ints[n, L_SEQ] = t, seq
        ints[n, L_KNOWN] = seen
    if session == REGULAR:
        if is_after(t, seq, ints[n, L_REGULAR_TIME], ints[n, L_REGULAR_SEQ]):
            floats[n, L_REGULAR] = price
            ints[n, L_REGULAR_TIME], ints[n, L_REGULAR_SEQ] = t, seq
        if day < ints[n, L_DAY] and is_after(t, seq, ints[n, L_PREVIOUS_TIME], ints[n, L_PREVIOUS_SEQ]):
            floats[n, L_PREVIOUS] = price
            ints[n, L_PREVIOUS_TIME], ints[n, L_PREVIOUS_SEQ] = t, seq


@compiled
def last_bars(bases, ids, times, known, closes, widths, segments, spans, pointers, floats, ints):
    """Bring last prices up to date from bars: a close is the price of the bar's end, or of when it was known."""
    for i in range(len(ids)):
        n, t, width = ids[i], times[i], widths[bases[i]]
        s = find_segment(t, n, segments, spans, pointers)
        end, session = min(t + width, segments[s, S_END]), segments[s, S_SESSION]
        if width >= DAY_US:
            end, session = segments[s, S_CLOSE], REGULAR
        # A close at the moment of the last tick comes after it.
        seq = max(ints[n, L_SEQ], ints[n, L_REGULAR_SEQ], ints[n, L_PREVIOUS_SEQ])
        set_last(floats, ints, n, closes[i], min(end, known[i]), seq, known[i], segments[s, S_DAY], session)


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


@compiled
def stamp_rows(rows, segments, sessions, days):
    """Session and trading day of ticks whose segments are known."""
    for i in range(len(rows)):
        sessions[i] = segments[rows[i], S_SESSION]
        days[i] = segments[rows[i], S_DAY]


@compiled
def site_ticks(ticks, tapes, rules, segments, spans, pointers):
    """Segment of each tick, and what it changes."""
    for i in range(len(ticks.ids)):
        n = ticks.ids[i]
        s = find_segment(ticks.times[i], n, segments, spans, pointers)
        ticks.rows[i] = s
        ticks.effects[i] = effects_of(ticks.conditions[i], tapes[n], segments[s, S_SESSION] == REGULAR, rules)
