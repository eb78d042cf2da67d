"""Which part of ABPT does it: the 0-step return, the entropy, or restarts at visited states?

ABPT in full, and without each part in turn (ABPT appendix D.1), trained on flights from several
seeds.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.ablation import answer, cells, config, report
from studies.shared.curves import parts

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cells=cells.cells,
    run_cell=parts.run_cell,
    measured=parts.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=report.plot,
)
