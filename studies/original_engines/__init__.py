"""On the engines that AGPO's Fig. 9 used, as they are, is the simulation gradient (FOG) biased,
noisy, or blind to jumps, and how does it stand on ours?

Brax's ant in its own engines (generalized, spring, positional), through `gradlab.simulators.brax`,
beside gradlab's ant under three contact laws. Of each: bias and direction of FOG against a large
sample of PG from other episodes, the variances of both, gradients that are not finite, and the
jump test of the return. Task, policy and noise are the same everywhere.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.original_engines import answer, cells, config, figures

STUDY = Study(
    module=__name__,
    description=__doc__,
    config=config.Config,
    presets=config.PRESETS,
    minutes=config.MINUTES,
    artefacts=cells.artefacts,
    cpu_only="Brax's engines run in JAX on the CPU",
    cells=cells.cells,
    run_cell=cells.run_cell,
    answer=answer.answer,
    summarise=answer.summarise,
    plot=figures.plot,
)
