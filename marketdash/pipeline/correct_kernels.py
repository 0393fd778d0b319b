"""The compiled loops by which corrections reach the bars and the last prices that their trades have made."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,call-arg"
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
    FRESH,
    FRESH_UNTIL,
    GIVEN,
    HIGH,
    KNOWN,
    LOW,
    OPEN,
    OPENED,
    OPENED_SEQ,
    READY_MADE,
    REVISION,
    SESSION,
    TIME,
    TURNOVER,
    TURNOVER_REST,
    VOLUME,
    VOLUME_REST,
)
from marketdash.pipeline.kernels import (
    AHEAD_US,
    B_HELD,
    B_PRICE,
    BEGINS,
    CHANGED,
    DISORDER,
    GOOD,
    HELD,
    INSTRUMENT,
    L_DAY,
    L_KNOWN,
    L_LAST,
    L_PREVIOUS,
    L_PREVIOUS_SEQ,
    L_PREVIOUS_TIME,
    L_REGULAR,
    L_REGULAR_SEQ,
    L_REGULAR_TIME,
    L_SEQ,
    L_TIME,
    LAG_BITS,
    LATER,
    PRICE,
    R_NEWEST,
    S_DAY,
    S_SESSION,
    SIZE,
    T_AFTER,
    T_BEFORE,
    T_EFFECTS,
    T_PRICE,
    T_SEQ,
    T_SIZE,
    T_TIME,
    TWICE,
    VOID,
    WHEN,
    Kernel,
    add_aside,
    add_exactly,
    add_tick,
    append_recent,
    bounds,
    compiled,
    copy_record,
    effects_of,
    find_segment,
    forget_prices,
    has_room,
    head_at,
    is_after,
    is_price,
    is_recent,
    is_size,
    is_when,
    newest_at,
    note_past,
    ring_at,
    set_last,
    take_close,
    take_open,
    widen,
)
from marketdash.pipeline.rejects import UNKNOWN


def helping(function: Any) -> Kernel:
    """Compile what is called from kernels alone: to take all these arrays from Python would be most of the work."""
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NOTHING, APPLIED, SETTLED = range(3)
"""What became of a correction; SETTLED is one of a print that was held, or was too late for its bars."""
N_APPLIED, N_PARTIAL, N_SETTLED, N_REVISED = range(4)
UNSURE, IS_REVISED, IS_TOLD, IS_CHANGED = 1, 2, 4, 8
INSIDE, ASIDE, WAITING, NOWHERE = range(4)
"""Where a trade lies: in a bar, with its volume alone in one, among those that wait for a bar, or in none."""
PRICES = EXTREMES | LAST | OPENS


class Corrections(NamedTuple):
    """The columns of a batch of corrections; NaN is no price or no size, `given` tells where there are conditions."""

    ids: npt.NDArray[np.int32]
    times: Ints
    known: Ints
    originals: Ints
    prices: Floats
    sizes: Floats
    conditions: npt.NDArray[np.uint32]
    given: npt.NDArray[np.bool_]


class Sites(NamedTuple):
    """The table of sessions, and this step's pointers into it."""

    segments: Ints
    spans: Ints
    pointers: Any


class Trade(NamedTuple):
    """A trade as its source tells of it; without `effects` it changes nothing."""

    price: float
    size: float
    effects: int


