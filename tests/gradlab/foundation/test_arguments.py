"""Wrong arguments of public functions are one line with what was expected,
what came and what to try.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import gradlab
from gradlab import environments
from gradlab.foundation.arguments import check_device
from gradlab.foundation.errors import BadValue, Unavailable
from gradlab.foundation.placement import Placement
from gradlab.policies.gaussian import GaussianPolicy

# Run apart: here the shape checker would refuse many of them before the code can.
PROGRAM = """
from dataclasses import dataclass
import numpy as np, torch
import estimators as E, gradlab
from gradlab.foundation.errors import GradlabError
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.rollouts.rollout import rollout

problem = gradlab.make("lq", dtype=torch.float64)
generator = torch.Generator().manual_seed(0)
params = problem.init(generator)
noise = problem.draw(4, generator)
samples = E.FOG()(problem, params, noise)
moments = samples.moments()
truth = gradlab.OracleGradient.exact(samples.mean(), "itself")

@dataclass(frozen=True)
class Silent(E.SurrogateEstimator):
    def surrogate(self, problem, policy, noise):
        gradlab.evaluate(problem, rollout(problem, policy, noise)).value.sum(-1)
    def call_weights(self, problem):
        return torch.ones(problem.horizon)

@dataclass(frozen=True)
class Short(E.SurrogateEstimator):
    def surrogate(self, problem, policy, noise):
        return gradlab.evaluate(problem, rollout(problem, policy, noise)).value.sum(-1)
    def call_weights(self, problem):
        return torch.ones(2)

