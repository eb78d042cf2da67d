"""Frames: sizes, contents that change with the state, files, fallbacks, and no global state."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gradlab
from gradlab import rendering
from gradlab.environments import ProblemEnv, ProblemVectorEnv
from gradlab.foundation.errors import (
    BadShape,
    BadValue,
    GradlabError,
    NotFinite,
    Unavailable,
    UnknownName,
)
from gradlab.problems import known_answers, runners
from gradlab.problems.problem import Problem
from gradlab.rendering.pictures import capsules
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import Trajectory
from gradlab.simulators.point_mass import PointMass
from tests.helpers.toy import Swing

SIZE = (160, 120)
MODEL = """
<mujoco><worldbody><geom type="plane" size="1 1 1"/><light pos="0 0 3"/>
<body pos="0 0 1"><joint name="a" axis="0 1 0"/>
<geom type="capsule" fromto="0 0 0 0.6 0 0" size="0.08"/></body></worldbody></mujoco>
"""


@dataclass(frozen=True)
class Rod:
    """A rod on a hinge, state (angle, rate), with everything a renderer may ask for."""

    state_dim: int = 2
    action_dim: int = 1
    noise_dim: int = 1
    dt: float = 0.1

    def start(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        rate = state[..., 1:] + 0.5 * action
        return torch.cat([state[..., :1] + rate, rate], dim=-1)

    def shapes(self, state: Tensor) -> tuple[Tensor, Tensor]:
        angle = state[..., 0]
        near = torch.stack([torch.zeros_like(angle), torch.zeros_like(angle), 1 + 0 * angle], -1)
        way = torch.stack([angle.cos(), torch.zeros_like(angle), -angle.sin()], -1)
        return torch.stack([near, near + 0.6 * way], -2).unsqueeze(-3), angle.new_tensor([0.08])

    def mjcf_model(self) -> object:
        import mujoco

        return mujoco.MjModel.from_xml_string(MODEL)


def rod() -> Problem:
    policy = gradlab.GaussianPolicy(observation_dim=3, action_dim=1, hidden=())
    return Problem("rod", Rod(), Swing(), policy, horizon=8)


def walk(problem: Problem, count: int = 2) -> Trajectory:
    """A rollout of an untrained policy."""
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(count, torch.Generator().manual_seed(1))
    return gradlab.rollout(problem, problem.bind(params), noise)


@pytest.mark.parametrize("name", [*gradlab.names(), "course", "rod"])
def test_every_problem_has_frames(name: str) -> None:
    before = dict(mpl.rcParams)
    problem = rod() if name == "rod" else _made(name)
    path = walk(problem)
    drawn = rendering.frames(problem, path, 1, every=100, size=SIZE, renderer="figure", beyond=True)
    assert drawn.shape == (2, 120, 160, 3) and drawn.dtype == np.uint8
    assert (drawn[0] != drawn[1]).any()
    assert (drawn == 255).mean() > 0.2 and drawn.std() > 5  # a picture on white
    assert dict(mpl.rcParams) == before
    again = rendering.frames(problem, path, 1, every=100, size=SIZE, renderer="figure", beyond=True)
    assert (drawn == again).all()


def _made(name: str) -> Problem:
    if name == "course":
        return gradlab.make("racing", gates=4, horizon=5)
    if name in known_answers.PRESETS:
        return gradlab.make(name)
    return gradlab.make(name, horizon=2 if name in runners.RUNNERS else 5)


def test_a_clip_ends_with_its_episode() -> None:
    problem = gradlab.make("landing", horizon=60)
    path = walk(problem, 8)
    alive = evaluate(problem, path).alive
    steps = alive[:, :-1].sum(-1).int()
    episode = int(steps.argmin())
    assert steps[episode] < 60  # it hits the ground
    clip = rendering.frames(problem, path, episode, every=20, size=SIZE, renderer="figure")
    assert len(clip) == len({*range(0, int(steps[episode]) + 1, 20), int(steps[episode])})


def test_pictures_say_what_they_show() -> None:
    for problem, units in ((gradlab.make("racing", horizon=3), 3), (gradlab.make("lq"), 2)):
        states = walk(problem).state[0].double().numpy()
        shown = rendering.picture(problem, rendering.Snapshot(states, np.zeros(0)))
        assert len(shown.axes) == units and all("[m]" in name for name in shown.axes)
        assert (shown.low < shown.high).all() and shown.equal
        points = np.concatenate([line.points for line in shown.lines])
        assert (points >= shown.low - 1e-9).all() and (points <= shown.high + 1e-9).all()
        assert any(line.label for line in shown.lines)  # the landmark
    assert (
        "racing, t = 0.06 s"
        == rendering.picture(
            gradlab.make("racing"), rendering.Snapshot(np.eye(1, 13, 3).repeat(4, 0), np.zeros(0))
        ).title
    )


def test_capsules_lie_on_their_surface() -> None:
    ends = np.array([[[0.0, 0, 0], [1.0, 2, 2]], [[1.0, 1, 1], [1.0, 1, 1]]])
    radii = np.array([0.5, 0.2])
    faces = capsules(ends, radii).reshape(2, -1, 3)
    for points, (start, end), radius in zip(faces, ends, radii, strict=True):
        way = end - start
        along = (points - start) @ way / max(way @ way, 1e-12)
        nearest = start + np.clip(along, 0, 1)[:, None] * way
        np.testing.assert_allclose(np.linalg.norm(points - nearest, axis=-1), radius, atol=1e-12)
        quads = points.reshape(-1, 4, 3)
        normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        assert (np.sum(normal * (quads.mean(1) - (start + end) / 2), -1) > -1e-12).all()  # outward


def test_environments_render() -> None:
    env = ProblemVectorEnv("hovering", 2, render_mode="rgb_array", width=160, height=120)
    env.reset(seed=0)
    first = env.render()
    env.step(np.ones((2, 4), dtype=np.float32))
    second = env.render()
    assert first is not None and second is not None
    assert [f.shape for f in first] == [(120, 160, 3)] * 2
    assert (first[0] != second[0]).any() and (first[0] != first[1]).any()
    assert ProblemEnv("hovering").render() is None
    env.close()


def test_files(tmp_path: Path) -> None:
    problem = gradlab.make("gate")
    clip = rendering.frames(problem, walk(problem), size=SIZE)
    png = rendering.save_png(tmp_path / "new" / "a.png", clip[-1])
    with Image.open(png) as image:
        assert (np.asarray(image) == clip[-1]).all()
    with Image.open(rendering.save_gif(tmp_path / "a.gif", clip, rate=20)) as gif:
        assert gif.n_frames == len(clip) and gif.size == SIZE
        assert gif.info["duration"] == 50 and gif.info["loop"] == 0
    assert rendering.frames_per_second(gradlab.make("hovering")) == 50
    assert rendering.frames_per_second(problem) == 10


def test_landmarks_of_a_new_task() -> None:
    mark = rendering.Line(np.array([[0.0, 0.0, 2.0]]), marker="o", label="here")

    class Marked(Swing):
        pass

    @rendering.scenery.register(Marked)
    def _(task: Swing, now: rendering.Snapshot) -> tuple[rendering.Line, ...]:
        return (mark,)

    problem = rod().replace(task=Marked())
    shown = rendering.picture(problem, rendering.Snapshot(np.zeros((2, 2)), np.zeros(0)))
    assert mark in shown.lines


DRAW = """
import sys, warnings
import numpy as np
warnings.simplefilter("error")
from gradlab.foundation.errors import Unavailable
from gradlab.rendering.mujoco_frames import MujocoRenderer
import mujoco
model = mujoco.MjModel.from_xml_string(sys.argv[1])
try:
    renderer = MujocoRenderer(model, (700, 500))