@compiled
def apply_corrections(
    begin, rows, lateness, horizon, recent, sites, store, last, verdict, became, counts, unsettled
):  # fmt: skip
    """Judge and apply the corrections from `begin` on; `verdict` is 0 for good ones, `became` what became of them.

    Returns the number of rows, or the row before which a ring must grow or the notes of the past be
    emptied; call again from there, and as long as anything is `unsettled` (see `let_empty_follow`). `counts` are
    those of N_APPLIED and so on.
    """
    for i in range(begin, len(rows.ids)):
        if not settle(lateness, store, unsettled):
            return i
        n, became[i] = rows.ids[i], NOTHING
        verdict[i] = judge_correction(i, rows, len(sites.spans))
        if verdict[i] != GOOD:
            continue
        number = find_original(n, rows.originals[i], recent)
        if number < 0:
            verdict[i] = UNKNOWN
            continue
        slot = number & (len(recent.ints) - 1)
        t, marks = recent.ints[slot, T_TIME], recent.ints[slot, T_EFFECTS]
        s = find_segment(t, n, sites.segments, sites.spans, sites.pointers)
        void = rows.prices[i] != rows.prices[i]
        price, size, effects = rows.prices[i], rows.sizes[i], marks & ALL
        if size != size:
            size = recent.floats[slot, T_SIZE]
        if rows.given[i]:
            regular = sites.segments[s, S_SESSION] == REGULAR
            effects = np.int64(effects_of(rows.conditions[i], recent.tapes[n], regular, recent.rules))
        if is_told(recent.floats, slot, marks, void, price, size, effects):
            verdict[i] = TWICE
            continue
        if not has_room(n, store) or not has_notes(store):
            return i
        new = Trade(price, size, 0 if void else effects)
        became[i] = change_trade(
            n, number, rows.known[i], void, new, s, lateness, horizon, recent, sites, store, last, counts, unsettled
        )  # fmt: skip
    settle(lateness, store, unsettled)
    return len(rows.ids)


@helping
def judge_correction(i, rows, instruments):
    """What is wrong with a correction by itself: a verdict of `kernels`."""
    if rows.ids[i] < 0 or rows.ids[i] >= instruments:
        return INSTRUMENT
    if rows.prices[i] == rows.prices[i] and not is_price(rows.prices[i]):
        return PRICE
    if not is_size(rows.sizes[i]):
        return SIZE
    return GOOD if is_when(rows.times[i], rows.known[i]) else WHEN


@helping
def find_original(n, seq, recent):
    """Number of the newest recent tick of an instrument that its source calls `seq`, or -1."""
    at = recent.marks[n, R_NEWEST] if seq >= 0 else -1
    while is_recent(at, len(recent.ints), recent.appended[0]):
        slot = at & (len(recent.ints) - 1)
        if recent.ints[slot, T_SEQ] == seq:
            return at
        at = recent.ints[slot, T_BEFORE]
    return -1


@helping
def is_told(floats, slot, marks, void, price, size, effects):
    """Whether a correction says what is known already."""
    if void or marks & VOID:
        return void and marks & VOID != 0
    same_size = floats[slot, T_SIZE] == size or (
        size != size and floats[slot, T_SIZE] != floats[slot, T_SIZE]
    )
    return not marks & HELD and floats[slot, T_PRICE] == price and same_size and marks & ALL == effects


@helping
def has_notes(store):
    """Whether the notes of the past have room for all that one correction changes besides emptied bars."""
    return store.past_used[0] + 3 * len(store.active) <= len(store.past)


@helping
def place(n, w, b, store):
    """Place of bar b in its ring."""
    capacity = store.capacities[w]
    return ring_at(store.offsets[w], n, b % capacity, capacity)


@helping
def bring_newest(n, w, store):
    """Write the newest bar into its ring, where all are looked up."""
    if store.totals[n, w] > 0:
        at = newest_at(store.offsets[w], n, store.totals[n, w], store.capacities[w])
        copy_record(store.ints, at, store.head_ints, head_at(n, w))


@helping
def take_newest(n, w, store):
    """Write the newest bar from its ring to the other newest ones."""
    if store.totals[n, w] > 0:
        at = newest_at(store.offsets[w], n, store.totals[n, w], store.capacities[w])
        copy_record(store.head_ints, head_at(n, w), store.ints, at)


