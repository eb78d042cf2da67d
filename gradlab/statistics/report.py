"""What `compare` hands back: one row per part of the parameters, ready for a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval
from gradlab.statistics.parts import ALL

if TYPE_CHECKING:
    import pandas as pd

HEAVY_TAILS = "heavy tails: intervals of variance, SNR and MSE may be too short"
CARRIED_BY_FEW = (
    "heavy tails, very few samples carry the mean: intervals of bias, cosine, variance, SNR and MSE "
    "may be too short"
)
_IN_STATUS = {"column": False}  # of a field that tables show through `status` alone


@dataclass(frozen=True)
class Row:
    """One estimator on one part: everything, a layer or a leaf. Definitions: `compare`."""

    part: str
    count: int  # finite samples
    nonfinite: int  # samples left out because of a NaN or an infinity
    squared_bias: Interval
    relative_bias: Interval  # sign of the debiased squared bias
    relative_bias_target: Interval | None  # the same against Σ w_k g_k
    variance: Interval  # of one sample
    cosine: Interval
    cosine_raw: float  # before capping at 1
    cosine_batch: Interval
    relative_norm: Interval
    left_after_scaling: Interval
    snr: Interval  # of one sample
    mse: Interval  # of a batch
    samples_to_cosine: Interval
    relative_bias_oracle_share: float  # of the interval's variance that is the truth's error
    cosine_oracle_share: float
    relative_norm_oracle_share: float
    spread_samples: float  # that the error of the variance rests on
    heavy_tails: bool  # so few that no interval of variance, SNR, MSE or batches can be trusted
    truth_norm: float
    carried_by_few: bool = field(default=False, metadata=_IN_STATUS)  # nor of bias and cosine

    @property
    def status(self) -> str:
        """ "ok", or how many samples are left out (the numbers describe
        the others), or heavy tails.
        """
        tails = CARRIED_BY_FEW if self.carried_by_few else HEAVY_TAILS if self.heavy_tails else ""
        return _status(self.count, self.nonfinite, tails)

    def flat(self) -> dict[str, object]:
        """One dictionary of plain values; an interval takes three columns, x, x_low and x_high."""
        return {**_flat(self), "status": self.status}


@dataclass(frozen=True)
class Report:
    """The rows of one comparison, by part."""

    rows: dict[str, Row]
    truth: str  # name of the oracle
    truth_relative_stderr: float
    batch: int  # B of the batch cosine and the MSE
    confidence: float

    def __getitem__(self, part: str) -> Row:
        return self.rows[part]

    @property
    def overall(self) -> Row:
        """The row of all parameters together."""
        return self.rows[ALL]

    def over_truth(self, quantity: Literal["squared_bias", "variance", "mse"]) -> Interval:
        """A squared size of everything over ‖∇J‖², whose own error is not in it."""
        row = self.overall
        return Interval(*(value / row.truth_norm**2 for value in getattr(row, quantity)))

    def table(self) -> list[dict[str, object]]:
        """All rows as plain dictionaries, with the truth, its error and the batch repeated."""
        shared = {
            "truth": self.truth,
            "truth_relative_stderr": self.truth_relative_stderr,
            "batch": self.batch,
            "confidence": self.confidence,
        }
        return [{**row.flat(), **shared} for row in self.rows.values()]

    def to_frame(self) -> pd.DataFrame:
        """`table()` as a data frame, a row per part: everything, then layers and leaves."""
        return _frame(self.table())

    def __str__(self) -> str:
        row = self.overall

        def share(value: float) -> str:
            return f", {value:.0%} of its variance from the truth" if value >= 0.005 else ""

        lines = [
            f"against {self.truth} (relative stderr {self.truth_relative_stderr:.3g})",
            f"samples        {row.count}, {row.status}",
            f"relative bias  {format_interval(*row.relative_bias)}"
            + share(row.relative_bias_oracle_share),
            f"cosine         {format_interval(*row.cosine, within=(-1, 1))}"
            + share(row.cosine_oracle_share),
            f"relative norm  {format_interval(*row.relative_norm)}"
            + share(row.relative_norm_oracle_share),
            f"variance       {format_interval(*row.variance)}",
            f"MSE({self.batch})  {format_interval(*row.mse)}",
        ]
        if self.truth_relative_stderr > 0:
            lines.append("Every row against this truth shares its error: they miss together.")
        return "\n".join(lines)


@dataclass(frozen=True)
class PairRow:
    """Two estimators on the same noise, on one part. Definitions: `compare_pair`."""

    part: str
    count: int
    nonfinite: int  # samples where either was not finite
    difference: Interval  # Δ, squared bias of the first minus that of the second
    relative_difference: Interval  # Δ/‖g*‖²; the error of ‖g*‖² is not in it
    oracle_share: float  # of the variance of Δ that is the truth's error
    p_value: float

    @property
    def status(self) -> str:
        """As `Row.status`."""
        return _status(self.count, self.nonfinite)

    def flat(self) -> dict[str, object]:
        """As `Row.flat`."""
        return {**_flat(self), "status": self.status}


@dataclass(frozen=True)
class PairReport:
    """The rows of one paired comparison, by part."""

    rows: dict[str, PairRow]
    truth: str
    confidence: float

    def __getitem__(self, part: str) -> PairRow:
        return self.rows[part]

    @property
    def overall(self) -> PairRow:
        """The row of all parameters together."""
        return self.rows[ALL]

    def table(self) -> list[dict[str, object]]:
        """All rows as plain dictionaries."""
        shared = {"truth": self.truth, "confidence": self.confidence}
        return [{**row.flat(), **shared} for row in self.rows.values()]

    def to_frame(self) -> pd.DataFrame:
        """`table()` as a data frame, a row per part."""
        return _frame(self.table())


def _frame(table: list[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd  # half a second, for those who ask

    return pd.DataFrame(table)


def _flat(row: Row | PairRow) -> dict[str, object]:
    out: dict[str, object] = {}
    for one in fields(row):
        if not one.metadata.get("column", True):
            continue
        value = getattr(row, one.name)
        if value is None:  # no target: the columns stay, so that all tables have the same ones
            value = Interval(math.nan, math.nan, math.nan)
        if isinstance(value, Interval):
            out |= {one.name: value.estimate}
            out |= {f"{one.name}_low": value.low, f"{one.name}_high": value.high}
        else:
            out[one.name] = value
    return out


def _status(count: int, nonfinite: int, tails: str = "") -> str:
    said = [f"{nonfinite} of {count + nonfinite} samples not finite"] if nonfinite else []
    said += [tails] if tails else []
    return "; ".join(said) or "ok"
