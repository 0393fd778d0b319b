"""Derive: when a bar is complete, the readings of the indicators that were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.frames.bars import BarStore
from marketdash.indicators.history import BarHistory
from marketdash.indicators.spec import Spec, compute
from marketdash.instruments import Universe
from marketdash.pipeline.health import Health
from marketdash.schema import conform

SETTLING_BARS = 250
"""Bars before the warm-up that recursive indicators (EMA, RSI …) get to settle on. A fixed number, so that
a reading does not depend on how much history happens to be kept."""


@dataclass
class Derivation:
    """One indicator at one width, and how many bars of each instrument it has read."""

    spec: Spec
    width: str
    done: npt.NDArray[np.int64] = field(repr=False)

    @property
    def stage(self) -> str:
        return f"derive {self.spec} {self.width}"


class Derive:
    """Computes each asked-for indicator on the bars that have become complete.

    An indicator that raises costs only itself: it is counted on `health` and tried again at the next bar.
    """

    def __init__(self, universe: Universe, store: BarStore, health: Health) -> None:
        self.universe, self.store, self.health = universe, store, health
        self.derivations: list[Derivation] = []
        self._seq = 0

    @property
    def widths(self) -> set[str]:
        return {item.width for item in self.derivations}

    def add(self, spec: Spec, width: str, now_us: int) -> None:
        """Start deriving with the bars that complete after `now_us`; asking twice changes nothing."""
        self.store.ring(width)
        if not any(str(item.spec) == str(spec) and item.width == width for item in self.derivations):
            self.derivations.append(Derivation(spec, width, self.store.complete(width, now_us).copy()))

    def reset(self) -> None:
        self._seq = 0
        for item in self.derivations:
            item.done[:] = 0

    def advance(self, us: int) -> list[pa.RecordBatch]:
        """The readings of all bars that are complete at the moment `us` and were not before."""
        batches = []
        for item in self.derivations:
            complete = self.store.complete(item.width, us)
            fresh = np.flatnonzero(complete > item.done)
            item.done = complete
            if not len(fresh):
                continue
            stage = self.health.stage(item.stage)
            try:
                batch = self._readings(item, fresh, complete[fresh])
            except Exception as error:
                stage.failed(error)
                continue
            stage.worked(len(fresh), 0.0)
            if batch.num_rows:
                batches.append(batch)
        return batches

    def _readings(
        self, item: Derivation, ids: npt.NDArray[np.int64], complete: npt.NDArray[np.int64]
    ) -> pa.RecordBatch:
        bars = self.store.gather(item.width, ids, complete - 1)
        whole = item.spec.indicator.scope == "market"
        members = np.arange(len(self.universe)) if whole else ids
        lookback = item.spec.indicator.warmup(item.spec.params) + SETTLING_BARS
        starts, fields = self.store.table(item.width, members, lookback + 1)
        # Bars that are still open, or that belong to a later bucket, are not known yet.
        rows = int(np.searchsorted(starts, bars["time"].max(), side="right"))
        fields = {name: values[:rows] for name, values in fields.items()}
        history = BarHistory.from_arrays(
            starts[:rows], [self.universe.symbols[i] for i in members], item.width, **_with_vwap(fields)
        )
        values = compute(item.spec, history)
        row = np.searchsorted(starts[:rows], bars["time"])
        column = ids if whole else np.arange(len(ids))
        parts = []
        for output, table in values.items():
            reading = table[row, column]
            good = ~np.isnan(reading)
            parts.append((output, np.flatnonzero(good), reading[good]))
        which = np.concatenate([index for _, index, _ in parts]) if parts else np.array([], np.int64)
        names = np.repeat([output for output, _, _ in parts], [len(index) for _, index, _ in parts])
        seq = np.arange(self._seq, self._seq + len(which))
        self._seq += len(which)
        return conform(
            "readings",
            {
                "time": pa.array(bars["time"][which], pa.timestamp("us", "UTC")),
                "known_at": pa.array(bars["end"][which], pa.timestamp("us", "UTC")),
                "seq": seq,
                "source": pa.array(["derive"] * len(which), pa.utf8()),
                "instrument_id": ids[which].astype(np.int32),
                "width": pa.array([item.width] * len(which), pa.utf8()),
                "indicator": pa.array([str(item.spec)] * len(which), pa.utf8()),
                "output": pa.array(names.tolist(), pa.utf8()),
                "value": np.concatenate([value for _, _, value in parts]) if parts else np.array([]),
            },
            item.stage,
        )


def _with_vwap(fields: dict[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float64]]:
    turnover = fields.pop("turnover")
    with np.errstate(invalid="ignore", divide="ignore"):
        fields["vwap"] = np.where(fields["volume"] > 0, turnover / fields["volume"], np.nan)
    return fields