run = lambda e, **k: e(problem, params, noise, **k)
IV, TWO = E.InverseVariance(), (E.FOG(), E.PG())
CASES = {
    "got 64 (int); try hidden=(64, 64)": lambda: GaussianPolicy(3, 1, hidden=64),
    "a size in hidden": lambda: GaussianPolicy(3, 1, hidden=(64.5,)),
    "hidden should": lambda: GaussianPolicy(3, 1, hidden="64"),
    "a size in hidden should be a whole number of at least 1, got 0": lambda: GaussianPolicy(hidden=(0,)),
    "got 5 (int); try hidden=(64, 64)": lambda: gradlab.RecurrentPolicy(hidden=5),
    "of at least 1, got 0 (int)": lambda: gradlab.make("lq", policy=gradlab.RecurrentPolicy(4, (0,))),
    "no sizes yet": lambda: GaussianPolicy(hidden=(4,)).init(generator),
    "'state', 'global' or": lambda: GaussianPolicy(3, 1, std=-1.0),
    "should be one number": lambda: GaussianPolicy(3, 1, std="diagonal"),
    "initial_std must be positive": lambda: GaussianPolicy(3, 1, initial_std=0),
    "horizon should be a whole number of at least 1, got 2.5 (float)": lambda: gradlab.make("hovering", horizon=2.5),
    "got '32' (str)": lambda: gradlab.make("hovering", horizon="32"),
    "discount should be one number": lambda: gradlab.make("hovering", discount="0.9"),
    "got torch.int64 (dtype)": lambda: gradlab.make("hovering", dtype=torch.int64),
    "float32'> (type)": lambda: gradlab.make("hovering", dtype=np.float32),
    "got 'float64' (str); try dtype": lambda: gradlab.make("lq", dtype="float64"),
    "device should be one of torch": lambda: gradlab.make("hovering", device="gpu"),
    "got None (NoneType); try \\"hovering\\"": lambda: gradlab.make(None),
    "got ['hovering'] (list)": lambda: gradlab.make(["hovering"]),
    "did you mean horizon": lambda: gradlab.make("hovering", horizonn=4),
    "did you mean discount": lambda: gradlab.make("ant", discout=0.9),
    "did you mean dtype": lambda: gradlab.make("lq", dtyp=torch.float64),
    "did you mean compile?": lambda: gradlab.make("racing", compil=True),
    "did you mean hidden": lambda: gradlab.make("ant", hiden=(4,)),
    "give one of them": lambda: gradlab.make("hovering", hidden=(4,), policy=GaussianPolicy()),
    "policy should be a policy": lambda: problem.replace(policy=[1, 2]),
    "got Linear(in_features=13, out_features=4, bias=True) (Linear); try gradlab.ModulePolicy(module)": lambda: problem.replace(policy=torch.nn.Linear(13, 4)),
    "torch.nn.modules.linear.Linear'> (type); try gradlab.ModulePolicy": lambda: gradlab.make("hovering", policy=torch.nn.Linear),
    "(Identity); try gradlab.ModulePolicy(module)": lambda: gradlab.make("hovering", policy=lambda no, nu: torch.nn.Identity()),
    "policy should be a policy, got 3 (int)": lambda: gradlab.make("hovering", policy=3),
    "network should be a gradlab.Network": lambda: gradlab.NetworkPolicy(torch.nn.Linear(3, 1)),
    "takes a torch.nn.Module, got 3 (int)": lambda: gradlab.ModulePolicy(3),
    "critic should be a Critic": lambda: problem.replace(critic=lambda view: 0),
    "to draw should be a whole number": lambda: problem.draw(2.5, generator),
    "got None (NoneType)": lambda: problem.draw(None, generator),
    "should be a torch.Generator, got Generator(PCG64)": lambda: problem.draw(4, np.random.default_rng(0)),
    "try torch.Generator().manual_seed(0)": lambda: problem.init(0),
    "floating dtype of torch, got": lambda: problem.policy.init(generator, dtype="float32"),
    "params should be a dict of tensors, got list": lambda: E.FOG()(problem, list(params), noise),
    "params should be a dict of tensors, got NoneType": lambda: E.FOG()(problem, None, noise),
    "noise should be Noise, got NoneType": lambda: E.FOG()(problem, params, None),
    "noise should be Noise, got Tensor": lambda: E.FOG()(problem, params, noise.action),
    "noise should be on cpu": lambda: E.FOG()(problem, params, type(noise)(*(p.to("meta") for p in noise))),
    "parameters should be on cpu": lambda: E.FOG()(problem, {n: p.to("meta") for n, p in params.items()}, noise),
    "chunk_size should be a whole number of at least 1, got -5": lambda: run(E.FOG(), chunk_size=-5),
    "chunk_size should be a whole number of at least 1, got 0 ": lambda: samples.per_sample(0),
    "chunk_size should be a whole number of at least 1, got -1": lambda: samples.moments(chunk_size=-1),
    "chunk_size should be a whole number of at least 1, got 2.0": lambda: gradlab.measure(E.FOG(), problem, params, 8, 0, chunk_size=2.0),
    "count should be a whole number": lambda: gradlab.measure(E.FOG(), problem, params, 8.5, 0),
    "estimator should be an estimator, got 'fog'": lambda: gradlab.measure("fog", problem, params, 8, 0),
    "estimator should be an estimator, got 3": lambda: gradlab.measure({"a": 3}, problem, params, 8, 0),
    "expected Moments, got Factored; try samples.moments()": lambda: gradlab.compare(samples, truth),
    "an OracleGradient, got dict": lambda: gradlab.compare(moments, samples.mean()),
    "an OracleGradient, got NoneType": lambda: gradlab.compare(moments, None),
    "batch should be a whole number": lambda: gradlab.compare(moments, truth, batch=2.5),
    "got 1 (int); try 2.0 * FOG()": lambda: E.FOG() + 1,
    "got 0 (int); try 2.0 * FOG()": lambda: sum([E.FOG(), E.PG()]),
    "got 1.5 (float); try 2.0 * FOG()": lambda: 1.5 - E.FOG(),
    "factor of an estimator should be one number, got FOG": lambda: E.FOG() * E.FOG(),
    "factor of an estimator should be one number, got '2'": lambda: "2" * E.FOG(),
    "should not be 0": lambda: E.FOG() / 0,
    "only samples can be added to samples": lambda: samples + 1,
    "is its `return` missing?": lambda: run(Silent()),
    "got None (NoneType); is its": lambda: run(Silent(engine="vmap")),
    "one number here, got None": lambda: run(Silent(engine="loop")),
    "Short.call_weights should be one number per policy call": lambda: run(Short()),
    "for target 'w'": lambda: gradlab.oracle.LargeSample(E.PG()).targets(problem, params, {"w": torch.ones(3)}),
    "got None (NoneType); try \\"pg\\"": lambda: E.make(None),
    "without a colon for the problem, got 3 (int)": lambda: gradlab.register(3, run),
    "function that builds it, got 3 (int)": lambda: gradlab.register("three", 3),
    "did you mean window?": lambda: E.make("nstep", windw=3),
    "did you mean source?": lambda: E.make("inverse_variance", sorce=E.Same()),
    "estimators, got FOG(engine='pullback', entropy=0.0) (FOG); try": lambda: E.Mixture(E.FOG(), E.PG()),
    "two parts, all of them estimators, got (FOG(": lambda: E.Mixture((E.FOG(), "pg"), IV),
    "all of them estimators, got (<class": lambda: E.Mixture((E.FOG, E.PG), IV),
    "rule should be a rule, got <function": lambda: E.Mixture(TWO, lambda parts, level: None),
    "level must be global, layer, parameter, step or output, got 'all'": lambda: E.Mixture(TWO, IV, "all"),
    "batches must be shared or separate, got 'own'": lambda: E.Mixture(TWO, IV, batches="own"),
    "Cross() or Independent(), got 'same' (str); try": lambda: E.Mixture(TWO, IV, source="same"),
}
bad = []
for wanted, attempt in CASES.items():
    try:
        attempt()
    except GradlabError as error:
        if wanted not in str(error) or "\\n" in str(error):
            bad.append(f"{wanted!r}: {error}")
    except Exception as error:
        bad.append(f"{wanted!r}: raw {type(error).__name__}: {error}")
    else:
        bad.append(f"{wanted!r}: accepted")