except Unavailable as error:
    print(error)
else:
    a, b = (renderer.frame(np.array([angle, 0.0])) for angle in (0.3, 1.0))
    assert a.shape == (500, 700, 3) and a.dtype == np.uint8 and (a != b).any() and a.std() > 5
    assert model.vis.global_.offwidth < 700  # the model was not written to
    renderer.close()
    print("drawn")
"""


def test_mujoco_draws_or_says_why_not(tmp_path: Path) -> None:
    """Apart: MuJoCo chooses its backend once in a process."""
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "MUJOCO_GL": "egl"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, MODEL],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip()
    assert said == "drawn" or ("MUJOCO_GL=egl" in said and "\n" not in said)
    assert list(tmp_path.iterdir()) == []  # no log file


@pytest.mark.parametrize("cause", ["no display", "no package"])
def test_a_clear_word_and_the_fallback_where_mujoco_cannot_draw(
    cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Rod, "mjcf_model", lambda self: None)
    if cause == "no package":
        monkeypatch.setenv("MUJOCO_GL", "egl")
        monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(Unavailable, match="MUJOCO_GL=egl") as caught:
        rendering.FilmStrip(rod(), 1, SIZE, "mujoco")
    assert "\n" not in str(caught.value)
    strip = rendering.FilmStrip(rod(), 1, SIZE, "auto")
    strip.begin(np.zeros((1, 2)), np.zeros((1, 0)), [0])
    assert strip.renderer == "figure" and strip.frame().shape == (120, 160, 3)


def test_user_errors_are_one_line_that_helps(tmp_path: Path) -> None:
    problem = gradlab.make("gate")
    path, film = walk(problem), rendering.FilmStrip
    broken = film(problem, 1, SIZE)
    broken.append(np.array([[np.nan]]), np.zeros((1, 0)), [0])
    frame = np.zeros((4, 4, 3), dtype=np.uint8)
    cases: list[tuple[type[GradlabError], str, object]] = [
        (UnknownName, "figure", lambda: film(problem, 1, SIZE, "figur")),
        (BadValue, "64 x 64", lambda: film(problem, 1, (10, 10))),
        (BadValue, "call reset first", lambda: film(problem, 1, SIZE).frame()),
        (NotFinite, "step 0 is not finite", broken.frame),
        (Unavailable, "no MuJoCo model", lambda: film(problem, 1, SIZE, "mujoco")),
        (BadShape, "episodes 0..1, got 2", lambda: rendering.frames(problem, path, 2)),
        (BadValue, "got 0", lambda: rendering.frames(problem, path, every=0)),
        (BadShape, "uint8", lambda: rendering.save_png(tmp_path / "a.png", frame / 255)),
        (BadShape, r"\[n, height", lambda: rendering.save_gif(tmp_path / "a.gif", frame)),
        (BadValue, "got 0", lambda: rendering.save_gif(tmp_path / "a.gif", frame[None], 0)),
    ]
    for kind, pattern, attempt in cases:
        with pytest.raises(kind, match=pattern) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_plane_point_is_drawn_where_it_is() -> None:
    """The dot of the point mass moves right by as many pixels as the axes say."""
    problem = gradlab.make("lq")
    assert isinstance(problem.simulator, PointMass)
    whole = np.array([[-0.5, -0.5, 0, 0], [0.5, 0.5, 0, 0]], dtype=float)
    middles = []
    for end in whole:
        states = np.stack([end, end])
        now = rendering.Snapshot(states, np.zeros(0))
        shown = rendering.picture(problem, now, whole)
        only = shown._replace(lines=shown.lines[-1:])
        from gradlab.rendering.figures import draw

        empty = draw(shown._replace(lines=()), (400, 300)).astype(int)
        rows, columns = np.nonzero((draw(only, (400, 300)).astype(int) != empty).any(-1))
        middles.append((columns.mean(), rows.mean()))
    right, up = middles[1][0] - middles[0][0], middles[0][1] - middles[1][1]
    assert right > 50 and up == pytest.approx(right, abs=1.5)  # equal aspect
