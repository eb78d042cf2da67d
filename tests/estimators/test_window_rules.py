"""Windows that are chosen: closed forms, both limits, slow twins, engines, what cuts may know."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators import JacobianGrowth, JumpWindow, TruncatedBPTT, Windows
from estimators.base import Cost
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.noise import Noise
from gradlab.oracle import closed_forms
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at, views
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.jumps import Pairs, jump, pairs_of
from tests.estimators.test_truncated import close, lq, made
from tests.helpers import checking

Params = dict[str, Tensor]


def noise_of(problem: Problem, count: int = 6) -> Noise:
    return problem.draw(count, torch.Generator().manual_seed(1))


def doubling(horizon: int = 12) -> tuple[Problem, Params]:
    """s' = 2 s in every component, whatever the policy sees: it has no gain."""
    problem, params = made("lq", horizon=horizon)
    size = problem.simulator.state_dim
    matrix = tuple(tuple(2.0 * float(i == j) for j in range(size)) for i in range(size))
    simulator = replace(problem.simulator, transition=matrix)  # pyright: ignore
    return problem.replace(simulator=simulator), {k: torch.zeros_like(v) for k, v in params.items()}


@pytest.mark.parametrize("limit", [1.5, 4.0, 9.0, 100.0])
def test_a_window_of_known_growth_has_the_length_of_the_closed_form(limit: float) -> None:
    """Growth is 2^(n−1) after n steps: n = 1 + ceil(log2 limit)."""
    problem, params = doubling()
    found = TruncatedBPTT(JacobianGrowth(limit)).windows(problem, params, noise_of(problem))
    n = 1 + math.ceil(math.log2(limit))
    assert found.cut.tolist() == [[t > 0 and t % n == 0 for t in range(12)]] * 6
    assert found.measured[0, : n + 1].tolist() == [1.0, *(2.0**k for k in range(n))]
    assert found.lengths[0].tolist() == [float(min(n, 12 - t // n * n)) for t in range(12)]
    by_step = JacobianGrowth(limit, measure="step")
    steps = TruncatedBPTT(by_step).windows(problem, params, noise_of(problem))
    assert bool(steps.cut[:, 1:].all() if limit <= 2 else not steps.cut.any())
    shared = replace(JacobianGrowth(limit), source=E.Same(4))
    alike = TruncatedBPTT(shared).windows(problem, params, noise_of(problem, 8))
    assert alike.cut.tolist() == found.cut[:2].tolist()


@pytest.mark.parametrize("name", ["lq", "gate", "landing", "racing"])
def test_both_limits_are_fixed_windows(name: str) -> None:
    """0 is the shortest and infinity the longest, with all that events carry between windows."""
    problem, params = made(name, horizon=7, **({"gates": 4} if name == "racing" else {}))
    if name != "lq":
        problem = problem.relaxed(0.3)
    noise = noise_of(problem)
    for rule, fixed in (
        (JacobianGrowth(0.0, shortest=3), 3),
        (JacobianGrowth(0.0, shortest=2, source=E.Same(4)), 2),
        (JacobianGrowth(math.inf, longest=5), 5),
        (JacobianGrowth(math.inf), None),
    ):
        few = noise if rule.source is None else noise.rows(0, 4)
        for weighted in (True, False):
            ours = TruncatedBPTT(rule, weighted=weighted)(problem, params, few)
            close(ours.per_sample(), TruncatedBPTT(fixed, "none", weighted)(
                problem, params, few).per_sample())  # fmt: skip


def test_what_a_policy_carries_is_cut_with_the_state() -> None:
    policy = gradlab.RecurrentPolicy(4, (5,), std="global")
    problem = gradlab.make("lq", horizon=6, policy=policy, dtype=torch.float64)
    params, noise = problem.init(torch.Generator().manual_seed(0)), noise_of(problem)
    ours = TruncatedBPTT(JacobianGrowth(0.0, shortest=2))(problem, params, noise).per_sample()
    close(ours, TruncatedBPTT(2)(problem, params, noise).per_sample())
    whole = TruncatedBPTT(None)(problem, params, noise).per_sample()
    assert any(bool((ours[name] != whole[name]).any()) for name in ours)


def test_both_limits_with_a_critic() -> None:
    problem, params = lq()
    noise = noise_of(problem)
    for weighted in (True, False):
        ours = TruncatedBPTT(JacobianGrowth(0.0, shortest=3), "v", weighted)
        fixed = TruncatedBPTT(3, "v", weighted)
        close(*(each(problem, params, noise).per_sample() for each in (ours, fixed)))


def stepped(
    problem: Problem, policy: BoundPolicy, noise: Noise, memory: Tensor, t: int, state: Tensor
) -> Tensor:
    z = policy(problem.task.observe(state, memory, problem.steps[t]))
    action = policy.action(policy.latent(z, noise.action[:, 0]))
    return problem.simulator.step(state, action, noise.process[:, 0])[0]


def twin(
    problem: Problem, params: Params, noise: Noise, rule: JacobianGrowth, tail: str, weighted: bool
) -> tuple[list[list[bool]], list[Params]]:
    """Episode by episode and step by step: a Jacobian, a product, a rollout per window."""
    cuts, found = [], []
    for i in range(noise.count):
        one = noise.rows(i, i + 1)
        frozen = problem.bind(params).frozen
        path = rollout(problem, frozen, one)
        product, begins = None, [0]
        for t in range(1, problem.horizon):
            memory = path.memory[:, t - 1]

            step = partial(stepped, problem, frozen, one.during(t - 1, t), memory, t - 1)
            found_here = torch.autograd.functional.jacobian(step, path.state[:, t - 1])
            assert isinstance(found_here, Tensor)
            jacobian = found_here[:, 0]
            size = len(jacobian)
            eye = torch.eye(size, dtype=jacobian.dtype)
            product = eye if product is None else jacobian @ product
            looked = product if rule.measure == "product" else jacobian
            grown = float(torch.linalg.matrix_norm(looked)) / math.sqrt(size)
            steps = t - begins[-1]
            if (steps >= rule.shortest and grown >= rule.limit) or steps == rule.longest:
                begins.append(t)
                product = None
        cuts.append([t in begins[1:] for t in range(problem.horizon)])
        leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
        moment, total = None, torch.zeros((), dtype=torch.float64)
        for begin, end in zip(begins, [*begins[1:], problem.horizon], strict=True):
            part = one.during(begin, end)
            ran = rollout(problem, problem.bind(leaves), part, start=moment, length=end - begin)
            result = evaluate(problem, ran)
            earned = result.value.sum()
            if tail == "v" and end < problem.horizon:
                view = views(problem, ran, result, slice(end - begin, None))
                earned = earned + problem.discount**end * problem.require_v("here")(view).sum()
            total = total + earned / (1.0 if weighted else problem.discount**begin)
            moment = moment_at(ran, result).detach()
        slopes = torch.autograd.grad(total, list(leaves.values()))
        found.append(dict(zip(leaves, slopes, strict=True)))
    return cuts, found


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("name", "rule", "tail"),
    [
        ("gate", JacobianGrowth(0.2, shortest=3), "none"),
        ("point_mass_navigate", JacobianGrowth(0.755, shortest=3, longest=4), "none"),
        ("tracking", JacobianGrowth(2.2, shortest=2), "none"),
        ("tracking", JacobianGrowth(1.09, measure="step"), "none"),
        ("lq", JacobianGrowth(0.5, shortest=2), "v"),
    ],
)
def test_a_loop_over_episodes_gives_the_same(
    name: str, rule: JacobianGrowth, tail: str, weighted: bool
) -> None:
    problem, params = lq() if name == "lq" else made(name, horizon=9)
    noise = noise_of(problem, 4)
    estimator = TruncatedBPTT(rule, tail, weighted)  # pyright: ignore[reportArgumentType]
    cuts, slopes = twin(problem, params, noise, rule, tail, weighted)
    assert estimator.windows(problem, params, noise).cut.tolist() == cuts
    if name not in ("lq", "gate"):  # of which every episode has the same Jacobians
        assert len({str(row) for row in cuts}) > 1
    for engine in ("pullback", "vmap"):
        ours = replace(estimator, engine=engine)(problem, params, noise).per_sample()
        for i, one in enumerate(slopes):
            close(one, {k: v[i] for k, v in ours.items()})


@dataclass(frozen=True)
class Known:
    """Cuts where the state is positive, which is known there, or where the noise after it is."""

    ahead: bool
    group: int = 1
    label: str = "known"

    def check(self, problem: Problem) -> None: ...

    def cost(self, problem: Problem) -> Cost:
        return Cost(0, 0)

    def windows(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Windows:
        path = rollout(problem, policy, noise)
        seen = noise.action if self.ahead else path.before
        cut = seen[..., 0] > 0
        cut[:, 0] = False
        return Windows(cut, torch.zeros(len(cut), 0))


def test_cuts_that_know_the_past_alone_keep_an_exact_critic_unbiased() -> None:
    problem, params = lq()
    truth = gradlab.OracleGradient.exact(closed_forms.solve(problem, params).gradient, "exact")
    past, ahead = (TruncatedBPTT(Known(ahead), "v") for ahead in (False, True))
    gradlab.testing.assert_unbiased(past, problem, params, truth, detect=0.1)
    with pytest.raises(gradlab.testing.Biased):
        gradlab.testing.assert_unbiased(ahead, problem, params, truth, detect=0.1)


def test_windows_of_a_block_come_from_where_the_source_says() -> None:
    problem, params = made("tracking", horizon=9)
    noise = noise_of(problem, 8)

    def cuts(rule: JacobianGrowth | JumpWindow, noise: Noise = noise) -> Tensor:
        return TruncatedBPTT(rule).windows(problem, params, noise).measured

    alone = cuts(JacobianGrowth(math.inf))
    same = cuts(JacobianGrowth(math.inf, source=E.Same(4)))
    torch.testing.assert_close(same[0], alone[:4].square().mean(0).sqrt())
    crossed = cuts(JacobianGrowth(math.inf, source=E.Cross(8)))
    torch.testing.assert_close(crossed[0], alone[4:].square().mean(0).sqrt())
    torch.testing.assert_close(crossed[1], alone[:4].square().mean(0).sqrt())
    pilot = JacobianGrowth(math.inf, source=E.Independent(size=4))
    assert pilot.group == 1 and torch.equal(cuts(pilot), cuts(pilot, noise.rows(0, 2)))


def test_a_jump_shortens_windows_and_a_smooth_return_does_not() -> None:
    problem, params = lq()
    smooth = JumpWindow((2, 4, None), source=E.Same(64))
    found = TruncatedBPTT(smooth).windows(problem, params, noise_of(problem, 64))
    assert not found.cut.any() and bool((found.measured > 0.05).all())
    gate, weights = made("gate", horizon=6)
    noise = noise_of(gate, 512)
    for source in (E.Same(512), E.Cross(512), E.Independent(size=512)):
        rule = JumpWindow((2, 4, None), source=source)
        found = TruncatedBPTT(rule).windows(gate, weights, noise)
        assert len(found.cut) == (2 if isinstance(source, E.Cross) else 1)
        assert bool((found.measured[:, 2] < 0.05).all())
        for row, p in zip(found.cut.tolist(), found.measured.tolist(), strict=True):
            fine = [n for n, one in zip((2, 4, 6), p, strict=True) if one > 0.05]
            length = max(fine, default=2)
            assert row == [t > 0 and t % length == 0 for t in range(6)]
    ours = TruncatedBPTT(JumpWindow((2, 4, None), source=E.Same(512)))
    length = int(ours.windows(gate, weights, noise).lengths[0, 0])
    fixed = TruncatedBPTT(length)(gate, weights, noise).per_sample()
    close(ours(gate, weights, noise).per_sample(), fixed)


def test_pairs_one_by_one_give_the_same_p() -> None:
    problem, params = made("gate", horizon=5)
    noise, window = noise_of(problem, 16), 3
    frozen, rows = problem.bind(params).frozen, []
    for i in range(16):
        own, other = noise.rows(i, i + 1), noise.rows(i ^ 1, (i ^ 1) + 1)
        path = rollout(problem, frozen, own)
        total = torch.zeros(2, dtype=torch.float64)
        for begin, end in ((0, 3), (3, 5)):
            start = moment_at(path, evaluate(problem, path), begin)
            values, slopes = [], []
            for source in (own, other):
                eps = source.action[:, begin:end].clone().requires_grad_()
                part = own.during(begin, end)._replace(action=eps)
                again = rollout(problem, frozen, part, start=start, length=end - begin)
                value = evaluate(problem, again).value.sum(-1)
                slopes.append(torch.autograd.grad(value.sum(), eps)[0].flatten(1))
                values.append(value.detach())
            pair = pairs_of(torch.stack(values), torch.stack(slopes))
            total = total + torch.cat(pair)
        rows.append(total)
    couples = torch.stack(rows).view(8, 2, 2).mean(1)
    expected = jump("", Pairs(couples[:, 0], couples[:, 1]), 0.05).p_value
    rule = JumpWindow((window,), source=E.Same(16))
    found = TruncatedBPTT(rule).windows(problem, params, noise).measured
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-8)


def test_fixed_windows_are_told_as_well() -> None:
    problem, params = made("lq", horizon=5)
    found = TruncatedBPTT(2).windows(problem, params, noise_of(problem))
    assert found.cut.tolist() == [[False, False, True, False, True]]
    assert found.lengths.tolist() == [[2, 2, 2, 2, 1]]


def test_contact_ends_windows() -> None:
    problem = gradlab.make("hopper", preset="dflex", horizon=6)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = noise_of(problem, 2)
    path = rollout(problem, problem.bind(params).frozen, noise)
    stiff = problem.simulator.stiffness(path.before, path.action)  # pyright: ignore
    limit = float(stiff[0, 2])
    rule = JacobianGrowth(limit, measure="contact")
    found = TruncatedBPTT(rule).windows(problem, params, noise)
    assert found.cut[:, 1:].tolist() == (stiff[:, :-1].double() >= limit).tolist()
    with pytest.raises(Missing, match="needs a simulator with contact"):
        TruncatedBPTT(rule).check(gradlab.make("lq"))


def test_mistakes_are_named() -> None:
    problem, params = made("lq")
    for bad, said in (
        (lambda: JacobianGrowth(-1.0), "limit should be at least 0"),
        (lambda: JacobianGrowth(1.0, shortest=4, longest=3), "at least shortest"),
        (lambda: JacobianGrowth(1.0, measure="angle"), "measure"),  # pyright: ignore
        (lambda: JacobianGrowth(1.0, source=4), "source should be"),  # pyright: ignore
        (lambda: JumpWindow((4, 2)), "ascending"),
        (lambda: JumpWindow((None, 2)), "ascending"),
        (lambda: JumpWindow(level=1.0), "level should lie"),
        (lambda: JumpWindow(source=E.Same(8)), "episodes behind a test"),
        (lambda: TruncatedBPTT("long").check(problem), "a number of steps, None or a rule"),  # pyright: ignore
        (lambda: TruncatedBPTT(JacobianGrowth(1.0, shortest=9)).check(problem), "window"),
        (lambda: TruncatedBPTT(JumpWindow((9,))).check(problem), "window"),
        (lambda: rollout(problem, problem.bind(params), noise_of(problem), cut_every=2,
                         cut_at=torch.zeros(6, problem.horizon, dtype=torch.bool)), "cut_every"),
    ):  # fmt: skip
        with checking.off(), pytest.raises(BadValue, match=said):
            bad()
    with pytest.raises(Missing, match="V critic"):
        TruncatedBPTT(JacobianGrowth(1.0), "v").check(problem)
    assert TruncatedBPTT(JacobianGrowth(1.5), "v", False).label == (
        "TruncatedBPTT(growth 1.5, v, unweighted)"
    )
