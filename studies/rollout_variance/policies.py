"""Policies of the ant and the critics that belong to them, for `rollout_variance`.

One policy for each preset family, made with compliant contact, which every preset has and whose
gradients are the kindest; the other contact laws are measured with the same policy, and with a
critic fitted to its returns under that law. The policy is the result of seeded Adam ascent: tiled
windows of short episodes (`RECIPES`), states cut between windows, no value at their ends, and the
end of health relaxed so that falling has a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import estimators
import gradlab
from gradlab.critics.episodes import lambda_returns
from gradlab.critics.fitted import Fit, FittedCritic
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import block_generator
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.problems.runners import presets
from gradlab.rollouts.outcome import Outcome, evaluate
from gradlab.rollouts.rollout import Trajectory
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.simulators.articulated.variants import CONTACTS
from gradlab.study import Artefact, Saved, seed_for
from gradlab.study.progress import note

Params = dict[str, Tensor]

COMMAND = "python -m studies.rollout_variance --retrain"
RUNNER = "ant"
HORIZON = 128  # of the study's rollouts and of its critics, as in AGPO's Figure 2 [steps]
HIDDEN = (64, 64)
# A first-order ascent narrows the policy as far as it may; a Q learns nothing of actions that
# hardly vary.
LOG_STD_RANGE = (-2.0, 1.0)

BATCH = 32  # episodes per update
WIDTH = 0.5  # of the relaxation that is trained on, fraction of the margin's scale


class Recipe(NamedTuple):
    """How the policy of a preset is trained."""

    steps: int  # of the episodes
    window: int  # of the gradient [steps]
    updates: int
    learning_rate: float  # of the first update, falling linearly to 0


# The light ant of Brax bounces on compliant feet, and most episodes of a fresh policy end within 20
# steps: longer windows have gradients that lead nowhere. dFlex's window is SHAC's; its episodes are
# short to save time.
RECIPES = {
    "brax": Recipe(16, 8, 80, 3e-3),
    "dflex": Recipe(64, 32, 50, 2e-3),
    "gymnasium": Recipe(16, 8, 80, 3e-3),
}
EVALUATED = 64  # episodes behind the numbers that say how good a policy is
FIT = Fit(episodes=1024, steps=2000, hidden=HIDDEN, held_out=256)


class Setting(NamedTuple):
    """A preset with a contact law."""

    preset: str
    contact: str

    @staticmethod
    def of(text: str) -> Setting:
        """From "preset/contact", as in brax/convex. Raises `BadValue` or `UnknownName`."""
        preset, slash, contact = text.partition("/")
        if not slash:
            raise BadValue(f"a setting is written preset/contact, got {text!r}; try brax/compliant")
        if preset not in presets(RUNNER):
            raise UnknownName(f"preset of {RUNNER}:", preset, presets(RUNNER))
        if contact not in CONTACTS:
            raise UnknownName("contact", contact, CONTACTS)
        return Setting(preset, contact)

    def __str__(self) -> str:
        return f"{self.preset}/{self.contact}"


def problem_of(setting: Setting, horizon: int = HORIZON) -> Problem:
    """The ant of a setting with this study's policy network; raises `UnknownName`."""
    problem = gradlab.make(RUNNER, preset=setting.preset, contact=setting.contact, horizon=horizon)
    network = GaussianPolicy(
        problem.task.observation_dim,
        problem.simulator.action_dim,
        hidden=HIDDEN,
        log_std_range=LOG_STD_RANGE,
    )
    return problem.replace(policy=network)


@dataclass(frozen=True)
class FiniteOnly:
    """A simulator in which an episode stands still as soon as its next state would not be finite.

    Rollouts hold an ended episode themselves; this is for one that flies apart while it is alive,
    as light ants with compliant contact may. For rollouts alone: gradients through the step that is
    not taken are not finite.
    """

    inner: Articulated

    @property
    def state_dim(self) -> int:
        return self.inner.state_dim

    @property
    def action_dim(self) -> int:
        return self.inner.action_dim

    @property
    def noise_dim(self) -> int:
        return self.inner.noise_dim

    def start(self, coordinates: Tensor) -> Tensor:
        return self.inner.start(coordinates)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        after = self.inner.step(state, action, noise)
        return torch.where(after.isfinite().all(-1, keepdim=True), after, state)

    def compiled(self) -> FiniteOnly:
        return FiniteOnly(self.inner.compiled())


def finite_only(problem: Problem) -> Problem:
    """The problem in which no state is lost; see `FiniteOnly`."""
    return problem.replace(simulator=FiniteOnly(articulated(problem)))


def articulated(problem: Problem) -> Articulated:
    """The ant's simulator, out of `FiniteOnly` if it is in there."""
    simulator = problem.simulator
    inner = simulator.inner if isinstance(simulator, FiniteOnly) else simulator
    assert isinstance(inner, Articulated)
    return inner


# ------------------------------------------------------------------------------------ artefacts


def artefacts_of(settings: Iterable[Setting]) -> Iterator[Artefact]:
    """A policy for each preset among the settings, and a critic for each setting."""
    settings = list(settings)
    for preset in dict.fromkeys(setting.preset for setting in settings):
        yield policy_artefact(preset)
    for setting in settings:
        yield critic_artefact(setting)


def policy_artefact(preset: str) -> Artefact:
    """The artefact with the policy of one preset."""
    payload = {
        "preset": preset,
        "network": problem_of(Setting(preset, "compliant")).policy.settings(),
        "ascent": [*RECIPES[preset], BATCH, WIDTH, "limited"],
        "evaluated": [EVALUATED, HORIZON],
    }
    return Artefact(policy_name(preset), train_policy, payload, cost=600.0)


