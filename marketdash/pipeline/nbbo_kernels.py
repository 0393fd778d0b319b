"""The compiled loop behind the national best bid and offer."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import numpy as np

from marketdash.conditions import IGNORED, NO_ASK, NO_BID
from marketdash.pipeline.kernels import compiled

BID, ASK, BID_SIZE, ASK_SIZE = range(4)
"""Columns of a book and of a best; a price of 0 in a book is no quote, a NaN in a best is none."""


@compiled
def copy_row(to, of):
    """Copy a row number by number: at once numpy would ask for memory, which these kernels are compiled without."""
    for field in range(len(to)):
        to[field] = of[field]


@compiled
def rank_quotes(ids, days, quotes, participants, taken, day_of, books, best, told, passed):
    """Bring books and bests up to date row by row; returns how many rows are to be passed on, and how many as others.

    `quotes` has a row of bid, ask and their sizes for each quote, `told` receives what is passed on in its place
    where `passed` is set. A quote of participant -1 is a national best already.
    """
    count = changed = 0
    for i in range(len(ids)):
        n, p = ids[i], participants[i]
        passed[i] = False
        copy_row(told[i], quotes[i])
        if taken[i] & IGNORED or (p >= 0 and days[i] < day_of[n]):
            continue
        if days[i] > day_of[n]:
            day_of[n] = days[i]
            books[n] = 0.0
            best[n] = np.nan
        if p < 0:
            passed[i] = True
            changed += fill(quotes[i], best[n])
            copy_row(told[i], best[n])
        else:
            book = books[n, p]
            moved = take_side(quotes[i], book, best[n], BID, BID_SIZE, 1.0, taken[i] & NO_BID)
            if moved:
                moved = rank_side(books[n], best[n], BID, BID_SIZE, 1.0)
            if take_side(quotes[i], book, best[n], ASK, ASK_SIZE, -1.0, taken[i] & NO_ASK):
                moved |= rank_side(books[n], best[n], ASK, ASK_SIZE, -1.0)
            if moved:
                passed[i] = True
                copy_row(told[i], best[n])
                changed += 1
        count += passed[i]
    return count, changed


@compiled
def fill(quote, best):
    """Write a consolidated quote over the best; returns whether it left out a side that is known."""
    left_out = False
    for side, size in ((BID, BID_SIZE), (ASK, ASK_SIZE)):
        if quote[side] == quote[side]:
            best[side], best[size] = quote[side], quote[size]
        elif best[side] == best[side]:
            left_out = True
    return left_out


@compiled
def take_side(quote, book, best, side, size, sign, withdrawn):
    """Write one side of a participant's quote into its book; returns whether that can have moved the best."""
    before = book[side]
    if withdrawn or quote[size] == 0.0 or quote[side] == 0.0:
        book[side] = book[size] = 0.0
    elif quote[side] == quote[side]:
        book[side] = quote[side]
        book[size] = quote[size] if quote[size] == quote[size] else 0.0
    return before == best[side] or (book[side] > 0.0 and not sign * book[side] < sign * best[side])


@compiled
def rank_side(books, best, side, size, sign):
    """Find the best price of a side and the largest size at it; returns whether one of them has changed."""
    price, shares = np.nan, np.nan
    for p in range(len(books)):
        offered = books[p, side]
        if offered == 0.0:
            continue
        if not sign * offered <= sign * price:
            price, shares = offered, books[p, size]
        elif offered == price and books[p, size] > shares:
            shares = books[p, size]
    same = (price == best[side] and shares == best[size]) or (price != price and best[side] != best[side])
    best[side], best[size] = price, shares
    return not same
