"""How long should segments be, and what should come after them?

Learning beside its gradient: whole episodes in windows of several lengths, with nothing (a
constant, the released "Monte-Carlo bootstrap" of arXiv 2606.21525) or a critic after each, weighted
by γ^start or not, trained from several seeds; and of each training's last gradient the bias, the
direction and the variance against the gradient of whole episodes.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.segments import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cells=cells.cells,
    run_cell=cells.run_cell,
    measured=cells.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
