"""Does it matter whether racing rewards closeness to the gate or speed towards it?

The course of four gates with both rewards of ABPT's appendix D.2, trained by each algorithm from
several seeds. Since rewards differ, gates passed per episode are compared.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.reward_robustness import answer, cells, config, report
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
    plot=report.plot,
)