assert GaussianPolicy(3, 1, hidden=[64, 64]) == GaussianPolicy(3, 1, hidden=(64, 64))
assert type(gradlab.make("hovering", horizon=np.int64(3)).horizon) is int
print("\\n".join(bad))
raise SystemExit(bool(bad))
"""
from tests.helpers.forked import run_code


def test_every_wrong_argument_is_one_line_that_helps() -> None:
    done = run_code(PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_of_a_policy_are_those_of_its_problem() -> None:
    """`hidden` in `make`, a policy without sizes and the full form are the same problem."""
    for name in ("hovering", "ant", "gate"):
        short = gradlab.make(name, hidden=(16, 8))
        policy = short.policy
        assert policy.hidden == (16, 8)
        assert policy.observation_dim == short.task.observation_dim
        full = gradlab.make(name, policy=policy)
        assert full.policy == policy
        generator = torch.Generator().manual_seed(0)
        assert policy.init(generator)["layers.0.weight"].shape == (16, short.task.observation_dim)
    unsized = GaussianPolicy(hidden=(16, 8))
    assert gradlab.make("ant", policy=unsized) == gradlab.make("ant", hidden=(16, 8))
    assert gradlab.make("hovering").policy == GaussianPolicy(13, 4, hidden=(64, 64))
    assert gradlab.make("ant").policy.hidden == (256, 128, 64)


def test_an_action_one_rounding_outside_its_box_is_clipped() -> None:
    env = environments.ProblemEnv("hovering", max_episode_steps=3)
    env.reset(seed=0)
    outside = np.full(4, 1.0000001, dtype=np.float32)
    assert outside[0] > 1 and not env.action_space.contains(outside)
    first = env.step(outside)[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(first, env.step(np.ones(4, dtype=np.float32))[0])
    for action in (np.full(4, 1.00001), np.array([0.0, -1.001, 0.0, 0.0])):
        with pytest.raises(BadValue, match=r"lie in \[-1, 1\]"):
            env.step(action)
    batch = gymnasium.make_vec("gradlab/Hovering-v0", num_envs=2, hidden=(8,))
    batch.reset(seed=0)
    batch.step(np.full((2, 4), -1.0000001, dtype=np.float32))
    batch.close()


def test_the_version_is_one_number() -> None:
    assert gradlab.__version__.count(".") == 2


def test_a_gpu_beyond_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything runs, by a problem and by a study."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    Placement("cuda:1").check()
    with pytest.raises(Unavailable, match="'cuda:2' is not one of the 2 GPUs here"):
        check_device("cuda:2")
    with pytest.raises(Unavailable, match="--device cuda:2, and torch finds 2; try --device cuda"):
        Placement("cuda:2").check()