@helping
def bar_number(n, w, t, store):
    """Number of the last kept bar that starts at t or before, or -1; the newest one must be in its ring."""
    bring_newest(n, w, store)
    oldest = max(store.totals[n, w] - store.capacities[w], 0)
    low, high = oldest, store.totals[n, w]
    while low < high:
        middle = (low + high) // 2
        if store.ints[place(n, w, middle, store) + TIME] <= t:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > oldest else -1


@helping
def change_trade(
    n, number, seen, void, new, s, lateness, horizon, recent, sites, store, last, counts, unsettled
):
    """Change a trade among the recent ones, in the bar of each width, and in the last prices."""
    slot = number & (len(recent.ints) - 1)
    marks = recent.ints[slot, T_EFFECTS]
    old = Trade(
        recent.floats[slot, T_PRICE], recent.floats[slot, T_SIZE], 0 if marks & (HELD | VOID) else marks & ALL
    )
    begins_later = new.effects & OPENS != 0 and (not marks & (BEGINS | LATER) or marks & HELD != 0)
    if void:
        recent.ints[slot, T_EFFECTS] = marks | VOID
    else:
        recent.floats[slot, T_PRICE], recent.floats[slot, T_SIZE] = new.price, new.size
        kept = marks & ~(HELD | VOID | ALL | (BEGINS if marks & HELD else 0))
        recent.ints[slot, T_EFFECTS] = kept | new.effects | CHANGED | (LATER if begins_later else 0)
    lies_nowhere = not marks & HELD and marks >> LAG_BITS > horizon  # it came too late
    if marks & HELD:
        release(n, number, recent)
    counts[N_SETTLED] += lies_nowhere or marks & HELD != 0
    if lies_nowhere or (void and marks & HELD):
        return SETTLED
    base, all_became = -1, 0
    for w in store.active:
        if store.widths[w] >= DAY_US and sites.segments[s, S_SESSION] != REGULAR:
            continue
        became = change_width(
            n, w, number, seen, marks, old, new, s, lateness, horizon, base, recent, sites, store, unsettled
        )  # fmt: skip
        if became & IS_TOLD:
            break
        base = w if became & IS_CHANGED and not became & UNSURE else -1
        all_became |= became
    store.touched[n] += 1
    store.fresh_ints[n * FRESH + FRESH_UNTIL] = 0
    mend_last(n, number, seen, old, new, s, recent, sites, store, last)
    mend_band(n, old, recent)
    if begins_later:  # from here on its bar is there, which `landing` must know
        t = recent.ints[slot, T_TIME]
        mark = BEGINS | VOID | (seen - t) << LAG_BITS
        append_recent(
            n, t, -1, new.price, new.size, mark, recent.marks, recent.floats, recent.ints, recent.appended
        )
    counts[N_APPLIED] += 1
    counts[N_PARTIAL] += all_became & UNSURE != 0
    counts[N_REVISED] += all_became & IS_REVISED != 0
    return SETTLED if marks & HELD else APPLIED


@helping
def release(n, number, recent):
    """One print fewer is held, if it is among those that wait for others to agree with them."""
    at, waiting = recent.marks[n, R_NEWEST], recent.band[n, B_HELD]
    while is_recent(at, len(recent.ints), recent.appended[0]) and waiting > 0:
        slot = at & (len(recent.ints) - 1)
        if at == number:
            recent.band[n, B_HELD] -= 1
            return
        if recent.ints[slot, T_EFFECTS] & (HELD | VOID) == HELD:
            waiting -= 1
        at = recent.ints[slot, T_BEFORE]


