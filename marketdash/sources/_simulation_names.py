"""Invented companies: sectors, names and symbols that belong to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np

from marketdash.instruments import Instrument, Universe


class Sector(NamedTuple):
    """A GICS sector, its share of the companies, and what those do: word in the name → industry."""

    name: str
    share: float
    trades: dict[str, str]


SECTORS = (
    Sector(
        "Communication Services",
        0.06,
        {
            "Broadcasting": "Broadcasting",
            "Telecom": "Telecommunication Services",
            "Pictures": "Entertainment",
            "Games": "Interactive Home Entertainment",
            "Media": "Publishing",
        },
    ),
    Sector(
        "Consumer Discretionary",
        0.12,
        {
            "Motors": "Automobile Manufacturers",
            "Apparel": "Apparel",
            "Hotels": "Hotels and Resorts",
            "Stores": "Broadline Retail",
            "Furnishings": "Home Furnishings",
        },
    ),
    Sector(
        "Consumer Staples",
        0.07,
        {
            "Foods": "Packaged Foods",
            "Breweries": "Brewers",
            "Soap": "Household Products",
            "Grocers": "Food Retail",
            "Farms": "Agricultural Products",
        },
    ),
    Sector(
        "Energy",
        0.05,
        {
            "Petroleum": "Oil and Gas Exploration",
            "Drilling": "Oil and Gas Drilling",
            "Pipelines": "Oil and Gas Transportation",
            "Refining": "Oil and Gas Refining",
        },
    ),
    Sector(
        "Financials",
        0.14,
        {
            "Bancorp": "Regional Banks",
            "Assurance": "Life Insurance",
            "Casualty": "Property Insurance",
            "Capital": "Asset Management",
            "Exchange": "Financial Exchanges",
        },
    ),
    Sector(
        "Health Care",
        0.12,
        {
            "Pharma": "Pharmaceuticals",
            "Biologics": "Biotechnology",
            "Surgical": "Health Care Equipment",
            "Clinics": "Health Care Facilities",
            "Diagnostics": "Life Sciences Tools",
        },
    ),
    Sector(
        "Industrials",
        0.15,
        {
            "Aerospace": "Aerospace and Defense",
            "Machinery": "Industrial Machinery",
            "Railways": "Rail Transportation",
            "Freight": "Cargo Ground Transportation",
            "Robotics": "Electrical Equipment",
        },
    ),
    Sector(
        "Information Technology",
        0.14,
        {
            "Software": "Application Software",
            "Semiconductor": "Semiconductors",
            "Systems": "Technology Hardware",
            "Networks": "Communications Equipment",
            "Consulting": "IT Consulting",
        },
    ),
    Sector(
        "Materials",
        0.05,
        {
            "Chemicals": "Diversified Chemicals",
            "Steel": "Steel",
            "Mining": "Diversified Metals and Mining",
            "Packaging": "Paper Packaging",
        },
    ),
    Sector(
        "Real Estate",
        0.05,
        {
            "Properties": "Diversified Real Estate",
            "Warehouses": "Industrial Real Estate",
            "Apartments": "Residential Real Estate",
            "Towers": "Telecom Tower Real Estate",
        },
    ),
    Sector(
        "Utilities",
        0.05,
        {
            "Power": "Electric Utilities",
            "Waterworks": "Water Utilities",
            "Gaslight": "Gas Utilities",
            "Windfarms": "Renewable Electricity",
        },
    ),
)

_STARTS = (
    "Al Bar Bel Cor Dal Der El Fen Gal Gor Hal Hel Ist Jor Kal Kes Lan Lor Mar Mel "
    "Nor Oll Ost Pel Quen Ral Ros Sel Sol Tal Tor Ulm Val Ver Vor Wes Yar Zan Zel Zor"
)
_MIDDLES = "an ar en er il in ol on or em"
_ENDS = (
    "adan andra arth avar bern beth cero dane dara din dova eka elden enta osk eth fax gard gon "
    "ibar icon inex ingo iro isk ivo kora leth lund mara mere mond nova orin ovan rith stam alo vane wyn"
)


def sectors(instruments: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The sector of each instrument, as a row of `SECTORS`; shares are met as nearly as the number allows."""
    ends = np.rint(np.cumsum([sector.share for sector in SECTORS]) * instruments).astype(int)
    return rng.permutation(np.repeat(np.arange(len(SECTORS)), np.diff(ends, prepend=0)))


def universe(
    sector: np.ndarray[tuple[int], np.dtype[np.intp]], rng: np.random.Generator, tick_size: float
) -> Universe:
    """Name a company for each instrument, given its sector."""
    roots, used = _roots(rng), set[str]()
    lengths = rng.integers(3, 5, len(sector)).tolist()
    picks = rng.random((len(sector), 2)).tolist()
    items = []
    # Once per market, 3 ms for 330: a symbol depends on those already given.
    for number, (row, length, (pick, turn)) in enumerate(zip(sector.tolist(), lengths, picks, strict=True)):
        trades = list(SECTORS[row].trades.items())
        word, industry = trades[int(pick * len(trades))]
        root = next(roots)
        symbol = next(symbol for symbol in _symbols(root.upper(), length, turn) if symbol not in used)
        used.add(symbol)
        items.append(
            Instrument(
                number,
                symbol,
                f"{root} {word}",
                mic="XSIM",
                tick_size=tick_size,
                sector=SECTORS[row].name,
                industry=industry,
            )
        )
    return Universe(items)


def _roots(rng: np.random.Generator) -> Iterator[str]:
    # Each root once, the short ones first, so that no name comes twice.
    for parts in ((_STARTS, _ENDS), (_STARTS, _MIDDLES, _ENDS)):
        roots = ["".join(syllables) for syllables in product(*(part.split() for part in parts))]
        yield from (roots[i] for i in rng.permutation(len(roots)).tolist())


def _symbols(root: str, length: int, turn: float) -> Iterator[str]:
    # Letters of the name in their order, as tickers are made; any letters when those are taken.
    spelled = list(combinations(root[1:], length - 1))
    first = int(turn * len(spelled))
    for rest in chain(spelled[first:], spelled[:first], product(ascii_uppercase, repeat=3)):
        yield root[0] + "".join(rest)
