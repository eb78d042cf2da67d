"""Colour and marker of every way to train, the same in all figures.

An algorithm that is the training by one estimator looks like the estimator does in other studies;
the others have looks of their own. Imported where something is drawn: it brings matplotlib.
"""

from __future__ import annotations

from gradlab.study.figures import Look, look

ESTIMATORS = {
    "bptt": "fog",
    "apg": "fog",
    "shac": "nstep",
    "aobg": "alpha_order",
    "ddcg": "switch",
}
OWN = {
    "apg_mc": Look("#774411", "*"),
    "apg_critic": Look("#DDCC77", "P"),
    "apg_adaptive": Look("#CC3311", "X"),
    "ahac": Look("#77AADD", "^"),
    "ahac_released": Look("#225588", "v"),
    "ivwh": Look("#EE3377", "s"),  # of action_mixture, whose marker is best_linear's
    "sapo": Look("#EE8866", "D"),
    "rpo": Look("#AAAA00", "s"),
    "abpt_full": Look("#AA4499", "H"),
    "abpt_published": Look("#771155", "X"),
    "agpo_fixed": Look("#BBCC33", "<"),
    "agpo_maxnorm": Look("#117777", "h"),
    "agpo_quantile": Look("#55AA55", ">"),
    "ppo": Look("#777777", "o"),
    "sac": Look("#009988", "D"),
    "td3": Look("#BB5566", "1"),
}


def look_of(algorithm: str) -> Look:
    """How an algorithm is drawn; one that is not known by a hash of its name, always the same."""
    return OWN.get(algorithm) or look(ESTIMATORS.get(algorithm, algorithm))
