"""Does the measured error of a training's gradient say how much the next updates gain?

Several algorithms are trained from the same policies. At some states of every training the gradient
of its next update is measured: its mean squared error, bias and noise, against the gradient of the
segment and against that of the whole return. Beside it stands what the next updates then gained in
true return, on episodes that all have in common. If a leaderboard of estimators by mean squared
error at equal cost says who learns fastest, algorithms with less error gain more: the rank
correlation over the algorithms at one state, averaged over states and tasks, with an interval over
seeds.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.estimator_in_training import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    cells=cells.cells,
    run_cell=cells.run_cell,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
