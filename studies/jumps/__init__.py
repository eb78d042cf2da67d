"""Does the jump test find every objective on which FOG is biased,
and is it silent on the smooth ones?

Known-answer problems, flights (hard and relaxed) and runners by preset and contact law. Of each
the jump test (`gradlab.testing.detect_jump`) is asked about the return, at several numbers of pairs
of episodes, and about every reward term. Beside it stands the relative bias of FOG, measured
against the gradient of that very objective: by closed form, by a committed truth, or by a large
sample of PG or Split from other episodes. Runners have no truth, and none is made up for them.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.jumps import answer, cells, config, figures, report

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
