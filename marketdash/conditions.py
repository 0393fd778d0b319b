"""Conditions: what a trade's sale conditions let it change, and which quotes are no offer to trade.

Trades follow the consolidated update rules that the processors of the US tapes publish: for tapes A and B the
Consolidated Tape Association (https://www.ctaplan.com, CTS output specification, "Consolidated Processing
Guidelines"), for tape C the UTP plan (https://www.utpplan.com, UTDF specification, "Sale Condition Matrix").

Some of those rules depend on the past: a late or derivatively priced trade updates the last price if it is the day's
first. Here such a trade never sets a last price; it moves highs and lows. An opening trade of tapes A and B opens a bar
and moves highs and lows; it does not move a last price that is there.

The rules protect the prices of the regular session; a trade outside of it has the condition that says so. In its
own pre or post session such a trade is all the market there is, and sets every price of that session; only odd
lots, and what is no trade at all, do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.errors import SchemaError, UnknownNameError

VOLUME, LAST, OPEN, HIGH_LOW = 1, 2, 4, 8
ALL = VOLUME | LAST | OPEN | HIGH_LOW
"""What a trade may change. One without conditions changes all; one with several, what all of them allow."""

TAPES = ("none", "A", "B", "C")
"""Codes of the tapes, in order: 0 for instruments of markets whose rules are not known here."""

Masks = npt.NDArray[np.uint32]
Effects = npt.NDArray[np.uint8]


class Condition(NamedTuple):
    """A condition of trades; its bit is its place in `CONDITIONS`.

    `cta` and `utp` are its letters on tapes A and B and on tape C, each letter a condition of its own;
    `on_cta` and `on_utp` what it allows in the regular session, `outside` in the others.
    """

    name: str
    cta: str
    utp: str
    on_cta: int
    on_utp: int
    outside: int = ALL


_NO_PRICE, _NOT_LAST = VOLUME, VOLUME | HIGH_LOW

CONDITIONS = (
    Condition("odd lot", "I", "I", _NO_PRICE, _NO_PRICE, _NO_PRICE),
    Condition("intermarket sweep", "F", "F", ALL, ALL),
    # No letter of a tape: a provider's word for a trade that went past a better quote elsewhere (Rule 611).
    Condition("trade-through", "", "", _NO_PRICE, _NO_PRICE),
    Condition("trade-through exempt", "", "", ALL, ALL),
    Condition("opening trade", "O", "O", VOLUME | OPEN | HIGH_LOW, ALL),
    Condition("reopening trade", "5", "5", ALL, ALL),
    Condition("closing trade", "6", "6", ALL, ALL),
    Condition("official open", "Q", "Q", 0, 0, 0),
    Condition("official close", "M", "M", 0, 0, 0),
    Condition("corrected close", "9", "9", LAST | HIGH_LOW, LAST | HIGH_LOW, 0),
    Condition("extended hours", "T", "T", _NO_PRICE, _NO_PRICE),
    Condition("out of sequence", "Z", "Z", _NOT_LAST, _NOT_LAST),
    Condition("sold last", "L", "L", _NOT_LAST, _NOT_LAST | LAST),
    Condition("bunched or split", "", "BS", ALL, ALL),
    Condition("bunched sold", "", "G", _NOT_LAST, _NOT_LAST),
    Condition("average price", "B", "W", _NO_PRICE, _NO_PRICE),
    Condition("cash", "C", "C", _NO_PRICE, _NO_PRICE),
    Condition("next day", "N", "N", _NO_PRICE, _NO_PRICE),
    Condition("seller", "R", "R", _NO_PRICE, _NO_PRICE),
    Condition("derivatively priced", "4", "4", _NOT_LAST, _NOT_LAST),
    Condition("prior reference price", "P", "P", _NOT_LAST, _NOT_LAST),
    Condition("contingent", "V", "V", _NO_PRICE, _NO_PRICE),
    Condition("qualified contingent", "7", "7", _NO_PRICE, _NO_PRICE),
    Condition("price variation", "H", "H", _NO_PRICE, _NO_PRICE),
    Condition("cross", "X", "X", ALL, ALL),
    Condition("automatic execution", "E", "", ALL, ALL),
    Condition("rule 127 or 155", "K", "K", ALL, ALL),
    Condition("acquisition or distribution", "", "AD", ALL, ALL),
    Condition("yellow flag", "", "Y", ALL, ALL),
    Condition(
        "election", "", "", ALL, ALL
    ),  # its letter on tapes A and B means an odd lot since December 2013
    Condition("stopped stock", "", "1", ALL, ALL),
    # The provider's own flag, on whatever tape: it expects the trade to be taken back.
    Condition("suspicious", "", "", 0, 0, 0),
)

_SEVERAL = {"U": ("extended hours", "out of sequence")}
_SEVERAL_UTP = {"2": ("stopped stock", "sold last"), "3": ("stopped stock", "out of sequence")}

_ALGOSEEK = (  # by bit of AlgoSeek's flags, the least first
    "", "cash", "next day", "seller", "yellow flag", "trade-through", "opening trade", "closing trade",
    "reopening trade", "derivatively priced", "extended hours", "sold last", "stopped stock", "extended hours",
    "out of sequence", "bunched or split", "acquisition or distribution", "bunched or split", "contingent",
    "acquisition or distribution", "average price", "cross", "price variation", "rule 127 or 155", "official close",
    "prior reference price", "official open", "election", "automatic execution", "trade-through exempt", "", "odd lot",
)  # fmt: skip

_PLACES = {condition.name: place for place, condition in enumerate(CONDITIONS)}


def bit(name: str) -> int:
    """The mask of one condition, or an error with the nearest names.

    >>> bit("odd lot")
    1
    """
    try:
        return 1 << _PLACES[name]
    except (KeyError, TypeError):
        raise UnknownNameError("condition", name, _PLACES) from None


@cache
def rules() -> npt.NDArray[np.uint8]:
    """What each condition allows, by tape, by session (0 outside of the regular one, 1 in it) and by bit.

    What a trade changes is ALL, narrowed by the row of each of its bits; read-only.
    """
    table = np.full((len(TAPES), 2, len(CONDITIONS)), ALL, np.uint8)
    for place, condition in enumerate(CONDITIONS):
        table[1:, 0, place] = condition.outside
        table[1:3, 1, place] = condition.on_cta
        table[3, 1, place] = condition.on_utp
    table[0, :, _PLACES["suspicious"]] = 0
    table.flags.writeable = False
    return table


def effects(conditions: npt.ArrayLike, tape: str, regular: npt.ArrayLike = True) -> Effects:
    """What trades with these masks change, in or outside of the regular session.

    >>> effects([0, bit("odd lot")], "C").tolist()
    [15, 1]
    """
    masks, allowed = np.asarray(conditions, np.uint32), rules()[_tape(tape)]
    changed = np.full(np.broadcast(masks, regular).shape, ALL, np.uint8)
    for place in range(len(CONDITIONS)):
        narrowed = np.where(regular, allowed[1, place], allowed[0, place])
        changed &= np.where(masks >> np.uint32(place) & 1, narrowed, ALL).astype(np.uint8)
    return changed


@cache
def encode(codes: str, tape: str) -> int:
    """The mask of a trade's letters on a tape; `@` and blanks are a regular sale.

    >>> decode(encode("@TI", "C"))
    ('odd lot', 'extended hours')
    """
    known, mask = _letters(tape), 0
    for letter in codes:
        if letter not in "@ ":
            try:
                mask |= known[letter]
            except KeyError:
                raise UnknownNameError(f"sale condition of tape {tape}", letter, known) from None
    return mask


def decode(mask: int) -> tuple[str, ...]:
    """The names of the conditions in a mask, by bit."""
    return tuple(condition.name for place, condition in enumerate(CONDITIONS) if mask >> place & 1)


def from_algoseek(
    flags: npt.ArrayLike, suspicious: npt.ArrayLike = False, *, sweeps_set_prices: bool = False
) -> Masks:
    """The masks of trades as AlgoSeek flags them (and LEAN stores them, in hexadecimal).

    Its format describes a sweep as a trade-through, and the bars it publishes take no price from one: so the flag is
    read as "trade-through". With `sweeps_set_prices` it is the tapes' intermarket sweep, which sets all prices.
    https://github.com/QuantConnect/Lean/blob/master/Data/equity/readme.md
    """
    given = np.asarray(flags)
    if given.dtype.kind not in "ui":
        hint = "Read hexadecimal text with int(text, 16)."
        raise SchemaError("The flags of trades", "integers", str(given.dtype), hint)
    given = given.astype(np.uint32)
    masks = np.where(suspicious, np.uint32(bit("suspicious")), np.uint32(0))
    for place, name in enumerate(_ALGOSEEK):
        if name:
            meant = "intermarket sweep" if name == "trade-through" and sweeps_set_prices else name
            masks = masks | np.where(given >> np.uint32(place) & 1, np.uint32(bit(meant)), np.uint32(0))
    return masks


_LISTED: Mapping[str, str] = {
    "XNYS": "A",
    **dict.fromkeys(("XNAS", "XNGS", "XNMS", "XNCM"), "C"),
    **dict.fromkeys(
        (
            "ARCX",
            "XASE",
            "BATS",
            "BATY",
            "EDGA",
            "EDGX",
            "IEXG",
            "XBOS",
            "XCHI",
            "XCIS",
            "XPHL",
            "XPSX",
            "MEMX",
            "LTSE",
        ),
        "B",
    ),
}


def tape_of(mic: str) -> str:
    """The tape that reports what is listed on a market: A for NYSE, C for Nasdaq, B for the other US exchanges.

    >>> tape_of("ARCX"), tape_of("XLON")
    ('B', 'none')
    """
    return _LISTED.get(mic, "none")


def tapes(mics: Iterable[str]) -> npt.NDArray[np.int64]:
    """The code of the tape of each market: the first index into `rules()`."""
    return np.array([TAPES.index(tape_of(mic)) for mic in mics], np.int64)


NO_BID, NO_ASK, IGNORED = 1, 2, 4
"""What the conditions of a participant's quote may say: it buys nothing, sells nothing, or is no quote of its."""

