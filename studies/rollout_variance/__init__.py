"""How large is the variance of SG, QG and PG along a rollout of the ant,
and is SG's large at contact?

AGPO (Gao et al. 2024, Figure 2) rolls 64 states of Ant out for 128 steps, draws the empirical
variance of the three one-step gradients at every step, and then improves a random policy by SG in a
state of low and in one of high variance. This study does both for each preset and contact law, with
intervals:

- the variance over action noise of the per-sample gradients at each step and state (median and
  quantiles over states), and over the states with one action each, as AGPO's parallel environments
  have it;
- whether QG's variance is steady, how many orders PG and SG lie above it, and whether SG's outliers
  are where contacts change;
- paths of r + γQ under ascent by SG from states of low and of high variance.

`gradients.py` has the formulas, and what the paper leaves open. Policies are made with compliant
contact (`policies.py`); other contact laws are measured with the same policy and a Q that is fitted
to its returns under that law.
"""

from __future__ import annotations

from pathlib import Path

from gradlab.study import Study
from studies.rollout_variance import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    committed=Path(__file__).parent / "artefacts",
    cells=cells.cells,
    run_cell=cells.run_cell,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
