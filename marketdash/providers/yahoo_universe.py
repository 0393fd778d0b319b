"""The companies that are shown when nobody names symbols: large US names, seven for each GICS sector."""

from __future__ import annotations

from typing import NamedTuple


class Company(NamedTuple):
    """A listing as Yahoo spells it."""

    symbol: str
    name: str
    sector: str


_SECTORS = {
    "Communication Services": {
        "GOOGL": "Alphabet",
        "META": "Meta Platforms",
        "NFLX": "Netflix",
        "DIS": "Walt Disney",
        "TMUS": "T-Mobile US",
        "VZ": "Verizon",
        "CMCSA": "Comcast",
    },
    "Consumer Discretionary": {
        "AMZN": "Amazon",
        "TSLA": "Tesla",
        "HD": "Home Depot",
        "MCD": "McDonald's",
        "LOW": "Lowe's",
        "NKE": "Nike",
        "SBUX": "Starbucks",
    },
    "Consumer Staples": {
        "WMT": "Walmart",
        "COST": "Costco",
        "PG": "Procter & Gamble",
        "KO": "Coca-Cola",
        "PEP": "PepsiCo",
        "PM": "Philip Morris International",
        "CL": "Colgate-Palmolive",
    },
    "Energy": {
        "XOM": "ExxonMobil",
        "CVX": "Chevron",
        "COP": "ConocoPhillips",
        "EOG": "EOG Resources",
        "SLB": "SLB",
        "MPC": "Marathon Petroleum",
        "WMB": "Williams Companies",
    },
    "Financials": {
        "BRK-B": "Berkshire Hathaway",
        "JPM": "JPMorgan Chase",
        "V": "Visa",
        "MA": "Mastercard",
        "BAC": "Bank of America",
        "GS": "Goldman Sachs",
        "WFC": "Wells Fargo",
    },
    "Health Care": {
        "LLY": "Eli Lilly",
        "UNH": "UnitedHealth Group",
        "JNJ": "Johnson & Johnson",
        "ABBV": "AbbVie",
        "MRK": "Merck",
        "PFE": "Pfizer",
        "TMO": "Thermo Fisher Scientific",
    },
    "Industrials": {
        "GE": "GE Aerospace",
        "CAT": "Caterpillar",
        "RTX": "RTX",
        "HON": "Honeywell",
        "UNP": "Union Pacific",
        "BA": "Boeing",
        "UPS": "United Parcel Service",
    },
    "Information Technology": {
        "AAPL": "Apple",
        "MSFT": "Microsoft",
        "NVDA": "Nvidia",
        "AVGO": "Broadcom",
        "ORCL": "Oracle",
        "CRM": "Salesforce",
        "AMD": "AMD",
    },
    "Materials": {
        "LIN": "Linde",
        "SHW": "Sherwin-Williams",
        "FCX": "Freeport-McMoRan",
        "ECL": "Ecolab",
        "NEM": "Newmont",
        "APD": "Air Products",
        "NUE": "Nucor",
    },
    "Real Estate": {
        "PLD": "Prologis",
        "AMT": "American Tower",
        "EQIX": "Equinix",
        "WELL": "Welltower",
        "SPG": "Simon Property Group",
        "O": "Realty Income",
        "PSA": "Public Storage",
    },
    "Utilities": {
        "NEE": "NextEra Energy",
        "SO": "Southern Company",
        "DUK": "Duke Energy",
        "CEG": "Constellation Energy",
        "AEP": "American Electric Power",
        "SRE": "Sempra",
        "D": "Dominion Energy",
    },
}

COMPANIES = {
    symbol: Company(symbol, name, sector)
    for sector, companies in _SECTORS.items()
    for symbol, name in companies.items()
}
"""Symbol → company, sector by sector."""
