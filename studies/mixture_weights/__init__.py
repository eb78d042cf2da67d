"""What does taking a mixture's weights from the samples that they weigh do to bias and to error,
and which source and level of weights should one take?

Pairs of estimators are mixed with weights from the same samples, from the other fold (cross), or
from another batch (pilot), on known-answer problems, flights and the ant. All of them weigh the
same episodes, so that what a source does is a paired difference. Three rules (inverse variance,
the same with gradients normalised by their medians, as AGPO does, and least variance by
covariances), all levels of weights, and several numbers of samples.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.mixture_weights import answer, cells, config, figures, report

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
