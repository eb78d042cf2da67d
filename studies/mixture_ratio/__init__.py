"""How much of the simulation gradient (SG) does a mixture with the policy gradient (PG) take,
and one with the gradient of a critic (QG)?

The ratio α on the ant: along a rollout, over two short trainings, and by AoBG's bound γ. AGPO's
paper says that with PG it is "almost equal to 1", and that with QG it is in between.
"""

from __future__ import annotations

from pathlib import Path

from gradlab.study import Study
from studies.mixture_ratio import answer, cells, config, figures, report

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
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
