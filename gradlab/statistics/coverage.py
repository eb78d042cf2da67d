"""How often every interval of `compare` and `compare_pair` holds the true value, by simulation.

    python -m gradlab.statistics.coverage --repeats 400

prints the table of docs/statistics.md. Samples of ten parameters are drawn about a known mean with
noise of a law, a rank and a number N; every quantity then has a known value. In units of √(tr
Σ/N) = 1/2: ‖g*‖ = 4, a bias of 1 across it, a truth of 2N samples of the same law, batches of N/8
samples, and a second estimator with 0.9 of the noise shared and another bias of 1/2.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.statistics.comparing import COSINE, compare
from gradlab.statistics.moments import Moments
from gradlab.statistics.pairs import CrossMoments, compare_pair
from gradlab.statistics.parts import ALL
from gradlab.statistics.truth import OracleGradient

P, SIZE, BIAS, SHARED = 10, 4.0, 1.0, 0.9
COLUMNS = (
    "squared_bias", "relative_bias", "relative_bias_target", "cosine", "left_after_scaling",
    "relative_norm", "variance", "snr", "mse", "cosine_batch", "samples_to_cosine",
    "difference", "relative_difference",
)  # fmt: skip


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _log_normal(draws: torch.Generator, n: int, rank: int) -> Tensor:
    return normal(draws, n, rank) * torch.exp(normal(draws, n, 1) - 1)  # E r² = 1


def _student(freedom: int) -> Callable[[torch.Generator, int, int], Tensor]:
    def draw(draws: torch.Generator, n: int, rank: int) -> Tensor:
        below = normal(draws, n, freedom).square().sum(1, keepdim=True) / (freedom - 2)
        return normal(draws, n, rank) / below.sqrt()

    return draw


def _outliers(draws: torch.Generator, n: int, rank: int) -> Tensor:
    """One sample of a hundred ten times as long."""
    far = torch.rand(n, 1, generator=draws, dtype=torch.float64) < 0.01
    return normal(draws, n, rank) * torch.where(far, 10.0, 1.0) / math.sqrt(1.99)


LAWS: dict[str, Callable[[torch.Generator, int, int], Tensor]] = {
    "normal": normal,
    "log-normal radius": _log_normal,
    "t5": _student(5),
    "t3": _student(3),
    "outliers": _outliers,
}  # each with covariance 1


def truths(count: int) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """g*, both estimators' expectations, and the true value of every column."""
    unit = torch.full((P,), P**-0.5, dtype=torch.float64)
    across = unit * torch.tensor([1.0, -1.0] * (P // 2), dtype=torch.float64)
    other = unit * torch.tensor([1.0] * (P // 2) + [-1.0] * (P // 2), dtype=torch.float64)
    g, first, second = SIZE * unit, SIZE * unit + BIAS * across, SIZE * unit + BIAS / 2 * other
    length, trace, batch = SIZE**2 + BIAS**2, count / 4, count // 8
    snr, cosine = length / trace, SIZE / math.sqrt(length)
    gap = BIAS**2 - (BIAS / 2) ** 2
    value = {
        "squared_bias": BIAS**2,
        "relative_bias": BIAS / SIZE,
        "relative_bias_target": BIAS / SIZE,
        "cosine": cosine,
        "left_after_scaling": math.sqrt(1 - cosine**2),
        "relative_norm": math.sqrt(length) / SIZE,
        "variance": trace,
        "snr": snr,
        "mse": trace / batch + BIAS**2,
        "cosine_batch": cosine / math.sqrt(1 + 1 / (batch * snr)),
        "samples_to_cosine": 1 / (snr * ((cosine / COSINE) ** 2 - 1)),
        "difference": gap,
        "relative_difference": gap / SIZE**2,
    }
    return g, first, second, value


def coverage(law: str, rank: int, count: int, repeats: int, seed: int = 0) -> dict[str, float]:
    """Share of repeats whose interval holds the true value, by column, and of rows flagged."""
    draws = generator("coverage", seed, law, rank, count)
    g, first, second, value = truths(count)
    held: Counter[str] = Counter()

    def noise(n: int) -> Tensor:
        out = torch.zeros(n, P, dtype=torch.float64)
        out[:, :rank] = LAWS[law](draws, n, rank) * math.sqrt(count / 4 / rank)
        return out

    for _ in range(repeats):
        one = noise(count)
        two = SHARED * one + math.sqrt(1 - SHARED**2) * noise(count)
        cross = CrossMoments.of({"w": first + one}, {"w": second + two})
        truth = OracleGradient.sampled(Moments.of({"w": g + noise(2 * count)}), "sampled")
        target = OracleGradient.exact({"w": g}, "exact")
        row = compare(cross.first, truth, target, batch=count // 8, only=_whole).overall
        pair = compare_pair(cross, truth, only=_whole).overall
        held["flagged"] += row.heavy_tails
        for name in COLUMNS:
            interval = getattr(pair if "difference" in name else row, name)
            # batches are whole numbers: the interval may hold either neighbour
            room = 1.0 if name == "samples_to_cosine" else 1e-12
            held[name] += interval.low - room <= value[name] <= interval.high + 1e-12
    return {name: held[name] / repeats for name in (*COLUMNS, "flagged")}


def _whole(part: str) -> bool:
    return part == ALL


def table(repeats: int, laws: list[str], ranks: list[int], counts: list[int]) -> Iterator[str]:
    """Lines of a markdown table, in per cent."""
    columns = [name.replace("_", " ") for name in (*COLUMNS, "flagged")]
    yield f"| law | rank | N | {' | '.join(columns)} |"
    yield "|---" * (3 + len(columns)) + "|"
    for law in laws:
        for rank in ranks:
            for count in counts:
                found = coverage(law, rank, count, repeats)
                cells = " | ".join(f"{100 * x:.0f}" for x in found.values())
                yield f"| {law} | {rank} | {count} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the 95 % intervals, as markdown.")
    parser.add_argument("--repeats", type=int, default=400, help="per line (400: ±1.1 at 95 %%)")
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 256, 1024], help="N")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 10], help="of the noise")
    args = parser.parse_args()
    for line in table(args.repeats, args.laws, args.ranks, args.counts):
        print(line, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
