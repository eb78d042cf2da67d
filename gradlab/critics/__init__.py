"""Critics: what value-based estimators read. Reading order:
base, networks, fitting, fitted, quality.

Only what `gradlab.problem` itself needs is imported here; everything else needs a problem, so take
it from its module: `from gradlab.critics.fitting import fit_critic`.
"""

from gradlab.critics.base import Critic, View

__all__ = ["Critic", "View"]
