"""What every registered estimator and every registered problem must satisfy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.errors import BadShape, BadValue, GradlabError, Missing, UnknownName
from gradlab.foundation.noise import Noise
from gradlab.oracle import closed_forms
from gradlab.problems import known_answers, registry, runners
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from tests.helpers.forked import run_code
from tests.helpers.toy import toy_params, toy_problem

COUNT = 8
NEEDS_CRITIC = {"qg", "zero_step", "lambda_return", "abpt", "agpo", "inverse_variance_qg_pg"}
GROUPED = (
    "agpo", "inverse_variance", "inverse_variance_qg_pg", "total_propagation", "action_mixture",
    "alpha_order", "best_linear",
)  # fmt: skip
SMALL = {name: {"source": E.Cross(4)} for name in GROUPED}
SMALL["switch"] = {"source": E.Same(COUNT)}
THIRDS = E.Weights("global", {"": torch.full((1, 3), 1 / 3, dtype=torch.float64)})
FORMS: dict[str, Estimator] = {
    "pg-loo": E.PG(baseline="loo", group_size=4),
    "nstep-tiled": E.NStep(1, "tiled"),
    "truncated-growth": E.TruncatedBPTT(E.JacobianGrowth(0.9)),
    "agpo-tiled": E.AGPO(1, starts="tiled", source=E.Same(4)),
    "sum": E.FOG() + 2.0 * E.PG(baseline="loo", group_size=2),
    "difference": E.FOG() - E.PG() / 2.0,
    "mixture-3": E.Mixture((E.FOG(), E.PG(), E.QG()), E.InverseVariance(), "layer", E.Cross(4)),
    "mixture-pilot": E.Mixture(
        (E.FOG(), E.PG(), E.QG()), E.InverseVariance(), "parameter", E.Independent(size=4)
    ),
    "total-propagation-pilot": E.TotalPropagation(
        per_coordinate=True, every=2, source=E.Independent(size=4)
    ),
    "mixture-fixed": E.FixedMixture((E.FOG(), E.PG(), E.QG()), THIRDS),
    "mixture-separate": E.Mixture(
        (E.FOG(), E.QG()), E.BestLinear(), source=E.Same(4), batches="separate"
    ),
    "mixture-bias": E.Mixture(
        (E.FOG(), E.PG(), E.QG()),
        E.BestLinear(nonnegative=True, unbiased=1),
        "layer",
        E.Same(8),
    ),
}


def registered() -> dict[str, Estimator]:
    """Every registered name, and forms whose paths differ."""
    return {name: E.make(name, **SMALL.get(name, {})) for name in E.names()} | FORMS


Posed = tuple[Problem, dict[str, Tensor]]


@pytest.fixture(autouse=True, params=[torch.float32, torch.float64], ids=["default32", "default64"])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[None]:
    """The whole suite under either default dtype: no constant may take its dtype from there."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


def posed(name: str, dtype: torch.dtype = torch.float64) -> Posed:
    """A problem with a critic, and parameters; made under the default dtype of now."""
    return _posed(name, dtype, torch.get_default_dtype())


@functools.cache
def _posed(name: str, dtype: torch.dtype, default: torch.dtype) -> Posed:
    if name.startswith("toy"):
        problem = toy_problem(switching=name == "toy-switching", dtype=dtype)
        return problem, toy_params(problem)
    if name in known_answers.PRESETS:
        problem = gradlab.make(name, dtype=dtype)
        params = problem.reference
        return problem.replace(critic=closed_forms.solve(problem, params).critic), params
    problem = gradlab.make(name, horizon=4, dtype=dtype, critic=toy_problem().critic)
    return problem, problem.init(torch.Generator().manual_seed(0))


PROBLEMS = ["toy", "toy-switching", "lq", "gate", "heaviside", "racing"]


# Where both dtypes are the same nothing is seen that is not seen where they differ, so that all but
# two problems are slow there.
DTYPES = {
    "32-32": (torch.float32, torch.float32),
    "32-64": (torch.float32, torch.float64),
    "64-32": (torch.float64, torch.float32),
}
AGAIN = {("32-32", name) for name in PROBLEMS if name not in ("toy", "racing")}