@helping
def change_width(
    n, w, number, seen, marks, old, new, s, lateness, horizon, base, recent, sites, store, unsettled
):
    """Change the bar of one width in which a trade lies; returns a mask of UNSURE and so on.

    `base` is a narrower width whose bars are right already, or -1.
    """
    slot = number & (len(recent.ints) - 1)
    t, seq = recent.ints[slot, T_TIME], recent.ints[slot, T_SEQ]
    own = bar_number(n, w, t, store)
    if own >= 0 and t >= store.ints[place(n, w, own, store) + END]:
        own = -1
    if own >= 0 and store.ints[place(n, w, own, store) + GIVEN] == READY_MADE:
        return IS_TOLD
    where, landed = (
        (INSIDE, t) if marks & (BEGINS | LATER | HELD) else landing(n, w, number, own, sites, recent, store)
    )
    b = own if where == INSIDE and landed == t else bar_number(n, w, landed, store)
    nothing = Trade(0.0, 0.0, marks & 0)
    if where != WAITING and b < 0:
        where = NOWHERE
    elif where != WAITING and store.ints[place(n, w, b, store) + GIVEN] == READY_MADE:
        return 0
    if new.effects & OPENS and b == own and where == ASIDE:
        where = INSIDE
    moves = new.effects & OPENS != 0 and (b != own or where != INSIDE)
    staying, became = nothing if moves else new, 0
    if where == WAITING:
        became = change_waiting(n, w, old, staying, seen, store)
    elif where != NOWHERE:
        became = change_bar(
            n, w, b, where == INSIDE, t, seq, seen, old, staying, lateness, horizon, base, recent, sites, store,
            unsettled,
        )  # fmt: skip
    if where == NOWHERE and not (marks & HELD or moves):
        return became
    if (moves or where == NOWHERE) and own >= 0:
        became |= change_bar(
            n, w, own, True, t, seq, seen, nothing, new, lateness, horizon, base, recent, sites, store, unsettled
        )  # fmt: skip
    elif (moves or where == NOWHERE) and (marks & HELD or not marks & (BEGINS | LATER)):
        add_aside(
            n, w, t, seq, seen, new.price, new.size, new.effects, s, lateness, store, sites.segments
        )  # fmt: skip
        became |= IS_CHANGED
    return became


@helping
def change_waiting(n, w, old, new, seen, store):
    """Change the sums of the trades that wait for a bar."""
    head = head_at(n, w)
    move_sums(store.waiting_floats, store.waiting_ints, head, old, new)
    if store.waiting_ints[head + COUNT] == 0:
        store.waiting_ints[head + KNOWN] = 0
        return IS_CHANGED
    store.waiting_ints[head + KNOWN] = max(store.waiting_ints[head + KNOWN], seen)
    return IS_CHANGED | (UNSURE if (old.effects | new.effects) & PRICES else 0)


@helping
def change_bar(
    n, w, b, prices, t, seq, seen, old, new, lateness, horizon, base, recent, sites, store, unsettled
):
    """Change a kept bar by what a trade was and is; its volume alone without `prices`."""
    at, became = place(n, w, b, store), IS_CHANGED
    move_sums(store.floats, store.ints, at, old, new)
    if prices and (old.effects | new.effects) & PRICES:
        empty = store.ints[at + OPENED] == FOREVER
        sure = change_prices(store.floats, store.ints, at, t, seq, old, new)
        sure = sure or prices_of_ticks(n, w, at, horizon, recent, sites, store)
        sure = sure or (base >= 0 and prices_of_bars(n, base, at, store))
        became |= 0 if sure or empty else UNSURE
    became |= mark_changed(n, w, b, seen, lateness, store)
    let_empty_follow(n, w, b, seen, lateness, store, unsettled)
    take_newest(n, w, store)
    return became


@helping
def move_sums(floats, ints, at, old, new):
    """Take a trade out of a bar's sums and put another one in; exact, whatever the order."""
    if old.effects & VOLUMES:
        if old.size == old.size:
            add_exactly(floats, at + VOLUME, at + VOLUME_REST, -old.size, 0.0)
            add_exactly(floats, at + TURNOVER, at + TURNOVER_REST, -(old.price * old.size), 0.0)
        if ints[at + COUNT] >= 0:
            ints[at + COUNT] -= 1
    if new.effects & VOLUMES:
        if new.size == new.size:
            add_exactly(floats, at + VOLUME, at + VOLUME_REST, new.size, 0.0)
            add_exactly(floats, at + TURNOVER, at + TURNOVER_REST, new.price * new.size, 0.0)
        if ints[at + COUNT] >= 0:
            ints[at + COUNT] += 1


