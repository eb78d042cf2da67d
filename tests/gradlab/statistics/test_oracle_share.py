"""How much of an interval is the truth's error:
against known shares for noise alike in every direction.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.statistics import CrossMoments, Moments, OracleGradient, compare, compare_pair

N, M, P = 2048, 6144, 40
G = torch.ones(P, dtype=torch.float64)
BIAS = torch.tensor([1.0, -1.0] * (P // 2), dtype=torch.float64)  # across G, and as long
REPEATS = 16
# One share comes from 63 contrasts of each source, ±0.06; four standard errors of the mean (6e-5
# each).
CLOSE = {"abs": 4 * 0.06 / REPEATS**0.5}


def noise(count: int, seed: int) -> Tensor:
    return torch.randn(count, P, generator=generator("share", seed), dtype=torch.float64)


def share(oracle: float, own: float) -> float:
    """Of squared movements per unit of noise, over M and over N samples."""
    return oracle / M / (oracle / M + own / N)


def sampled(seed: int) -> tuple[Moments, OracleGradient]:
    """An estimator and a truth; ‖g‖² = 2P."""
    truth = OracleGradient.sampled(Moments.of({"w": G + noise(M, 2 * seed)}), "sampled")
    return Moments.of({"w": G + BIAS + noise(N, 2 * seed + 1)}), truth


def whole(part: str) -> bool:
    return part == "all"


@pytest.mark.statistical
def test_known_shares() -> None:
    """Derivatives of each quantity by hand, in units where ‖g*‖² = ‖b‖² = P."""
    rows = [compare(*sampled(seed), only=whole).overall for seed in range(REPEATS)]
    # ln(‖d‖/‖g*‖): 1/‖d‖² = 1/P by ḡ, and 1/P + 1/P by ĝ*
    # the angle and ln(‖g‖/‖g*‖): 1/‖g‖² = 1/(2P) by ḡ, 1/‖g*‖² = 1/P by ĝ*
    for name in ("relative_bias", "cosine", "relative_norm"):
        shares = [getattr(row, f"{name}_oracle_share") for row in rows]
        assert sum(shares) / REPEATS == pytest.approx(share(2, 1), **CLOSE), name


def test_the_report_says_so() -> None:
    report = compare(*sampled(0))
    row = report.overall
    assert report.table()[0]["cosine_oracle_share"] == row.cosine_oracle_share
    text = str(report)
    assert f"{row.relative_bias_oracle_share:.0%} of its variance from the truth" in text
    assert text.endswith("shares its error: they miss together.")


@pytest.mark.statistical
def test_of_a_pair() -> None:
    """Second estimator without noise: Δ moves by 2 d·(noise of the first) and −2
    (a − b)·(the truth's).
    """
    still = {"w": (G + 3 * BIAS).expand(N, P)}
    shares = []
    for seed in range(REPEATS):
        _, truth = sampled(seed)
        cross = CrossMoments.of({"w": G + BIAS + noise(N, 2 * seed + 1)}, still)
        shares.append(compare_pair(cross, truth, only=whole).overall.oracle_share)
    assert sum(shares) / REPEATS == pytest.approx(share(4 * P, P), **CLOSE)


def test_an_exact_truth_has_no_share() -> None:
    report = compare(Moments.of({"w": G + noise(256, 1)}), OracleGradient.exact({"w": G}, "g"))
    row = report.overall
    shares = row.relative_bias_oracle_share, row.cosine_oracle_share, row.relative_norm_oracle_share
    assert shares == (0, 0, 0)
    assert "truth shares" not in str(report) and "from the truth" not in str(report)