@pytest.mark.parametrize(
    ("problem_name", "default_dtype", "dtype"),
    [
        pytest.param(
            name, *DTYPES[dtypes], id=f"{name}-{dtypes}",
            marks=pytest.mark.slow if (dtypes, name) in AGAIN else (),
        )
        for name in PROBLEMS
        for dtypes in DTYPES
    ],
    indirect=["default_dtype"],
)  # fmt: skip
@pytest.mark.parametrize("name", registered())
def test_samples_have_the_right_form_and_nothing_else_changes(
    name: str, problem_name: str, dtype: torch.dtype
) -> None:
    estimator = registered()[name]
    problem, params = posed(problem_name, dtype)
    noise = problem.draw(COUNT, torch.Generator().manual_seed(1))
    before = {k: v.clone() for k, v in params.items()}, Noise(*(part.clone() for part in noise))
    rng = torch.get_rng_state()
    estimator.check(problem)
    samples = estimator(problem, params, noise)
    assert len(samples) == COUNT
    rows = samples.per_sample()
    assert set(rows) == set(params)
    for leaf, value in params.items():
        assert rows[leaf].shape == (COUNT, *value.shape)
        assert rows[leaf].dtype == dtype
        assert not rows[leaf].requires_grad
        assert torch.isfinite(rows[leaf]).all()
        assert torch.equal(value, before[0][leaf]) and value.grad is None
    assert all(torch.equal(a, b) for a, b in zip(noise, before[1], strict=True))
    assert torch.equal(rng, torch.get_rng_state())
    again = estimator(problem, params, noise).per_sample()
    assert all(torch.equal(rows[leaf], again[leaf]) for leaf in rows)

    weights = estimator.call_weights(problem)
    assert weights.shape == (problem.horizon,) and torch.isfinite(weights).all()
    cost = estimator.cost(problem)
    assert cost.environment_steps > 0 and cost.backward_passes >= 0
    assert estimator.label and "\n" not in estimator.label
    moments = samples.moments()
    assert moments.group == estimator.group
    assert moments.count == COUNT // estimator.group
    assert all(x.dtype == torch.float64 for x in moments.mean.values())


NEED_VALUES = {
    "evolution_strategies": "the seeds of its directions",
    "inverse_variance": "weights from samples",
    "inverse_variance_qg_pg": "weights from samples",
    "action_mixture": "weights from samples",
    "alpha_order": "weights from samples",
    "best_linear": "weights from samples",
    "mixture-separate": "weights from samples",
    "mixture-bias": "weights from samples",
    "mixture-3": "weights from samples",
    "switch": "whether both parts saw the same observations",
    "mixture-pilot": "weights from samples",
    "mixture-fixed": "whether all parts saw the same observations",
    "sum": "whether both parts saw the same observations",
    "difference": "whether both parts saw the same observations",
}


@pytest.mark.parametrize("default_dtype", [torch.float32], indirect=True)
@pytest.mark.parametrize("problem_name", ["toy", "lq", "gate", "racing"])
@pytest.mark.parametrize("name", [n for n in registered() if n not in NEED_VALUES])
def test_everything_stays_on_the_problems_device(name: str, problem_name: str) -> None:
    """On a device without values: a constant from another device, or a look at a number, raises."""
    meta = torch.device("meta")
    problem, params = posed(problem_name, torch.float32)
    few = problem.draw(COUNT, torch.Generator().manual_seed(1))
    registered()[name](problem, params, few)  # the first call looks whether samples are independent
    problem = problem.replace(device=meta)
    noise = problem.draw(COUNT, torch.Generator().manual_seed(1))
    assert all(part.device == meta for part in noise)
    params = {leaf: value.to(meta) for leaf, value in params.items()}
    rows = registered()[name](problem, params, noise).per_sample()
    for leaf, value in params.items():
        assert rows[leaf].device == meta and rows[leaf].shape == (COUNT, *value.shape)


