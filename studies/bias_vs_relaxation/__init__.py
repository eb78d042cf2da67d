"""Does the 0-step return reduce the bias of N-step gradients when rewards are
partially differentiable?

Two experiments, never mixed. (A) The question of ABPT's reviewers: estimators and critics see the
hard task; the truth is the gradient of a relaxation, from blunt to sharp, and of the hard limit.
(B) The practical one: the truth is the hard gradient; RelaxedFOG and Split are tried at every width
beside PG, N-step, ABPT and QG.
"""

from __future__ import annotations

from pathlib import Path

from gradlab.study import Study
from studies.bias_vs_relaxation import answer, cells, config, figures, report

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
    measured=cells.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
