"""What a Yahoo quote record says about its instrument: market, calendar, currency, kind, sector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketdash.instruments import UNCLASSIFIED, Instrument
from marketdash.providers.yahoo_universe import COMPANIES

Record = Mapping[str, Any]
"""One instrument's part of a quote answer, as Yahoo sent it."""

FALLBACK_CALENDAR = "24/7"
"""For a market whose hours nobody here knows: its prices are then never judged closed."""

# NSE keeps BSE's hours and holidays and has no calendar of its own. Athens, Bucharest and Tel Aviv are
# absent: exchange-calendars 4.13 cannot build theirs.
_CODES_BY_CALENDAR = {
    "XNYS": "NMS NGM NCM NAS NYQ NYS ASE PCX BTS PNK OEM OQB OQX OPR SNP DJI NIM WCB",
    "CMES": "CME CBT CMX NYM",
    "IEPA": "NYB",
    "XTSE": "TOR VAN CNQ NEO",
    "XMEX": "MEX",
    "BVMF": "SAO",
    "XBUE": "BUE",
    "XSGO": "SGO",
    "XLON": "LSE IOB AQS CXE FGI",
    "XDUB": "ISE",
    "XETR": "GER",
    "XFRA": "FRA BER HAN MUN",
    "XDUS": "DUS",
    "XHAM": "HAM",
    "XSTU": "STU",
    "XPAR": "PAR ENX",
    "XAMS": "AMS",
    "XBRU": "BRU",
    "XLIS": "LIS",
    "XMIL": "MIL",
    "XMAD": "MCE MAD",
    "XSWX": "EBS",
    "XWBO": "VIE",
    "XSTO": "STO",
    "XOSL": "OSL",
    "XCSE": "CPH",
    "XHEL": "HEL",
    "XICE": "ICE",
    "XTAL": "TAL",
    "XRIS": "RIS",
    "XLIT": "LIT",
    "XWAR": "WSE",
    "XPRA": "PRA",
    "XBUD": "BUD",
    "XIST": "IST",
    "XJSE": "JNB",
    "XSAU": "SAU",
    "XBOM": "NSI BSE",
    "XTKS": "JPX OSA FKA SAP",
    "XHKG": "HKG",
    "XSHG": "SHH SHZ",
    "XKRX": "KSC KOE",
    "XTAI": "TAI TWO",
    "XSES": "SES",
    "XASX": "ASX",
    "XNZE": "NZE",
    "XIDX": "JKT",
    "XKLS": "KLS",
    "XBKK": "SET",
    "XPHS": "PHS",
    "24/7": "CCC",
    "24/5": "CCY",
}

_CALENDARS = {code: calendar for calendar, codes in _CODES_BY_CALENDAR.items() for code in codes.split()}

# Where the market is not the one that lends its name to the calendar; empty where there is no single market.
_MICS = {
    **dict.fromkeys(("NMS", "NGM", "NCM", "NAS"), "XNAS"),
    **dict.fromkeys(("SNP", "DJI", "NIM", "WCB", "FGI", "CCC", "CCY"), ""),
    **dict.fromkeys(("PNK", "OEM", "OQB", "OQX"), "OTCM"),
    "ASE": "XASE",
    "PCX": "ARCX",
    "BTS": "BATS",
    "OPR": "OPRA",
    "CME": "XCME",
    "CBT": "XCBT",
    "CMX": "XCEC",
    "NYM": "XNYM",
    "NYB": "IFUS",
    "VAN": "XTSX",
    "CNQ": "XCNQ",
    "NEO": "NEOE",
    "MIL": "MTAA",
    "MCE": "BMEX",
    "BER": "XBER",
    "HAN": "XHAN",
    "MUN": "XMUN",
    "NSI": "XNSE",
    "SHZ": "XSHE",
    "KOE": "XKOS",
    "TWO": "ROCO",
}

# Used when the exchange code is not listed above: better the neighbour's hours than none.
_CALENDARS_BY_ZONE = {
    "America/New_York": "XNYS",
    "America/Chicago": "CMES",
    "America/Toronto": "XTSE",
    "Europe/London": "XLON",
    "Europe/Berlin": "XETR",
    "Europe/Paris": "XPAR",
    "Europe/Zurich": "XSWX",
    "Asia/Kolkata": "XBOM",
    "Asia/Calcutta": "XBOM",
    "Asia/Tokyo": "XTKS",
    "Asia/Hong_Kong": "XHKG",
    "Asia/Shanghai": "XSHG",
    "Australia/Sydney": "XASX",
}

_ASSET_CLASSES = {
    "EQUITY": "equity",
    "ETF": "etf",
    "INDEX": "index",
    "MUTUALFUND": "fund",
    "MONEYMARKET": "fund",
    "CURRENCY": "fx",
    "CRYPTOCURRENCY": "crypto",
    "FUTURE": "future",
    "OPTION": "option",
    "WARRANT": "warrant",
    "BOND": "bond",
}

# Prices in hundredths of the currency.
_SUBUNITS = {"GBp": "GBP", "ZAc": "ZAR", "ILA": "ILS"}

_GICS = {
    "Basic Materials": "Materials",
    "Consumer Cyclical": "Consumer Discretionary",
    "Consumer Defensive": "Consumer Staples",
    "Financial Services": "Financials",
    "Healthcare": "Health Care",
    "Technology": "Information Technology",
}


def instrument_of(record: Record, id: int = 0) -> Instrument:
    """The instrument that a quote record describes.

    >>> instrument_of({"symbol": "VOD.L", "exchange": "LSE", "currency": "GBp", "priceHint": 2}).currency
    'GBP'
    """
    symbol, exchange = str(record["symbol"]), str(record.get("exchange") or "")
    listed = COMPANIES.get(symbol)
    unit = str(record.get("currency") or "USD")
    calendar = calendar_of(record)
    return Instrument(
        id,
        symbol,
        name=listed.name if listed else str(record.get("longName") or record.get("shortName") or symbol),
        asset_class=_ASSET_CLASSES.get(str(record.get("quoteType")).upper(), "equity"),
        mic=_MICS.get(exchange, calendar if exchange in _CALENDARS else ""),
        calendar=calendar,
        currency=_SUBUNITS.get(unit, unit),
        price_unit=unit if unit in _SUBUNITS else "",
        tick_size=10.0 ** -_decimals(record),
        sector=listed.sector if listed else _sector(record),
        industry=str(record.get("industry") or ""),
    )


def calendar_of(record: Record) -> str:
    """The calendar of the record's exchange; failing that, of its time zone; failing that, 24/7."""
    by_code = _CALENDARS.get(str(record.get("exchange") or ""))
    by_zone = _CALENDARS_BY_ZONE.get(str(record.get("exchangeTimezoneName") or ""))
    return by_code or by_zone or FALLBACK_CALENDAR


def has_known_hours(record: Record) -> bool:
    """Whether the exchange's code or at least its time zone tells when it trades."""
    return str(record.get("exchange") or "") in _CALENDARS or calendar_of(record) != FALLBACK_CALENDAR


def _decimals(record: Record) -> int:
    hint = record.get("priceHint")
    return min(max(hint, 0), 8) if isinstance(hint, int) else 2


def _sector(record: Record) -> str:
    sector = str(record.get("sector") or UNCLASSIFIED)
    return _GICS.get(sector, sector)
