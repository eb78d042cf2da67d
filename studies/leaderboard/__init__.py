"""Which gradient estimator should I take, for this task, policy and budget?

Every estimator gets what the budget buys it: as many samples as fit into so many environment steps,
or into so many seconds. Then all are ranked twice: by the mean square error of the mean of those
samples, and by what one step along it gains in the true, hard objective. Each ranking says who
cannot be told apart. An estimator of your own is put among them: --estimators mine.py:Mine.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.leaderboard import answer, cells, config, figures, report

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