QUOTE_CONDITIONS: tuple[tuple[str, int], ...] = (
    ("opening", 0),
    ("closing", NO_BID | NO_ASK),
    ("non-firm", NO_BID | NO_ASK),
    ("halted", NO_BID | NO_ASK),
    ("resumed", 0),
    # A manual quote may be passed over (Rule 611) but is firm, and so can be the best.
    ("slow", 0),
    ("indication", IGNORED),
    ("suspicious", IGNORED),
)
"""Names of the conditions of quotes, by bit, and what each one takes away."""

_QUOTE_PLACES = {name: place for place, (name, _) in enumerate(QUOTE_CONDITIONS)}

_ALGOSEEK_QUOTES = (  # by bit of AlgoSeek's flags, the least first
    "", "slow", "non-firm", "closing", "halted", "halted", "indication", "halted", "closing", "halted", "non-firm",
    "opening", "halted", "resumed", "halted", "halted", "halted", "halted", "indication", "indication", "slow",
    "non-firm", "halted",
)  # fmt: skip


def quote_bit(name: str) -> int:
    """The mask of one condition of quotes, or an error with the nearest names."""
    try:
        return 1 << _QUOTE_PLACES[name]
    except (KeyError, TypeError):
        raise UnknownNameError("condition of quotes", name, _QUOTE_PLACES) from None