@helping
def change_prices(floats, ints, at, t, seq, old, new):
    """Change a bar's prices as far as the bar alone tells them; False if other trades must be looked at."""
    if ints[at + OPENED] == FOREVER:
        if new.effects & OPENS:
            add_prices(floats, ints, at, t, seq, new.price, new.effects)
        return not new.effects & OPENS
    sure = True
    closes = ints[at + CLOSED] == t and ints[at + CLOSED_SEQ] == seq
    opens = ints[at + OPENED] == t and ints[at + OPENED_SEQ] == seq
    if old.effects & EXTREMES:
        stays = new.effects & EXTREMES != 0
        if old.price >= floats[at + HIGH] and not (stays and new.price >= old.price):
            sure = False
        if old.price <= floats[at + LOW] and not (stays and new.price <= old.price):
            sure = False
    if old.effects & LAST and closes:
        if new.effects & LAST:
            floats[at + CLOSE] = new.price
        else:
            sure = False
    if old.effects & OPENS and opens:
        if new.effects & OPENS:
            floats[at + OPEN] = new.price
            if ints[at + CLOSED] < 0:
                floats[at + CLOSE] = new.price
        else:
            sure = False
    add_prices(floats, ints, at, t, seq, new.price, new.effects)
    return sure


@helping
def add_prices(floats, ints, at, t, seq, price, effects):
    """Add a tick's prices to a bar, without its volume."""
    add_tick(floats, ints, at, t, seq, 0, price, np.nan, effects & PRICES)


@helping
def empty_prices(floats, ints, at):
    """Let a bar be as if no price had come to it yet."""
    forget_prices(floats, ints, at)
    ints[at + OPENED], ints[at + OPENED_SEQ], ints[at + CLOSED_SEQ] = FOREVER, -1, -1


@helping
def prices_of_ticks(n, w, at, horizon, recent, sites, store):
    """Make a bar's prices anew from its instrument's recent ticks; False, and nothing done, if some are forgotten.

    All are there if as many are found as the bar has counted, or if memory reaches back to a tick that was known
    before any of the bar could be, or to the instrument's first one.
    """
    if store.ints[at + GIVEN] != BUILT:
        return False
    start, kept = store.ints[at + TIME], len(recent.ints)
    count, found, older, first, complete = store.ints[at + COUNT], 0, 0, -1, False
    k = recent.marks[n, R_NEWEST]
    while not complete and is_recent(k, kept, recent.appended[0]):
        slot = k & (kept - 1)
        t, marks = recent.ints[slot, T_TIME], recent.ints[slot, T_EFFECTS]
        if is_of_bar(n, w, at, t, marks, horizon, sites, store):
            found += marks & VOLUMES
            first = k
        older += t < start
        k = recent.ints[slot, T_BEFORE]
        complete = (
            k < 0 or t + (marks >> LAG_BITS) + AHEAD_US < start or (found == count and older >= DISORDER)
        )
    if not (complete or found == count):
        return False
    empty_prices(store.floats, store.ints, at)
    while first >= 0:
        slot = first & (kept - 1)
        t, marks = recent.ints[slot, T_TIME], recent.ints[slot, T_EFFECTS]
        if is_of_bar(n, w, at, t, marks, horizon, sites, store):
            seq, price = recent.ints[slot, T_SEQ], recent.floats[slot, T_PRICE]
            add_prices(store.floats, store.ints, at, t, seq, price, marks)
        first = recent.ints[slot, T_AFTER]
    if store.ints[at + OPENED] == FOREVER:
        empty_prices(store.floats, store.ints, at)
    return True


