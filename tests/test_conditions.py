"""Sale conditions: one table for all tapes, from the rules that the tapes publish."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdash.conditions import (
    ALL,
    CONDITIONS,
    HIGH_LOW,
    IGNORED,
    LAST,
    NO_ASK,
    NO_BID,
    OPEN,
    TAPES,
    VOLUME,
    bit,
    decode,
    effects,
    encode,
    from_algoseek,
    quote_bit,
    quote_rules,
    quotes_from_algoseek,
    rules,
    tape_of,
    tapes,
)
from marketdash.errors import SchemaError, UnknownNameError

US = ("A", "B", "C")
NO_TRADES = ("official open", "official close", "corrected close")
MASKS = st.integers(0, 2**32 - 1)


def changed(codes: str, tape: str, regular: bool = True) -> int:
    return int(effects(encode(codes, tape), tape, regular))


def test_each_condition_has_a_bit_and_a_name_of_its_own():
    names = [condition.name for condition in CONDITIONS]
    assert len(names) == len(set(names)) == 32
    assert [bit(name) for name in names] == [1 << place for place in range(32)]


def test_a_letter_of_a_tape_means_one_thing():
    for letters in ("cta", "utp"):
        used = "".join(getattr(condition, letters) for condition in CONDITIONS)
        assert len(used) == len(set(used))
        assert "@" not in used


def test_the_table_has_a_row_for_each_tape_session_and_bit():
    table = rules()
    assert table.shape == (len(TAPES), 2, 32)
    assert table.dtype == np.uint8
    assert table.max() <= ALL == VOLUME | LAST | OPEN | HIGH_LOW
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0, 0] = 0


def test_whatever_may_not_move_the_extremes_may_not_open_a_bar_either():
    table = rules()
    assert not (table & OPEN)[table & HIGH_LOW == 0].any()
    assert not (table & LAST)[table & HIGH_LOW == 0].any()


@pytest.mark.parametrize("tape", US)
def test_a_trade_without_conditions_changes_everything(tape: str):
    assert changed("", tape) == changed("@ ", tape) == ALL
    assert changed("", tape, regular=False) == ALL


@pytest.mark.parametrize("tape", US)
def test_the_published_rules_hold_in_the_regular_session(tape: str):
    average, late = ("W", ALL & ~OPEN) if tape == "C" else ("B", VOLUME | HIGH_LOW)
    for letter in f"IT{average}CNRV7H":
        assert changed(letter, tape) == VOLUME, letter
    for letter in "ZP4":
        assert changed(letter, tape) == VOLUME | HIGH_LOW, letter
    for letter in "FX56K":
        assert changed(letter, tape) == ALL, letter
    for letter in "QM":
        assert changed(letter, tape) == 0, letter
    assert changed("9", tape) == LAST | HIGH_LOW, "the volume was counted before"
    assert changed("L", tape) == late


def test_an_opening_trade_moves_the_last_price_on_tape_c_only():
    assert changed("O", "C") == ALL
    assert changed("O", "A") == changed("O", "B") == ALL & ~LAST


@pytest.mark.parametrize("tape", US)
def test_outside_of_the_regular_session_its_own_trades_set_its_prices(tape: str):
    assert changed("T", tape, regular=False) == changed("FT", tape, regular=False) == ALL
    assert changed("U", tape, regular=False) == changed("TZ", tape, regular=False) == ALL
    assert changed("TI", tape, regular=False) == VOLUME, "an odd lot is one at any hour"
    for letter in "QM9":
        assert changed(letter, tape, regular=False) == 0, letter


@pytest.mark.parametrize("tape", TAPES)
@pytest.mark.parametrize("regular", [True, False])
def test_what_the_provider_suspects_changes_nothing(tape: str, regular: bool):
    assert effects(bit("suspicious"), tape, regular) == 0
    assert effects(bit("suspicious") | bit("cross"), tape, regular) == 0


@given(MASKS)
def test_no_rules_are_known_for_other_markets(mask: int):
    expected = 0 if mask & bit("suspicious") else ALL
    assert effects([mask], "none").tolist() == effects([mask], "none", False).tolist() == [expected]


@given(MASKS, MASKS, st.sampled_from(TAPES), st.booleans())
def test_a_trade_with_more_conditions_changes_what_all_of_them_allow(
    one: int, other: int, tape: str, regular: bool
):
    alone = effects([one, other], tape, regular)
    assert effects(one | other, tape, regular) == alone[0] & alone[1]


@given(st.lists(MASKS, max_size=20), st.sampled_from(TAPES), st.data())
def test_effects_are_those_of_the_table(masks: list[int], tape: str, data: st.DataObject):
    regular = data.draw(st.lists(st.booleans(), min_size=len(masks), max_size=len(masks)))
    wanted = []
    for mask, inside in zip(masks, regular, strict=True):
        row = rules()[TAPES.index(tape), int(inside)]
        wanted.append(np.bitwise_and.reduce([ALL, *(row[place] for place in range(32) if mask >> place & 1)]))
    assert effects(masks, tape, regular).tolist() == wanted


@given(MASKS)
def test_a_mask_is_the_sum_of_the_conditions_it_names(mask: int):
    assert sum(bit(name) for name in decode(mask)) == mask


@pytest.mark.parametrize(
    ("codes", "tape", "names"),
    [
        ("@F I", "A", ["odd lot", "intermarket sweep"]),
        ("U", "B", ["extended hours", "out of sequence"]),
        ("2", "C", ["sold last", "stopped stock"]),
        ("3", "C", ["out of sequence", "stopped stock"]),
        ("B", "A", ["average price"]),
        ("B", "C", ["bunched or split"]),
        ("W", "C", ["average price"]),
    ],
)
def test_letters_are_read_as_their_tape_means_them(codes: str, tape: str, names: list[str]):
    assert list(decode(encode(codes, tape))) == names


def test_a_letter_that_a_tape_does_not_have_is_refused_with_those_it_has():
    for codes, tape in (("W", "A"), ("2", "B"), ("E", "C"), ("@", "D"), ("F", "none")):
        with pytest.raises(UnknownNameError):
            encode(codes, tape)
    with pytest.raises(UnknownNameError, match="odd lot"):
        bit("odd lots")
    with pytest.raises(UnknownNameError, match="Tapes: none A B C"):
        effects([0], "D")


def test_the_tape_follows_from_where_an_instrument_is_listed():
    assert [tape_of(mic) for mic in ("XNYS", "XNAS", "ARCX", "BATS", "XASE")] == ["A", "C", "B", "B", "B"]
    assert [tape_of(mic) for mic in ("XLON", "XCME", "OTCM", "")] == ["none"] * 4
    assert tapes(["XNYS", "XLON", "XNAS"]).tolist() == [1, 0, 3]


def test_every_flag_of_algoseek_has_the_meaning_that_its_format_gives():
    meant = {
        0x1: (), 0x2: ("cash",), 0x4: ("next day",), 0x8: ("seller",), 0x10: ("yellow flag",),
        0x20: ("trade-through",), 0x40: ("opening trade",), 0x80: ("closing trade",), 0x100: ("reopening trade",),
        0x200: ("derivatively priced",), 0x400: ("extended hours",), 0x800: ("sold last",), 0x1000: ("stopped stock",),
        0x2000: ("extended hours",), 0x4000: ("out of sequence",), 0x8000: ("bunched or split",),
        0x10000: ("acquisition or distribution",), 0x20000: ("bunched or split",), 0x40000: ("contingent",),
        0x80000: ("acquisition or distribution",), 0x100000: ("average price",), 0x200000: ("cross",),
        0x400000: ("price variation",), 0x800000: ("rule 127 or 155",), 0x1000000: ("official close",),
        0x2000000: ("prior reference price",), 0x4000000: ("official open",), 0x8000000: ("election",),
        0x10000000: ("automatic execution",), 0x20000000: ("trade-through exempt",), 0x40000000: (),
        0x80000000: ("odd lot",),
    }  # fmt: skip
    flags = np.array(list(meant), np.uint32)
    assert [decode(mask) for mask in from_algoseek(flags).tolist()] == list(meant.values())
    assert decode(int(from_algoseek(0x20002020))) == (
        "trade-through",
        "trade-through exempt",
        "extended hours",
    )
    suspected = from_algoseek([1, 1], [False, True])
    assert suspected.dtype == np.uint32
    assert [decode(mask) for mask in suspected.tolist()] == [(), ("suspicious",)]


def test_a_sweep_of_algoseek_sets_prices_where_that_is_asked_for():
    assert effects(from_algoseek(0x20000020), "A") == VOLUME
    assert effects(from_algoseek(0x20000020, sweeps_set_prices=True), "A") == ALL


def test_flags_that_are_text_are_refused():
    with pytest.raises(SchemaError, match="int"):
        from_algoseek(["20000020"])


def test_a_quote_that_is_not_firm_is_withdrawn_and_an_indication_is_none():
    table = quote_rules()

    def taken(name: str) -> int:
        return int(table[quote_bit(name).bit_length() - 1])

    assert {taken(name) for name in ("closing", "non-firm", "halted")} == {NO_BID | NO_ASK}
    assert {taken(name) for name in ("opening", "resumed", "slow")} == {0}
    assert {taken(name) for name in ("indication", "suspicious")} == {IGNORED}
    flags = [0x1, 0x4, 0x8, 0x10, 0x40, 0x400, 0x800, 0x2000, 0x40000, 0x100000, 0x400000]
    expected = [0, "non-firm", "closing", "halted", "indication", "non-firm", "opening", "resumed", "indication",
                "slow", "halted"]  # fmt: skip
    masks = [quote_bit(name) if isinstance(name, str) else 0 for name in expected]
    assert quotes_from_algoseek(flags).tolist() == masks
    assert quotes_from_algoseek([1], [True]).tolist() == [quote_bit("suspicious")]


def test_another_vendors_rules_are_the_same(real_data: Path):
    """Polygon publishes the rules of ten conditions; CAP Election's letter came to mean an odd lot in 2013."""
    mocks = real_data / "e_feeds/polygon_massive/rest_mocks"
    documented = json.loads((mocks / "v3__reference__conditions&asset_class=stocks.json").read_text())[
        "results"
    ]
    seen = 0
    for condition in documented:
        rule = condition["update_rules"]["consolidated"]
        wanted = VOLUME * rule["updates_volume"] | HIGH_LOW * rule["updates_high_low"]
        wanted |= (LAST | OPEN) * rule["updates_open_close"]
        for tape in US:
            letter = condition["sip_mapping"].get("UTP" if tape == "C" else "CTA")
            if condition.get("legacy"):
                assert effects(bit("election"), tape) == wanted
            elif letter:
                assert changed(letter, tape) == wanted, condition["name"]
                seen += 1
    assert len(documented) == 10
    assert seen == 18
