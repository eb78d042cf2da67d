"""What does a return cost in steps, gradients and time: by first-order gradients, and by PPO?

Four tasks without contact. Both have the networks, the normalisation, the optimiser and the
schedule of arXiv 2606.21525, whose claim is judged: that first-order gradients of whole episodes
need 3.9 to 15.9 times fewer gradient steps than PPO. Seeds are the unit.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.apg_suite import answer, cells, config, figures, report
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
