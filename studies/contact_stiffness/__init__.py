"""What happens to gradient estimators as contact goes from smooth to hard,
and as the horizon grows?

Contact is one family of laws, indexed by a width [m]: springs of stiffness load/width, smoothed
over the width (`problems.py`). At every width and horizon the study measures

- variance and bias of FOG and PG, and at some horizons of QG, NStep and InverseVariance. The truth
  is the same problem's own gradient, always from other episodes: for FOG a large sample of PG, for
  PG that of FOG, for the others whichever of the two is the more precise; for the toy, quadrature;
- growth rates of the variance with the horizon and with stiffness, with the fit's error;
- the Jacobians of single steps under the policy, and the growth of their product.

`pegs` is a toy of one MuJoCo sphere between two round pegs whose gradient and variances are known.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.contact_stiffness import answer, cells, config, figures, report

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
