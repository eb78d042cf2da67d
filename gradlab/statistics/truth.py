"""What a gradient estimator is judged against, with an error of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gradlab.foundation.display import Facts, Shown, leaves, norm
from gradlab.foundation.errors import BadShape, NotFinite
from gradlab.statistics.moments import Moments
from gradlab.statistics.parts import ALL
from gradlab.statistics.rows import Leaves
from gradlab.statistics.streams import Stream


@dataclass(frozen=True, repr=False)
class OracleGradient(Shown):
    """A reference gradient ĝ* and how sure it is; seeds independent of whatever it judges.

    Build it with `exact` (closed forms, converged quadrature) or `sampled` (large samples).
    """

    mean: Leaves  # {leaf: [*param]}, float64
    name: str  # of the method, for tables
    moments: Moments | None  # of the samples behind the mean; None: no sampling error
    seconds: float = 0.0  # spent on it [s]

    def facts(self) -> Facts:
        return {
            "name": self.name,
            "parameters": leaves(self.mean),
            "norm": norm(self.mean),
            "relative standard error": f"{self.relative_stderr:.2g}",
        }

    @staticmethod
    def exact(mean: Mapping[str, torch.Tensor], name: str, seconds: float = 0.0) -> OracleGradient:
        """A truth without sampling error."""
        leaves = {leaf: x.detach().to(torch.float64) for leaf, x in mean.items()}
        for leaf, x in leaves.items():
            if not bool(torch.isfinite(x).all()):
                raise NotFinite(f"the truth {name!r} has a NaN or an infinity in {leaf!r}")
        return OracleGradient(leaves, name, None, seconds)

    @staticmethod
    def sampled(moments: Moments, name: str, seconds: float = 0.0) -> OracleGradient:
        """The mean of an unbiased estimator's samples, with the error that their spread says."""
        if moments.nonfinite:
            raise NotFinite(
                f"{moments.nonfinite} of {moments.nonfinite + moments.count} samples of the truth "
                f"{name!r} are not finite; a truth may leave none out"
            )
        return OracleGradient(moments.mean, name, moments, seconds)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The noise behind it, where it is known."""
        return () if self.moments is None else self.moments.streams

    @property
    def count(self) -> int:
        """Replicates behind the mean; 0 when it has no sampling error."""
        return 0 if self.moments is None else self.moments.count

    def error(self, part: str = ALL) -> float:
        """Expected squared distance E‖ĝ* − g*‖² = tr Σ/N over one part."""
        return 0.0 if self.moments is None else self.moments.variance(part) / self.count

    def stderr(self) -> Leaves:
        """Standard error of the mean, per parameter."""
        if self.moments is None:
            return {leaf: torch.zeros_like(x) for leaf, x in self.mean.items()}
        return self.moments.stderr()

    @property
    def squared_norm(self) -> float:
        """‖g*‖², free of noise bias: ‖ĝ*‖² − tr Σ/N; may be negative when noise hides it."""
        return float(sum(x.square().sum() for x in self.mean.values())) - self.error()

    @property
    def relative_stderr(self) -> float:
        """sqrt(tr Σ/N)/‖g*‖, with the noise taken off ‖g*‖²; infinite when nothing is left."""
        error = self.error()
        if error == 0:
            return 0.0
        return (error / self.squared_norm) ** 0.5 if self.squared_norm > 0 else float("inf")

    def check_leaves(self, leaves: Mapping[str, torch.Tensor]) -> None:
        """Raises `BadShape` unless `leaves` has the names and shapes of this gradient."""
        mine = {name: tuple(x.shape) for name, x in self.mean.items()}
        theirs = {name: tuple(x.shape) for name, x in leaves.items()}
        if mine != theirs:
            wrong = sorted(
                name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
            )
            raise BadShape(
                f"the truth {self.name!r} and the samples differ in {', '.join(wrong)}; "
                "use the same policy for both"
            )
