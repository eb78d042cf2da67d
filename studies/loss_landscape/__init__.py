"""What does the objective look like around a policy, and is it smoother under SG+QG than under SG?

Around policies from random steps of training, on a plane of two random directions (plain,
normalised by filter, or the principal components of the training path), this study draws

- the return J over the whole episode, with its slope (differences of returns, with their error of
  step) and each estimator's expected gradient as arrows on the plane, judged on the same episodes;
- at random steps of the simulation, the one-step objectives of AGPO (Gao et al. 2024, Figure 3):
  SG, SG+PG and SG+QG, and Q alone;
- cuts along the first direction with 95 % bands, and the roughness of every surface with its
  interval.

Every point sees the same episodes (common random numbers). The paper's text does not say what
Figure 3 draws; the reading here is its objective of one step (equation 4 with h = 1), with states
and noise held fixed and α from equation 3 once in the centre (as the constant of equation 4 that it
is), and for comparison anew at every point. `objectives.py` has the formulas.
Critics belong to the policy in the centre and are left alone as the policy moves.
"""

from __future__ import annotations

from pathlib import Path

from gradlab.study import Study
from studies.loss_landscape import answer, cells, config, figures, report

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
