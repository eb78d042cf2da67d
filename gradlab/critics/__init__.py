"""Critics: what value-based estimators read. Reading order:
base, networks, fitting, fitted, quality.

Nothing is imported here, since most of it needs a problem: take
it from its module: `from gradlab.critics.fitting import fit_critic`.
"""

from gradlab.problems.critic import Critic, View

__all__ = ["Critic", "View"]