@pytest.mark.parametrize("name", E.names())
def test_requirements_are_honest(name: str) -> None:
    """Without a critic either `check` and the call both raise `Missing`, or neither does."""
    problem, params = posed("lq")
    bare = problem.replace(critic=None)
    noise = bare.draw(COUNT, torch.Generator().manual_seed(1))
    estimator = registered()[name]
    if name not in NEEDS_CRITIC:
        estimator.check(bare)
        estimator(bare, params, noise)
        return
    for attempt in (lambda: estimator.check(bare), lambda: estimator(bare, params, noise)):
        with pytest.raises(Missing, match="critic") as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "missing"),
    [
        (E.PG(baseline="v"), "v"),
        (E.PG(returns="gae"), "v"),
        (E.NStep(2, tail="v"), "v"),
        (E.LambdaReturn(0.5, tail="v"), "v"),
        (E.PG(baseline="q"), "q"),
        (E.NStep(2), "q"),
        (E.LambdaReturn(0.5), "q"),
        (E.ABPT(2), "q"),
        (E.QG() + E.FOG(), "q"),
    ],
    ids=lambda x: getattr(x, "label", x),
)
def test_half_a_critic_is_missed_by_name(estimator: Estimator, missing: str) -> None:
    problem, params = posed("lq")
    q, v = problem.require_q("this test"), problem.require_v("this test")
    half = Critic(v=v) if missing == "q" else Critic(q=q)
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    with pytest.raises(Missing, match=f"needs a {missing.upper()} critic"):
        estimator(problem.replace(critic=half), params, noise)
    estimator.check(problem)


@pytest.mark.parametrize("name", E.names())
def test_docstrings_say_what_one_must_know(name: str) -> None:
    doc = type(registered()[name]).__doc__ or ""
    places = [
        doc.find(f"\n    {section}:")
        for section in ("Estimates", "Requires", "Unbiased when", "Cost", "Reference")
    ]
    assert min(places) > 0, f"{name} lacks a section"
    assert places == sorted(places)


@pytest.mark.parametrize("name", [n for n, e in registered().items() if e.group > 1])
def test_groups_are_honoured(name: str) -> None:
    """Whole groups only, and chunks are made of them."""
    problem, params = posed("toy")
    estimator = registered()[name]
    noise = problem.draw(3 * estimator.group, torch.Generator().manual_seed(1))
    whole = estimator(problem, params, noise).per_sample()
    parts = estimator(problem, params, noise, chunk_size=estimator.group + 1).per_sample()
    for leaf in whole:
        torch.testing.assert_close(whole[leaf], parts[leaf], rtol=1e-10, atol=1e-12)
    with pytest.raises(BadValue, match=f"groups of {estimator.group}"):
        estimator(problem, params, noise.rows(0, estimator.group + 1))


def _toy() -> Posed:
    return posed("toy")


def _noise(problem: Problem, count: int = 8) -> Noise:
    return problem.draw(count, torch.Generator().manual_seed(1))


def _run(estimator: Estimator, **changes: object) -> object:
    problem, params = _toy()
    return estimator(problem.replace(**changes), params, _noise(problem))


def _wrong_noise() -> object:
    problem, params = _toy()
    return E.FOG()(problem, params, _noise(problem.replace(horizon=7)))


def _wrong_initial() -> object:
    problem, params = _toy()
    noise = _noise(problem)
    return E.FOG()(problem, params, noise._replace(initial=noise.initial[:, :1]))


def _wrong_dtype() -> object:
    problem, params = _toy()
    return E.FOG()(problem, params, _noise(problem.replace(dtype=torch.float32)))


def _wrong_params(**changes: Tensor) -> object:
    problem, params = _toy()
    return E.FOG()(problem, {**params, **changes}, _noise(problem))


