"""Gymnasium environments: returns are the problem's own, gymnasium's checker,
resets, seeds, errors.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

import gradlab
from gradlab.environments import (
    ProblemEnv,
    ProblemVectorEnv,
    environment_id,
    register_environments,
)
from gradlab.foundation.errors import BadShape, BadValue, GradlabError, NotFinite, UnknownName
from gradlab.problems import known_answers, registry, runners
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, evaluate_step, moment_at
from gradlab.rollouts.rollout import Trajectory
from tests.helpers.flights import TASKS, flight_problem
from tests.helpers.toy import toy_params, toy_problem

COUNT = 16
# Nothing bounds an observation, nor the action of a policy that does not squash; gymnasium's own
# MuJoCo environments have the same unbounded boxes. A large finite bound would be worse: wrappers
# that rescale by it would divide everything by 10^38 in silence.
UNBOUNDED = ("observation space minimum", "observation space maximum")
UNSQUASHED = (
    *UNBOUNDED,
    "action space minimum",
    "action space maximum",
    "symmetric and normalized",
)
EVENTFUL = [*(f"near-{name}" for name in TASKS), "toy", "toy-switching"]
ONE_STEP = [name for name in known_answers.PRESETS if known_answers.preset(name).horizon == 1]


def played(name: str) -> tuple[Problem, Trajectory, gradlab.Noise]:
    """A problem in float64, and a rollout of it whose events happen."""
    if name.startswith("near-"):
        problem, params = flight_problem(name.removeprefix("near-"), horizon=40)
    elif name.startswith("toy"):
        problem = toy_problem(switching=name == "toy-switching")
        params = toy_params(problem)
    else:
        problem = gradlab.make(name, dtype=torch.float64, **short(name))
        params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(COUNT, torch.Generator().manual_seed(5))
    return problem, gradlab.rollout(problem, problem.bind(params), noise), noise


def short(name: str) -> dict[str, int]:
    """Few steps, for problems that do not depend on their number."""
    if name in runners.RUNNERS:
        return {"horizon": 2}
    return {} if name in known_answers.PRESETS else {"horizon": 6}


def arrays(values: torch.Tensor) -> NDArray:
    return values.detach().numpy()


@pytest.mark.parametrize("name", [*registry.names(), *EVENTFUL])
def test_returns_are_those_of_the_problem(name: str) -> None:
    """Same actions and noise: rewards until the end, discounted,
    are γ^t alive_t r_t, step by step.
    """
    problem, path, noise = played(name)
    expected = evaluate(problem, path)
    env = ProblemVectorEnv(problem, COUNT)
    obs, _ = env.reset(options={"noise": noise})
    playing = np.ones(COUNT, dtype=bool)
    for t in range(problem.horizon):
        np.testing.assert_allclose(obs[playing], arrays(path.obs)[playing, t], rtol=1e-6, atol=1e-6)
        obs, reward, terminated, truncated, info = env.step(arrays(path.action)[:, t])
        value = np.where(playing, problem.discount**t * reward, 0.0)
        np.testing.assert_allclose(value, arrays(expected.value)[:, t], rtol=0, atol=1e-12)
        if playing.any():
            parts = [x for key in ("reward_terms", "bonuses") for x in visible(info[key]).values()]
            total = np.sum(parts, axis=0) if parts else np.zeros(COUNT)
            np.testing.assert_allclose(total[playing], reward[playing], rtol=0, atol=1e-12)
        over = 1 - arrays(expected.alive)[:, t + 1]
        assert (terminated[playing] == over[playing].astype(bool)).all()
        assert (truncated[playing] == (t + 1 == problem.horizon)).all()
        playing &= ~(terminated | truncated)
    assert not playing.any()
    if name in EVENTFUL:
        assert (expected.events[:, -1] > 0).any()  # it is about events


def visible(info: dict[str, NDArray]) -> dict[str, NDArray]:
    """Without the masks."""
    return {name: values for name, values in info.items() if not name.startswith("_")}


@pytest.mark.parametrize("width", [None, 0.3])
@pytest.mark.parametrize("switching", [False, True])
def test_steps_earn_what_the_trajectory_earns(switching: bool, width: float | None) -> None:
    """`evaluate_step` over time, each episode at a time of its own, is `evaluate`."""
    problem = toy_problem(switching=switching)
    path = gradlab.rollout(
        problem,
        problem.bind(toy_params(problem)),
        problem.draw(32, torch.Generator().manual_seed(3)),
    ).detach()
    problem = problem if width is None else problem.relaxed(width)
    expected = evaluate(problem, path)
    now = moment_at(path, expected, 0)
    for t in range(problem.horizon):
        now = now._replace(state=path.before[:, t], memory=path.memory[:, t])
        step = path.action[:, t], path.state[:, t + 1], path.process[:, t]
        earned = evaluate_step(problem, now, *step)
        now = earned.end
        torch.testing.assert_close(earned.reward, expected.reward[:, t], rtol=0, atol=1e-12)
        if width is None:
            assert torch.equal(~earned.terminated, expected.alive[:, t + 1] > 0)


@pytest.mark.parametrize("name", registry.names())
def test_gymnasium_finds_nothing_wrong(name: str) -> None:
    """The checker, with no warning but those on unbounded spaces."""
    # a single step cannot be checked for determinism: "Environment truncates after 1 step"
    options = {"max_episode_steps": 2} if name in ONE_STEP else {}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        spec = gymnasium.spec(environment_id(name))
        env = ProblemEnv(
            name, render_mode="rgb_array", renderer="figure", width=96, height=96, **options
        )
        check_env(env, skip_render_check=True)
        frame = gymnasium.utils.passive_env_checker.env_render_passive_checker(env)
    assert spec.vector_entry_point is not None
    assert isinstance(frame, np.ndarray) and frame.shape == (96, 96, 3)
    allowed = UNBOUNDED if env.problem.policy.squash else UNSQUASHED
    messages = [str(w.message) for w in found]
    messages = [m for m in messages if "alternative render modes" not in m]  # it has no spec here
    assert all(any(part in m for part in allowed) for m in messages), messages
    env.close()


def test_make_and_the_checker_with_every_render_mode() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made = gymnasium.make("gradlab/Gate-v0", render_mode="rgb_array", width=64, height=64)
        check_env(made.unwrapped)
    assert all(any(part in str(w.message) for part in UNSQUASHED) for w in found)
    env = gymnasium.make("gradlab/Racing-v0", gates=4, horizon=8)
    assert env.unwrapped.problem.task.gates == 4
    assert env.unwrapped.metadata["render_fps"] == 50
    _, info = env.reset(seed=1)
    assert info == {}
    obs, reward, terminated, truncated, info = env.step(np.zeros(4, dtype=np.float32))
    assert obs.dtype == np.float32 and isinstance(reward, float) and not terminated
    assert not truncated and set(info) == {"reward_terms", "bonuses", "events"}
    assert info["events"] == {"passed": False, "collision": False}
    assert reward == pytest.approx(sum(info["reward_terms"].values()))
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (4,), np.float32)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", ["near-landing", "toy"])
def test_a_batch_is_many_single_environments(name: str, mode: str) -> None:
    """Gymnasium's own loop over single environments is the twin:
    all results, over several episodes.
    """
    problem = played(name)[0].replace(horizon=7)
    batch = ProblemVectorEnv(problem, 4, autoreset_mode=mode)
    loop = SyncVectorEnv([lambda: ProblemEnv(problem)] * 4, autoreset_mode=AutoresetMode(mode))
    assert batch.metadata["autoreset_mode"] is loop.metadata["autoreset_mode"]
    same(batch.reset(seed=3), loop.reset(seed=3))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(20):
        actions = rng.uniform(-1, 1, size=(4, problem.simulator.action_dim))
        ours, theirs = batch.step(actions.astype(np.float32)), loop.step(actions.astype(np.float32))
        same(ours, theirs)
        ends += int((ours[2] | ours[3]).sum())
    assert ends > 4
    loop.close()


def same(ours: object, theirs: object) -> None:
    """Equal up to rounding, all the way down."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert set(ours) == set(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        same(list(ours), list(theirs))
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    else:
        assert ours == theirs


