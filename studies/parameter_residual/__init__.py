"""Does the 0-step return bring a policy's parameters back towards those of the full gradient,
where parts of the reward pass none on?

Hovering is trained with the full gradient, with named parts of the reward detached and n-step
returns alone, and with the same parts detached and the 0-step return beside (ABPT), all from the
same policy on the same random numbers. Their distance is followed in parameters, in actions and in
return, beside the distance that other random numbers alone make. At states of the full training
the detached gradients are held against the full one.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.parameter_residual import answer, cells, config, figures, report

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
