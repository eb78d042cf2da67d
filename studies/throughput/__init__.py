"""How fast are per-sample gradients, and how much memory do they take?

Every cell races the gradient engines against each other on one problem, number of samples N and
horizon T: FOG through both engines, with and without a compiled step, beside one ordinary batched
backward pass of the mean (the yardstick) and a JAX twin where jax is installed. In every round each
contender runs once, so that ratios come from neighbours in time. A second kind of cell streams
samples into `Moments` and reads the peak memory of its process.

Cells take turns whatever --jobs is: two races at once would only slow each other.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.throughput import answer, cells, config, figures, report

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    cells=cells.cells,
    run_cell=cells.run_cell,
    measured=cells.MEASURED,
    answer=answer.answer,
    summarise=report.summarise,
    plot=figures.plot,
)
