"""Every error that marketdash raises on purpose.

    MarketdashError
    ├── UnknownNameError      a symbol, source, session, width, indicator … that nobody registered
    ├── SettingsError         a setting that cannot be used
    ├── SchemaError           rows that do not fit their topic
    ├── LogError              a session log that cannot be trusted
    ├── SourceError           a provider that failed, or answered nonsense
    ├── IndicatorError        an indicator that cannot be computed as asked
    ├── ClockError            a clock asked for what it cannot do
    ├── EntitlementError      data that may not be shown to this principal, here
    └── CapacityError         a limit of this process that is reached, with the limit

Each one says where, what was expected, what came, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MarketdashError(Exception):
    """An error a person can act on: `where`, `expected`, `got` and a `hint`."""

    def __init__(self, where: str, expected: str = "", got: object = "", hint: str = "") -> None:
        self.where, self.expected, self.got, self.hint = where, expected, got, hint
        super().__init__(where, expected, got, hint)

    def __str__(self) -> str:
        sentence, got = self.where, str(self.got)
        if self.expected:
            sentence += f": expected {self.expected}"
            if got:
                sentence += f", got {got}"
        elif got:
            sentence += f": {got}"
        sentence = sentence.rstrip(".") + "."
        return f"{sentence} {self.hint}" if self.hint else sentence


class UnknownNameError(MarketdashError, LookupError):
    """A name that is not known, with the nearest names that are."""

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        self.known = sorted(known)
        self.nearest = _nearest(str(name), self.known)
        if not hint:
            if self.nearest:
                hint = f"Did you mean {', '.join(self.nearest)}?"
            elif self.known:
                some = ", ".join(self.known[:8])
                hint = f"Known: {some}{' …' if len(self.known) > 8 else ''}."
            else:
                hint = f"No {kind} is known here."
        super().__init__(f"Unknown {kind} {name!r}", hint=hint)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, object, list[str], str]]:
        # An exception is pickled with the arguments of its base class, which are others.
        return type(self), (self.kind, self.name, self.known, self.hint)


class SettingsError(MarketdashError, ValueError):
    """A setting that cannot be used."""


class SchemaError(MarketdashError, ValueError):
    """Rows that do not fit the schema of their topic."""


class LogError(MarketdashError):
    """A session log that is damaged, unordered, of another version, or not what its manifest says."""


class SourceError(MarketdashError):
    """A source that failed or sent what cannot be read."""


class IndicatorError(MarketdashError, ValueError):
    """An indicator that cannot be computed with these parameters on these bars."""


class ClockError(MarketdashError, ValueError):
    """A clock that was asked for what it cannot do."""


class EntitlementError(MarketdashError, PermissionError):
    """Data whose provider does not allow it to be shown to this principal, here."""


class CapacityError(MarketdashError):
    """A stated limit of this process that is reached."""


def _nearest(name: str, known: list[str]) -> list[str]:
    # Compared without case, since a person types aapl and sma; a prefix is nearer than an edit distance.
    by_fold = {item.casefold(): item for item in known}
    wanted = name.casefold()
    prefixed = [item for fold, item in by_fold.items() if wanted and fold.startswith(wanted)][:3]
    close = [by_fold[fold] for fold in get_close_matches(wanted, by_fold, n=3, cutoff=0.5)]
    return list(dict.fromkeys(prefixed + close))[:3]
