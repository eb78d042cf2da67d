"""Questions: one folder, one question, one table, one figure. `python -m studies.NAME --help`."""

import os

from gradlab.foundation import siblings

# Before numpy and torch are imported: sums split over threads differ in their last bits, and a
# study's table must be the same for any number of jobs. Workers run on one thread each.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# said here, before a study misses what another package of that name lacks
siblings.check("estimators")
