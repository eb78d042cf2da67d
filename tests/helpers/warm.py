"""What every command of a study does first, done once for all that are forked afterwards."""

from __future__ import annotations

from gradlab.study.sources import Code

Code.of([])  # reads and hashes gradlab and estimators, and keeps what it found