def test_masked_resets() -> None:
    env = ProblemVectorEnv("hovering", 3, autoreset_mode="Disabled", horizon=2)
    env.reset(seed=0)
    still = np.zeros((3, 4), dtype=np.float32)
    env.step(still)
    mask = np.array([False, True, False])
    before = env.step(still)[0]
    with pytest.raises(BadValue, match=r"\[0, 1, 2\] are over"):
        env.step(still)
    after, _ = env.reset(options={"reset_mask": mask})
    assert (before[[0, 2]] == after[[0, 2]]).all() and (before[1] != after[1]).any()
    with pytest.raises(BadValue, match=r"\[0, 2\] are over"):
        env.step(still)


def test_episodes_follow_from_the_seed() -> None:
    """Environment i runs `problem.draw(1, generator("environment", seed + i))`,
    whatever the others do.
    """
    first, second = (ProblemVectorEnv("lq", n) for n in (3, 2))
    runs = []
    for env, seed in ((first, 4), (second, 5), (first, 4)):
        observations = [env.reset(seed=seed)[0]]
        for _ in range(8):
            observations.append(env.step(np.full((env.num_envs, 2), 0.1))[0])
        runs.append(np.stack(observations))
    assert (runs[0] == runs[2]).all()
    np.testing.assert_allclose(runs[0][:, 1:], runs[1], rtol=1e-6)
    assert (runs[0][:, 0] != runs[0][:, 1]).any()
    drawn = first.problem.draw(1, gradlab.generator("environment", 4))
    start = arrays(first.problem.start(drawn)[0])
    assert (first.reset(seed=4)[0][0] == start[0]).all()
    # seeds apart, and none at all
    assert (first.reset(seed=[4, 9, 4])[0][0] == start[0]).all()
    assert (first.reset()[0] != first.reset()[0]).any()
    one, other = ProblemEnv("lq"), ProblemEnv("lq")
    assert (one.reset()[0] != other.reset()[0]).any()