def critic_artefact(setting: Setting) -> Artefact:
    """The artefact with the Q critic of a preset's policy in one setting."""
    payload = {**setting._asdict(), "fit": FIT.settings(), "horizon": HORIZON}
    needs = (policy_name(setting.preset),)
    return Artefact(critic_name(setting), build_critic, payload, needs, cost=200.0)


def policy_name(preset: str) -> str:
    return f"policies/{preset}"


def critic_name(setting: Setting) -> str:
    return f"critics/{setting.preset}-{setting.contact}"


def train_policy(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Seeded Adam ascent of the relaxed return, each update on fresh episodes."""
    preset = artefact.payload["preset"]
    setting, recipe = Setting(preset, "compliant"), RECIPES[preset]
    trained = problem_of(setting, recipe.steps).relaxed(WIDTH)
    trained = trained.replace(compile=True, critic=Critic(v=_nothing))
    ascent = estimators.NStep(recipe.window, "tiled", tail="v")
    seed = seed_for(0, artefact.name)
    start = trained.init(block_generator(seed, -1))
    leaves = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    adam = torch.optim.Adam(leaves.values(), lr=recipe.learning_rate, betas=(0.9, 0.95))
    for update in range(recipe.updates):
        noise = trained.draw(BATCH, block_generator(seed, update))
        gradient = limited_mean(ascent(trained, _values(leaves), noise))
        for name, leaf in leaves.items():
            leaf.grad = -gradient[name]
        torch.nn.utils.clip_grad_norm_(leaves.values(), 1.0)
        adam.param_groups[0]["lr"] = recipe.learning_rate * (1 - update / recipe.updates)
        adam.step()
        if update % 10 == 0:
            note(f"{artefact.name}: {update} of {recipe.updates} updates")
    params = _values(leaves)
    judged = problem_of(setting)
    metadata = {
        "command": COMMAND,
        "trained": quality_of(judged, params),
        "untrained": quality_of(judged, start),
    }
    return Saved(params, metadata)


def limited_mean(samples: GradientSamples) -> Params:
    """The mean over samples, none of them longer than the median; zero where none is finite.

    Light ants with compliant contact may fly apart while they are alive.
    """
    rows = samples.per_sample()
    norms = torch.stack([leaf.flatten(1).square().sum(1) for leaf in rows.values()]).sum(0).sqrt()
    good = norms.isfinite()
    if not good.any():
        return {name: torch.zeros_like(leaf[0]) for name, leaf in rows.items()}
    kept = norms[good]
    weight = (kept.median() / kept).clamp(max=1.0)
    weight = torch.where(kept > 0, weight, 0.0) / len(kept)
    return {name: torch.einsum("n,n...->...", weight, leaf[good]) for name, leaf in rows.items()}


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic fitted to the returns of the preset's policy in one setting."""
    setting = Setting(artefact.payload["preset"], artefact.payload["contact"])
    problem = finite_only(problem_of(setting)).replace(compile=True)
    fitted = fit_critic(problem, dict(needs[policy_name(setting.preset)].tensors), FIT)
    return Saved(fitted.params, {**fitted.metadata, "command": COMMAND})


def read_critic(saved: Saved) -> FittedCritic:
    """The critic out of its artefact."""
    return FittedCritic.of(dict(saved.tensors), saved.metadata)


def _nothing(view: View) -> Tensor:
    """The value at a window's end: none."""
    return torch.zeros_like(view.step)


def _values(leaves: Mapping[str, Tensor]) -> Params:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}


# -------------------------------------------------------------------------------------- quality


class Episodes(NamedTuple):
    """Episodes of the hard task and what they earned, without gradients."""

    path: Trajectory
    eps: Tensor  # [N, T, nu]: the noise of the actions
    result: Outcome
    to_go: Tensor  # [N, T]: returns discounted from t, given alive at t


def episodes_of(problem: Problem, params: Params, noise: Noise) -> Episodes:
    """Roll the policy out over the whole horizon; an episode whose numbers are not finite halts."""
    problem = finite_only(problem)
    with torch.no_grad():
        path = gradlab.rollout(problem, problem.bind(params), noise)
        result = evaluate(problem, path)
        nothing = torch.zeros_like(result.reward)
        to_go = lambda_returns(result.reward, result.alive, nothing, problem.discount, 1.0)
    return Episodes(path, noise.action, result, to_go)


def quality_of(problem: Problem, params: Params) -> dict[str, float]:
    """Mean return (discounted), speed while alive [m/s], share of episodes that survive,
    mean std of the latent.
    """
    noise = problem.draw(EVALUATED, block_generator(seed_for(0, problem.name, "quality"), 0))
    seen = episodes_of(problem, params, noise)
    return described(problem, seen)


def described(problem: Problem, seen: Episodes) -> dict[str, float]:
    """What `quality_of` says, of episodes that were rolled out already."""
    alive = seen.result.alive[:, :-1].double()
    x = seen.path.state[..., 0].double()
    moved = (x[:, 1:] - x[:, :-1]) / articulated(problem).dt
    # what happens after the end of an episode need not be finite
    moved = torch.where(alive > 0, moved, 0.0)
    returns = seen.to_go[:, 0].double()
    std = seen.path.output.chunk(2, dim=-1)[1].exp().mean(-1).double()
    std = torch.where(alive > 0, std, 0.0)
    return {
        "return": float(returns.mean()),
        "return_stderr": float(returns.std() / len(returns) ** 0.5),
        "speed": float(moved.sum() / alive.sum()),
        "survival": float(seen.result.alive[:, -1].mean()),
        "std": float(std.sum() / alive.sum()),
    }
