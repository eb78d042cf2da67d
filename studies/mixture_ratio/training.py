"""Two short trainings of the ant whose checkpoints the mixture ratio is measured at.

One by AGPO (SG + QG, α per step) and one by SG + PG with inverse-variance weights (AoBG's γ = ∞),
from the same first policy. Each keeps its policy after `STAGES` updates, and a critic that is
fitted to the returns of that very policy; what trains with it in between is a smaller fit, made
anew every `REFIT` updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import estimators
from estimators.base import Estimator
from gradlab.critics.fitted import Fit, FittedCritic
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.errors import UnknownName
from gradlab.gradients.sampling import block_generator
from gradlab.problems.problem import Problem
from gradlab.study import Artefact, Saved, seed_for
from gradlab.study.progress import note
from studies.rollout_variance.policies import (
    Params,
    Setting,
    finite_only,
    limited_mean,
    problem_of,
    quality_of,
)

COMMAND = "python -m studies.mixture_ratio --retrain"
SETTING = Setting("dflex", "compliant")
HORIZON = 32  # of episodes, in training and where α is measured [steps]
WINDOW = 8  # of AGPO's windows in training: α and so β fall fast, and later calls count little
STAGES = (0, 5, 20)  # updates after which a policy is kept
BATCH = 32  # episodes per update
LEARNING_RATE = 5e-3  # of the first update, falling linearly to a tenth at the last one
REFIT = 5  # updates between two fits of the critic that trains
HIDDEN = (64, 64)
TRAINS = Fit(kind="q", twin=True, episodes=128, steps=300, hidden=HIDDEN, held_out=64)
JUDGES = Fit(kind="both", twin=True, episodes=512, steps=1000, hidden=HIDDEN, held_out=128)
METHODS = ("agpo", "ivw")  # SG + QG and SG + PG


def ant() -> Problem:
    """The ant that is trained, without a critic."""
    return problem_of(SETTING, HORIZON)


def estimator_of(method: str) -> Estimator:
    """What a training ascends by. Raises `UnknownName`."""
    if method == "agpo":
        return estimators.AGPO(WINDOW, starts="tiled", source=estimators.Same(BATCH))
    if method == "ivw":
        return simulation_and_score(HORIZON, BATCH)
    raise UnknownName("method", method, METHODS)


def simulation_and_score(window: int, size: int) -> estimators.Mixture:
    """SG over windows with PG by inverse variance, weights from the same episodes: γ = ∞ of AoBG.

    PG has the baseline Q(s, μ(s)), as AGPO's appendix B.
    """
    parts = estimators.NStep(window, "tiled"), estimators.PG(baseline="q")
    return estimators.Mixture(parts, estimators.InverseVariance(), source=estimators.Same(size))


# ------------------------------------------------------------------------------------ artefacts


def training_artefact(method: str) -> Artefact:
    """The policies of one training, at all stages."""
    payload = {
        "method": method,
        "setting": list(SETTING),
        "network": ant().policy.settings(),
        "ascent": [HORIZON, WINDOW, BATCH, LEARNING_RATE, REFIT, list(STAGES)],
        "critic": TRAINS.settings(),
    }
    return Artefact(training_name(method), train, payload, cost=900.0)


def critic_artefact(method: str, stage: int) -> Artefact:
    """The critic of one policy."""
    payload = {"method": method, "stage": stage, "fit": JUDGES.settings(), "horizon": HORIZON}
    return Artefact(
        critic_name(method, stage), build_critic, payload, (training_name(method),), 60.0
    )


def training_name(method: str) -> str:
    return f"policies/{method}"


def critic_name(method: str, stage: int) -> str:
    return f"critics/{method}-{stage}"


def read_policy(saved: Saved, stage: int) -> Params:
    """The policy after so many updates."""
    prefix = f"{stage}/"
    return {n.removeprefix(prefix): v for n, v in saved.tensors.items() if n.startswith(prefix)}


def train(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Seeded Adam ascent on the hard task."""
    method = artefact.payload["method"]
    tensors: Params = {}
    metadata: dict[str, Any] = {"command": COMMAND}
    for updates, params in ascent(method, max(STAGES)):
        if updates in STAGES:
            tensors |= {f"{updates}/{name}": value for name, value in params.items()}
            metadata[str(updates)] = quality_of(ant(), params)
            note(
                f"{artefact.name}: {updates} updates, return {metadata[str(updates)]['return']:.1f}"
            )
    return Saved(tensors, metadata)


def seed() -> int:
    """Of the first policy and the episodes of an update, the same for all methods."""
    return seed_for(0, "mixture_ratio")


def ascent(method: str, updates: int) -> Iterator[tuple[int, Params]]:
    """The policy before the first update and after each."""
    estimator, hard = estimator_of(method), ant()
    start = hard.init(block_generator(seed(), -1))
    leaves = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    adam = torch.optim.Adam(leaves.values(), lr=LEARNING_RATE, betas=(0.7, 0.95))
    yield 0, _values(leaves)
    problem = hard
    for update in range(updates):
        if update % REFIT == 0:
            problem = hard.replace(critic=_fitted(hard, _values(leaves), TRAINS).critic(hard))
        noise = hard.draw(BATCH, block_generator(seed(), update))
        gradient = limited_mean(estimator(problem, _values(leaves), noise))
        for name, leaf in leaves.items():
            leaf.grad = -gradient[name]
        torch.nn.utils.clip_grad_norm_(leaves.values(), 1.0)
        adam.param_groups[0]["lr"] = LEARNING_RATE * (1 - 0.9 * update / max(updates, 1))
        adam.step()
        yield update + 1, _values(leaves)


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Q and V fitted to the returns of the policy of one stage."""
    method, stage = artefact.payload["method"], artefact.payload["stage"]
    params = read_policy(needs[training_name(method)], stage)
    fitted = _fitted(ant(), params, JUDGES)
    return Saved(fitted.params, {**fitted.metadata, "command": COMMAND})


def _fitted(problem: Problem, params: Params, fit: Fit) -> FittedCritic:
    return fit_critic(finite_only(problem), params, fit)


def _values(leaves: Mapping[str, Tensor]) -> Params:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}
