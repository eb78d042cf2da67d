"""How variances grow with the horizon and with stiffness, and beside products of Jacobians."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gradlab.statistics import Interval, Moments
from gradlab.study import Saved
from gradlab.study.tables import flat
from studies.contact_stiffness import growth
from studies.contact_stiffness.config import SWEPT


def rows_of(
    task: str,
    horizons: Sequence[int],
    table: Mapping[tuple[float, int, str], Interval],
    jacobians: Mapping[float, Saved],
) -> Iterator[dict[str, Any]]:
    """Fits of variances against horizon and stiffness, products of Jacobians, and crossings.

    `table` has the variances by width, horizon and estimator, `jacobians` the norms by width.
    """
    widths = list(jacobians)
    for width in widths:
        described = {"task": task, "width": width}
        for name in SWEPT:
            points = [table[width, horizon, name] for horizon in horizons]
            yield {
                **described,
                "estimator": name,
                "law": "exponential",
                **_fit_row(horizons, points),
            }
            logs = [math.log(h) for h in horizons]
            yield {**described, "estimator": name, "law": "power", **_fit_row(logs, points)}
        yield {**described, **_crossing_row(table, width, horizons)}
        points = [table[width, horizon, "fog"] for horizon in horizons]
        yield from _jacobian_rows(described, jacobians[width], horizons, points)
    for horizon in horizons:
        for name in SWEPT:
            stiffness = [-math.log(width) for width in widths]
            points = [table[width, horizon, name] for width in widths]
            described = {"task": task, "horizon": horizon, "estimator": name, "law": "stiffness"}
            yield {**described, **_fit_row(stiffness, points)}


def variance_of(moments: Moments) -> Interval:
    """Variance of one sample with the 95 % interval of a normal law of its logarithm."""
    value = moments.variance() * moments.group
    factor = math.exp(min(1.96 * moments.variance_relative_stderr(), 700.0))
    return Interval(value, value / factor, value * factor)


def _fit_row(
    x: Sequence[float], points: Sequence[Interval], resampled: np.ndarray | None = None
) -> dict[str, Any]:
    """A fit; `resampled` [resamples, points] are resamples of an x that has errors of its own."""
    middle, low, high = (list(column) for column in zip(*points, strict=True))
    fit = growth.fit_growth(x, middle, low, high)
    if resampled is not None:
        fits = [growth.fit_growth(line, middle, low, high) for line in resampled.tolist()]
        fit = growth.widened(fit, [found.rate.estimate for found in fits])
    return {
        "kind": "growth", **flat("rate", fit.rate), "intercept": fit.intercept,
        "misfit": fit.misfit, "points": fit.points,
    }  # fmt: skip


def _crossing_row(
    table: Mapping[tuple[float, int, str], Interval], width: float, horizons: Sequence[int]
) -> dict[str, Any]:
    """Where FOG's variance rises above PG's, and their ratio at the longest horizon."""
    ratios = [_log_ratio(*(table[width, horizon, name] for name in SWEPT)) for horizon in horizons]
    found = growth.crossing(horizons, *([r[k] for r in ratios] for k in range(3)))
    last = Interval(*(math.exp(min(part, 700.0)) for part in ratios[-1]))
    return {"kind": "crossing", **flat("crossing", found), **flat("last_ratio", last)}


def _log_ratio(first: Interval, second: Interval) -> Interval:
    """ln of a ratio of two independent variances, with its interval."""
    if not (first.estimate > 0 and second.estimate > 0):
        low = -math.inf if second.estimate > 0 else math.nan
        return Interval(low, low, low)
    middle = math.log(first.estimate / second.estimate)
    reach = math.hypot(
        math.log(first.high / first.estimate), math.log(second.high / second.estimate)
    )
    return Interval(middle, middle - reach, middle + reach)


def _jacobian_rows(
    described: Mapping[str, Any],
    saved: Saved,
    horizons: Sequence[int],
    points: Sequence[Interval],
) -> Iterator[dict[str, Any]]:
    """Growth of the product, and the powers of its mean square, alone and summed over the episode,
    that FOG's variance (`points`) goes with."""
    norms: dict[str, Tensor] = saved.tensors
    found = growth.product_growth(norms["product"], norms["step"], horizons)
    columns = [horizon - 1 for horizon in horizons]
    ends: list[dict[str, float]] = [{} for _ in horizons]
    for law in ("product", "summed"):
        chosen = norms[law][:, columns].double().cpu().numpy()
        values = growth.log_mean_square(chosen)
        resampled = growth.resampled_mean_squares(chosen, RESAMPLES)
        low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
        for k, row in enumerate(ends):
            row |= flat(f"log_{law}", Interval(*map(float, (values[k], low[k], high[k]))))
        yield {
            **described, "estimator": "fog", "law": law,
            **_fit_row(values.tolist(), points, resampled), "spread": float(np.ptp(values)),
        }  # fmt: skip
    yield {
        **described, "kind": "jacobian", **flat("typical", found.typical),
        **flat("square", found.square), **flat("step_norm", found.step_norm),
        "episodes": found.episodes, "nonfinite": saved.metadata["lost"],
    }  # fmt: skip
    for row, horizon in zip(ends, horizons, strict=True):
        yield {**described, "kind": "product", "horizon": horizon, **row}


RESAMPLES = 300  # of the episodes behind mean squares of Jacobian products