@helping
def is_of_bar(n, w, at, t, marks, horizon, sites, store):
    """Whether a recent tick is one of those that make a bar's prices."""
    if not store.ints[at + TIME] <= t < store.ints[at + END] or marks & (HELD | VOID):
        return False
    if marks >> LAG_BITS > horizon:
        return False
    return store.widths[w] < DAY_US or is_regular(n, t, sites)


@helping
def is_regular(n, t, sites):
    """Whether a moment lies in an instrument's regular session."""
    s = find_segment(t, n, sites.segments, sites.spans, sites.pointers)
    return sites.segments[s, S_SESSION] == REGULAR


@helping
def prices_of_bars(n, base, at, store):
    """Make a bar's prices anew from narrower bars that are right; False, and nothing done, if some are not kept."""
    ints, total = store.ints, store.totals[n, base]
    oldest = max(total - store.capacities[base], 0)
    if oldest > 0 and ints[place(n, base, oldest, store) + TIME] > ints[at + TIME]:
        return False
    b = max(bar_number(n, base, ints[at + TIME] - 1, store) + 1, oldest)
    empty_prices(store.floats, ints, at)
    while b < total and ints[place(n, base, b, store) + TIME] < ints[at + END]:
        narrow = place(n, base, b, store)
        b += 1
        aside = ints[at + SESSION] == REGULAR and ints[narrow + SESSION] != REGULAR  # of the lunch break
        if aside or ints[narrow + OPENED] == FOREVER:
            continue
        widen(store.floats, at, store.floats, narrow)
        if ints[at + OPENED] == FOREVER:
            take_open(store.floats, ints, at, store.floats, ints, narrow)
        if ints[narrow + CLOSED] >= 0:
            take_close(store.floats, ints, at, store.floats, ints, narrow)
        elif ints[at + CLOSED] < 0 and not store.floats[at + CLOSE] > 0.0:
            store.floats[at + CLOSE] = store.floats[narrow + CLOSE]
    return True


@helping
def mark_changed(n, w, b, seen, lateness, store):
    """Note that a bar has changed; returns IS_REVISED if it had ended."""
    at = place(n, w, b, store)
    store.ints[at + KNOWN] = max(store.ints[at + KNOWN], seen)
    revised = seen > store.ints[at + END] + lateness
    store.ints[at + REVISION] += revised
    if (revised or b < store.totals[n, w] - 1) and store.past_used[0] < len(store.past):
        note_past(store.past, store.past_used, w, n, store.ints[at + TIME], 0)
    return IS_REVISED if revised else 0


@helping
def let_empty_follow(n, w, b, seen, lateness, store, unsettled):
    """Let bar b, if it is emptied, and the emptied bars after it show the close of the bar before them.

    Where the notes of the past end before these bars do, `unsettled` tells where to go on: rows of 1, n, b and seen.
    """
    floats, ints, at = store.floats, store.ints, place(n, w, b, store)
    if ints[at + OPENED] == FOREVER and b > max(store.totals[n, w] - store.capacities[w], 0):
        fill_prices(floats, at, floats[place(n, w, b - 1, store) + CLOSE])
    price = floats[at + CLOSE]
    for k in range(b + 1, store.totals[n, w]):
        at = place(n, w, k, store)
        same = floats[at + OPEN] == price or not (floats[at + OPEN] == floats[at + OPEN] or price == price)
        if ints[at + OPENED] != FOREVER or same:
            break
        if not has_notes(store):
            unsettled[w, 0], unsettled[w, 1], unsettled[w, 2], unsettled[w, 3] = 1, n, k - 1, seen
            break
        fill_prices(floats, at, price)
        mark_changed(n, w, k, seen, lateness, store)


