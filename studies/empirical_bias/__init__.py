"""Which estimators are biased on the toys of the AoBG paper, where do they lead, and do tests and
rules that adapt (AoBG, DDCG, IVW-H, BestLinear) mend it?

Ball with wall, momentum transfer, Heaviside by width, pushing with a stiff spring, friction and
tennis: expectation and variance along a coordinate beside the exact derivative, plain gradient
ascent from the published starts beside the published ends, and a benchmark of all rules on problems
with known answers with weights from the same or another batch.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.empirical_bias import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cells=cells.cells,
    run_cell=cells.run_cell,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