@cache
def quote_rules() -> npt.NDArray[np.uint8]:
    """What each condition takes away from a participant's quote, by bit; that of a quote is all of them together."""
    table = np.zeros(32, np.uint8)
    table[: len(QUOTE_CONDITIONS)] = [taken for _, taken in QUOTE_CONDITIONS]
    table.flags.writeable = False
    return table


def quotes_from_algoseek(flags: npt.ArrayLike, suspicious: npt.ArrayLike = False) -> Masks:
    """The masks of quotes as AlgoSeek flags them."""
    given = np.asarray(flags).astype(np.uint32)
    masks = np.where(suspicious, np.uint32(quote_bit("suspicious")), np.uint32(0))
    for place, name in enumerate(_ALGOSEEK_QUOTES):
        if name:
            masks = masks | np.where(given >> np.uint32(place) & 1, np.uint32(quote_bit(name)), np.uint32(0))
    return masks


def _tape(name: Any) -> int:
    try:
        return TAPES.index(name)
    except ValueError:
        raise UnknownNameError("tape", name, TAPES, f"Tapes: {' '.join(TAPES)}.") from None


@cache
def _letters(tape: str) -> Mapping[str, int]:
    utp = _tape(tape) == TAPES.index("C")
    if tape == "none":
        return {}
    found = {letter: bit(item.name) for item in CONDITIONS for letter in (item.utp if utp else item.cta)}
    for letter, names in (_SEVERAL | (_SEVERAL_UTP if utp else {})).items():
        found[letter] = sum(bit(name) for name in names)
    return found
