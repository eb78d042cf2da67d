"""How much does the learning rate matter to each algorithm?

Hovering, whose rewards are differentiable, trained with the five rates of ABPT's appendix D.3,
constant over a training, by each algorithm from several seeds.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.learning_rate_robustness import answer, cells, config, report
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