ERRORS: dict[str, tuple[type[GradlabError], str, Callable[[], object]]] = {
    "window": (BadValue, "horizon 8, got 9", lambda: _run(E.NStep(9))),
    "window-zero": (BadValue, "got 0", lambda: _run(E.ABPT(0))),
    "window-lambda": (BadValue, "got 9", lambda: _run(E.LambdaReturn(0.9, 9))),
    "lambda": (BadValue, "got 1.5", lambda: _run(E.LambdaReturn(1.5))),
    "width": (BadValue, "positive", lambda: _run(E.RelaxedFOG(0.0))),
    "width-negative": (BadValue, "positive", lambda: _run(E.Split(-0.1))),
    "width-nan": (BadValue, "positive", lambda: _toy()[0].relaxed(float("nan"))),
    "step": (BadValue, "sigmoid", lambda: _run(E.RelaxedFOG(0.1, "ramp"))),
    "std": (BadValue, "std > 0", lambda: _run(E.EvolutionStrategies(0.0))),
    "gae-baseline": (BadValue, "gae", lambda: _run(E.PG(baseline="q", returns="gae"))),
    "weights": (
        BadValue,
        "call weights",
        lambda: _run(E.Mixture((E.FOG(), E.NStep(2)), E.InverseVariance(), source=E.Cross(4))),
    ),
    "estimator": (UnknownName, "did you mean.*nstep", lambda: E.make("nsteps")),
    "estimator-option": (
        UnknownName,
        "split.*did you mean width",
        lambda: E.make("split", widht=0.1),
    ),
    "problem": (UnknownName, "did you mean.*hovering", lambda: gradlab.make("hoverin")),
    "option": (UnknownName, "did you mean.*gates", lambda: gradlab.make("racing", gate=4)),
    "noise": (BadShape, r"noise.action should be \[N, 8, 1\]", _wrong_noise),
    "noise-initial": (BadShape, "noise.initial", _wrong_initial),
    "noise-dtype": (BadShape, "float32", _wrong_dtype),
    "params-shape": (
        BadShape,
        "layers.0.bias",
        lambda: _wrong_params(**{"layers.0.bias": torch.zeros(3, dtype=torch.float64)}),
    ),
    "params-name": (BadShape, "extra", lambda: _wrong_params(extra=torch.zeros(1).double())),
    "horizon": (BadValue, "horizon", lambda: _toy()[0].replace(horizon=0)),
    "discount": (BadValue, "discount", lambda: _toy()[0].replace(discount=1.1)),
    "group": (
        BadValue,
        "multiple",
        lambda: gradlab.measure(E.PG(baseline="loo", group_size=4), *_toy(), 10, 0),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_user_errors_are_one_line_that_helps(name: str) -> None:
    kind, pattern, attempt = ERRORS[name]
    with pytest.raises(kind, match=pattern) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_words_outside_a_choice_are_named() -> None:
    """Run apart: here the shape checker would refuse them before the estimator can."""
    program = """
import torch, estimators as E, gradlab
from gradlab.foundation.errors import BadValue
problem = gradlab.make("lq")
params = problem.init(torch.Generator().manual_seed(0))
noise = problem.draw(4, torch.Generator().manual_seed(1))
wrong = {
    "everywhere": E.NStep(2, "everywhere"),
    "mean": E.PG(baseline="mean"),
    "later": E.PG(returns="later"),
    "push": E.FOG(engine="push"),
    "all": E.FixedMixture((E.FOG(), E.PG()), E.Weights("all", {"": torch.ones(1, 2) / 2})),
    "middle": E.QG("middle"),
    "half": E.ABPT(2, "half"),
    "p": E.NStep(2, tail="p"),
}
for word, estimator in wrong.items():
    try:
        estimator(problem, params, noise)
    except BadValue as error:
        assert repr(word) in str(error) and "\\n" not in str(error), error
    else:
        raise SystemExit(f"{word} was accepted")
"""
    done = run_code(program)
    assert done.returncode == 0, done.stdout + done.stderr


def short(name: str) -> dict[str, int | str]:
    """Few steps, for problems that do not depend on their number; springs for runners' feet."""
    if name in known_answers.PRESETS:
        return {}
    if name in runners.RUNNERS:
        return {"horizon": 2, "contact": "compliant"}
    return {"horizon": 4}


@pytest.mark.parametrize("name", registry.names())
def test_every_problem_runs(name: str) -> None:
    problem = gradlab.make(name, **short(name))
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    assert problem.dtype == torch.float32 and problem.hard
    relaxed = problem.relaxed(0.2), problem.relaxed(0.2, "arctan")
    for case in (problem, *relaxed):
        # a runner's steps are dear: `Split` asks what the two others ask
        alone = name in runners.RUNNERS and case is not problem
        for estimator in (E.Split(),) if alone else (E.FOG(), E.PG(), E.Split()):
            for leaf in estimator(case, params, noise).per_sample().values():
                assert torch.isfinite(leaf).all()
    values = evaluate(problem, gradlab.rollout(problem, problem.bind(params), noise)).value
    assert values.shape == (4, problem.horizon) and torch.isfinite(values).all()