@helping
def settle(lateness, store, unsettled):
    """Go on with what is unsettled; False if the notes of the past are full once more."""
    done = True
    for w in store.active:
        if unsettled[w, 0]:
            n, unsettled[w, 0] = unsettled[w, 1], 0
            bring_newest(n, w, store)
            let_empty_follow(n, w, unsettled[w, 2], unsettled[w, 3], lateness, store, unsettled)
            take_newest(n, w, store)
            done = done and not unsettled[w, 0]
    return done


@helping
def fill_prices(floats, at, price):
    """Let a bar show one price."""
    floats[at + OPEN] = floats[at + HIGH] = floats[at + LOW] = floats[at + CLOSE] = price


@helping
def landing(n, w, number, own, sites, recent, store):
    """Where a trade lies that no bar begins with, and the time of a trade in that bar.

    What has come is gone through once more in its order: such a trade lies in its own bar if there was one, or if it
    was the next to begin; else its volume went to the bar before. Where the first trades are forgotten, what bars
    there are now decides.
    """
    kept, slot = len(recent.ints), number & (len(recent.ints) - 1)
    t = recent.ints[slot, T_TIME]
    start, end = bounds_at(n, w, t, sites, store)
    first = number
    while is_recent(recent.ints[first & (kept - 1), T_BEFORE], kept, recent.appended[0]):
        first = recent.ints[first & (kept - 1), T_BEFORE]
    if recent.ints[first & (kept - 1), T_BEFORE] >= 0:
        if own >= 0:
            return INSIDE, t
        head = head_at(n, w)
        waits = store.waiting_ints[head + KNOWN] != 0 and t >= store.head_ints[head + END]
        return (WAITING if waits else ASIDE), start
    top = top_end = before = group = -1
    inside, waits, alone = False, False, False
    k = first
    while k >= 0:
        at, marks = recent.ints[k & (kept - 1), T_TIME], recent.ints[k & (kept - 1), T_EFFECTS]
        this, k = k, recent.ints[k & (kept - 1), T_AFTER]
        if marks & HELD or (store.widths[w] >= DAY_US and not is_regular(n, at, sites)):
            continue
        begins, newest = marks & BEGINS and this != number, at >= top_end
        at_start, at_end = bounds_at(n, w, at, sites, store)
        if newest and 0 <= group < at_start:
            if waits and (top >= 0 or begins):
                return ASIDE, (top if top >= 0 else at)
            alone, group = waits, at_start if top < 0 and not begins else -1
        if begins:
            if newest and 0 <= group <= at_start:
                if waits:
                    return (ASIDE if alone else INSIDE), at
                group = -1
            if at > top:
                top, top_end = at, at_end
            inside = inside or start <= at < end
            before = max(before, at) if at < start else before
        elif newest:
            group, waits = at_start if group < 0 else group, waits or this == number
        elif this == number:
            if inside:
                return INSIDE, t
            return (ASIDE, before) if before >= 0 else (NOWHERE, t)
    return WAITING, t


@helping
def bounds_at(n, w, t, sites, store):
    """Start and end of the bar that holds t."""
    s = find_segment(t, n, sites.segments, sites.spans, sites.pointers)
    return bounds(t, store.widths[w], s, sites.segments)


