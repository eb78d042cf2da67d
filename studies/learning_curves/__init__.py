"""Who learns faster and ends higher: first-order gradients, mixtures, critics or score functions?

Named algorithms train on flights and runners, each from several seeds. Return against environment
steps, gradient steps and processor time, with the seed as the unit: interquartile means with
bootstrap bands, probabilities of improvement, and exact tests for what papers claim.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.learning_curves import answer, cells, config, figures, report
from studies.shared.curves import parts
from studies.shared.curves.baselines import CPU_PART

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cpu_part=CPU_PART,
    cells=cells.cells,
    run_cell=parts.run_cell,
    measured=parts.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
