"""From which quality of the critic on does the 0-step term help a gradient, and where does it harm?

Critics are fitted with one setting at a time moved away from a default: episodes, Adam steps, TD λ,
size, staleness of the policy behind the data, exploration. Each is placed by the cosine of its
action gradient ∇_a Q̂ with the true one; beside it stand the biases of QG, N-step, ABPT and AGPO
with that critic, and the difference between ABPT and N-step on the same episodes, which is what the
0-step term does. On LQ and on the gate with process noise everything it is judged by is exact.
"""

from __future__ import annotations

from gradlab.study import Study
from studies.critic_quality import answer, cells, config, figures, report

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
