"""Every way to train has its own colour, the same in all figures."""

from __future__ import annotations

from gradlab.study import figures
from studies.shared.looks import ESTIMATORS, OWN, look_of
from studies.train.algorithms import ALGORITHMS, BASELINES


def test_no_two_algorithms_look_alike() -> None:
    """Hashes of names gave four of them one look, and `pg` that of another estimator."""
    assert {*ESTIMATORS, *OWN} <= {*ALGORITHMS, *BASELINES}
    names = {*ALGORITHMS, *BASELINES} - {"apg"}  # which is bptt on another suite
    looks = {name: look_of(name) for name in names}
    assert len({look.colour for look in looks.values()}) == len(names)
    assert look_of("apg") == look_of("bptt") == figures.look("fog")
    for name in ("pg", "abpt", "split", "agpo", "best_linear"):
        assert look_of(name) == figures.look(name)
