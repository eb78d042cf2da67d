"""Tools that every study uses. Reading order: cells, seeds, answer, definition,
runner, commandline. `tables` reads rows back as typed records, `text` has the words that reports
share.

`gradlab.study.figures` is imported by a study's `plot` alone, so that workers need not load
matplotlib.
"""

from gradlab.foundation.checkpoints import Saved
from gradlab.study.answer import Answer
from gradlab.study.cells import Artefact, Cell, file_name
from gradlab.study.commandline import cli
from gradlab.study.definition import Study
from gradlab.study.runner import Result, read_rows, run_study
from gradlab.study.seeds import seed_for

__all__ = [
    "Answer",
    "Artefact",
    "Cell",
    "Result",
    "Saved",
    "Study",
    "cli",
    "file_name",
    "read_rows",
    "run_study",
    "seed_for",
]
