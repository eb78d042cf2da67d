"""What does a longer window buy, smooth and stiff, and do AGPO's bounds (Theorem 4.2) hold?

N-step, ABPT and AGPO over tiled windows of every length: bias, variance, MSE, environment steps and
processor time. Beside it AGPO's gradient as its theorem has it, one window from the start divided
by its length: its variance against 32 L_Q² L_θ²/h, and its bias against the error of the critic's
gradient. On the linear-quadratic problems ∇J and Q are exact. Lipschitz constants are the largest
slopes at the states and actions that were visited.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.horizon import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cells=cells.cells,
    run_cell=cells.run_cell,
    measured=cells.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