def test_rows_do_not_see_each_other() -> None:
    env = ProblemVectorEnv("racing", 4)
    results = []
    for nudge in (0.0, 0.5):
        env.reset(seed=2)
        action = np.zeros((4, 4), dtype=np.float32)
        action[1] = nudge
        results.append(env.step(action)[0])
    same_rows = (results[0] == results[1]).all(-1)
    assert same_rows.tolist() == [True, False, True, True]


def test_longer_than_the_horizon() -> None:
    env = ProblemVectorEnv("hovering", 2, max_episode_steps=70, horizon=8)
    env.reset(seed=0)
    hover = np.zeros((2, 4), dtype=np.float32)
    ends = [env.step(hover)[3].any() for _ in range(70)]
    assert ends == [False] * 69 + [True]
    made = gymnasium.make_vec("gradlab/Hovering-v0", num_envs=2, max_episode_steps=3)
    assert made.problem.horizon == 3 and made.num_envs == 2
    assert made.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_what_was_handed_out_stays() -> None:
    env = ProblemVectorEnv("gate", 2)
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    obs_1, *_, info = env.step(np.zeros((2, 1)))
    mask = info["_events"].copy()
    env.step(np.ones((2, 1)))
    env.reset(seed=1)
    assert (obs == kept).all() and (info["_events"] == mask).all() and obs_1 is not obs


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The python blocks of docs/environments.md, in order."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = (Path(__file__).parents[3] / "docs/environments.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    exec(compile(code, "environments.md", "exec", dont_inherit=True), {"__name__": "page"})  # noqa: S102
    assert {path.suffix for path in tmp_path.rglob("*.*") if path.is_file()} == {".png", ".gif"}