@helping
def mend_last(n, number, seen, old, new, s, recent, sites, store, last):
    """Bring the last prices up to date that a trade had made, or makes now; the day they are of stays."""
    slot, floats, ints = number & (len(recent.ints) - 1), last.floats, last.ints
    t, seq, day = recent.ints[slot, T_TIME], recent.ints[slot, T_SEQ], sites.segments[s, S_DAY]
    if old.effects & LAST:
        if ints[n, L_TIME] == t and ints[n, L_SEQ] == seq:
            price, at, number_at = newest_last(n, t, seq, False, FOREVER, recent, sites, store)
            floats[n, L_LAST], ints[n, L_TIME], ints[n, L_SEQ] = price, at, number_at
            ints[n, L_KNOWN] = max(ints[n, L_KNOWN], seen) if at else 0
        if ints[n, L_REGULAR_TIME] == t and ints[n, L_REGULAR_SEQ] == seq:
            price, at, number_at = newest_last(n, t, seq, True, FOREVER, recent, sites, store)
            floats[n, L_REGULAR], ints[n, L_REGULAR_TIME], ints[n, L_REGULAR_SEQ] = price, at, number_at
        was = ints[n, L_PREVIOUS_TIME] == t and ints[n, L_PREVIOUS_SEQ] == seq
        if was or (ints[n, L_PREVIOUS_TIME] == 0 and day < ints[n, L_DAY]):
            price, at, number_at = newest_last(n, t, seq, True, ints[n, L_DAY], recent, sites, store)
            if at == 0:  # until a regular price comes
                price = newest_last(n, t, seq, False, ints[n, L_DAY], recent, sites, store)[0]
            floats[n, L_PREVIOUS], ints[n, L_PREVIOUS_TIME], ints[n, L_PREVIOUS_SEQ] = price, at, number_at
    elif new.effects & LAST:
        set_last(floats, ints, n, new.price, t, seq, seen, day, sites.segments[s, S_SESSION])


@helping
def newest_last(n, gone, gone_seq, regular, before_day, recent, sites, store):
    """The newest price of a recent trade, or of a bar; in the regular session or of days before one, if asked for.

    Returns price, time and number: (NaN, 0, 0) without any. The close of the trade that is gone is none.
    """
    price, best, best_seq = np.nan, np.int64(0), np.int64(-1)
    k = recent.marks[n, R_NEWEST]
    while is_recent(k, len(recent.ints), recent.appended[0]):
        slot = k & (len(recent.ints) - 1)
        t, seq, marks = recent.ints[slot, T_TIME], recent.ints[slot, T_SEQ], recent.ints[slot, T_EFFECTS]
        k = recent.ints[slot, T_BEFORE]
        if not marks & LAST or marks & (HELD | VOID) or not is_later(t, seq, best, best_seq):
            continue
        s = find_segment(t, n, sites.segments, sites.spans, sites.pointers)
        if (not regular or sites.segments[s, S_SESSION] == REGULAR) and sites.segments[s, S_DAY] < before_day:
            price, best, best_seq = recent.floats[slot, T_PRICE], t, seq
    for w in store.active:
        bring_newest(n, w, store)
        for b in range(store.totals[n, w] - 1, max(store.totals[n, w] - store.capacities[w], 0) - 1, -1):
            at = place(n, w, b, store)
            t, seq = store.ints[at + CLOSED], store.ints[at + CLOSED_SEQ]
            if t >= 0 and not is_later(t, seq, best, best_seq):
                break
            fits = not regular or store.ints[at + SESSION] == REGULAR
            if t >= 0 and fits and store.ints[at + DAY] < before_day and not (t == gone and seq == gone_seq):
                price, best, best_seq = store.floats[at + CLOSE], t, seq
                break
    return (price, best, best_seq) if best > 0 else (np.nan, np.int64(0), np.int64(0))


@helping
def is_later(t, seq, than, than_seq):
    """As `is_after`, but not of the same event."""
    return not is_after(than, than_seq, t, seq)


@helping
def mend_band(n, old, recent):
    """Let prints be judged against the newest price that holds, if it was this trade's."""
    if not old.effects & (LAST | EXTREMES) or recent.band[n, B_PRICE] != old.price:
        return
    k = recent.marks[n, R_NEWEST]
    while is_recent(k, len(recent.ints), recent.appended[0]):
        slot = k & (len(recent.ints) - 1)
        marks = recent.ints[slot, T_EFFECTS]
        if marks & (LAST | EXTREMES) and not marks & (HELD | VOID):
            recent.band[n, B_PRICE] = recent.floats[slot, T_PRICE]
            return
        k = recent.ints[slot, T_BEFORE]