def test_registered_once_for_every_name() -> None:
    register_environments()  # a second time: no warning, nothing new
    assert environment_id("half_cheetah") == "gradlab/HalfCheetah-v0"
    for name in registry.names():
        assert gymnasium.spec(environment_id(name)).kwargs == {"problem": name}


def test_what_an_import_does_without() -> None:
    """Half a second to two seconds each, in every command and every worker."""
    program = """
import importlib, sys, gradlab, estimators, gradlab.rollouts.stepping, studies.__main__
print(sorted({'gymnasium', 'mujoco', 'matplotlib', 'PIL'} & set(sys.modules)))
for name in studies.__main__.studies():
    importlib.import_module(f'studies.{name}')
print(sorted({'matplotlib', 'seaborn', 'scipy.stats', 'scipy.optimize'} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "[]", ""], done.stdout + done.stderr


def _env(**options: object) -> ProblemVectorEnv:
    env = ProblemVectorEnv("hovering", 2, **options)
    env.reset(seed=0)
    return env


def _diverging() -> object:
    env = ProblemVectorEnv("lq", 1, max_episode_steps=200)
    env.reset(seed=0)
    return [env.step(np.full((1, 2), 3e38)) for _ in range(3)]


ERRORS: dict[str, tuple[type[GradlabError], str, Callable[[], object]]] = {
    "name": (UnknownName, "did you mean.*hovering", lambda: ProblemEnv("hoverin")),
    "option": (UnknownName, "did you mean.*gates", lambda: ProblemEnv("racing", gate=4)),
    "options": (BadValue, "gates.*by name", lambda: ProblemEnv(gradlab.make("racing"), gates=4)),
    "relaxed": (BadValue, "relaxed", lambda: ProblemEnv(gradlab.make("gate").relaxed(0.1))),
    "steps": (BadValue, "at least 1, got 0", lambda: ProblemEnv("gate", max_episode_steps=0)),
    "count": (BadValue, "num_envs of at least 1", lambda: ProblemVectorEnv("gate", 0)),
    "mode": (UnknownName, "NextStep", lambda: ProblemVectorEnv("gate", autoreset_mode="next")),
    "render": (UnknownName, "rgb_array", lambda: ProblemEnv("gate", render_mode="rgb")),
    "renderer": (
        UnknownName,
        "figure",
        lambda: ProblemEnv("gate", render_mode="rgb_array", renderer="figur"),
    ),
    "early": (BadValue, "call env.reset", lambda: ProblemVectorEnv("gate").step(np.zeros((1, 1)))),
    "shape": (BadShape, r"\[2, 4\].*got \[4\]", lambda: _env().step(np.zeros(4))),
    "shape-one": (BadShape, r"\[1\].*got \[2\]", lambda: ProblemEnv("gate").step(np.zeros(2))),
    "range": (BadValue, "ClipAction", lambda: _env().step(np.full((2, 4), 1.5))),
    "nan": (BadValue, "got nan", lambda: _env().step(np.full((2, 4), np.nan))),
    "diverging": (NotFinite, "environment 0 is not finite", _diverging),
    "seed": (BadValue, "list of 2", lambda: _env().reset(seed=[1])),
    "seed-negative": (BadValue, "int >= 0", lambda: ProblemEnv("gate").reset(seed=-1)),
    "reset-option": (UnknownName, "reset_mask", lambda: _env().reset(options={"mask": 1})),
    "mask": (BadShape, "bool", lambda: _env().reset(options={"reset_mask": np.ones(2)})),
    "noise": (
        BadShape,
        "2 episodes",
        lambda: _env().reset(
            options={"noise": gradlab.make("hovering").draw(1, torch.Generator().manual_seed(0))}
        ),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_user_errors_are_one_line_that_helps(name: str) -> None:
    kind, pattern, attempt = ERRORS[name]
    with pytest.raises(kind, match=pattern) as caught:
        attempt()
    assert "\n" not in str(caught.value)
