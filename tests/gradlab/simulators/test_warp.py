"""The bridge to Warp: gradients of any kernels, in every engine of this project that can take them,
and a refusal where none are. The examples' twins are in `test_warp_examples.py`."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, Missing, Unavailable
from gradlab.simulators import warp as module
from gradlab.simulators.base import Simulator, Timed
from gradlab.simulators.bridge import Bridged
from gradlab.simulators.bridge_checks import check_step
from gradlab.simulators.warp import warp_simulator

wp = pytest.importorskip("warp", reason="the extra `warp` is not installed")
from warp.autograd import gradcheck, gradcheck_tape


@wp.kernel
def oscillate(
    state: wp.array2d(dtype=Any),
    action: wp.array2d(dtype=Any),
    noise: wp.array2d(dtype=Any),
    parameters: wp.array2d(dtype=Any),
    dt: Any,
    after: wp.array2d(dtype=Any),
):
    i = wp.tid()
    place = state[i, 0]
    spring = parameters[i, 0] * wp.sin(place)
    speed = state[i, 1] + dt * (action[i, 0] * place - spring) + noise[i, 0] * wp.cos(place)
    after[i, 0] = place + dt * speed
    after[i, 1] = speed


def launch(state: Any, action: Any, noise: Any, parameters: Any, after: Any, dt: float) -> None:
    inputs = [state, action, noise, parameters, state.dtype(dt)]
    wp.launch(oscillate, dim=after.shape[0], inputs=inputs, outputs=[after])


def twin(state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor, substeps: int) -> Tensor:
    """The same in torch."""
    h = 0.1 / substeps
    place, speed = state.unbind(-1)
    for _ in range(substeps):
        force = action[..., 0] * place - parameters[..., 0] * place.sin()
        speed = speed + h * force + noise[..., 0] * place.cos()
        place = place + h * speed
    return torch.stack([place, speed], -1)


def oscillator(substeps: int = 1, function: Any = launch, **options: Any) -> Bridged:
    given = {"dtypes": (torch.float32, torch.float64), **options}
    return warp_simulator(
        function, state_dim=2, action_dim=1, noise_dim=1, dt=0.1, substeps=substeps,
        parameters=(3.0,), **given,
    )  # fmt: skip


def inputs(*batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """State, action, noise and parameters, float64 leaves."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(*batch, n, generator=generator, dtype=torch.float64) for n in (2, 1, 1, 1)]
    return tuple(part.requires_grad_() for part in drawn)  # type: ignore[return-value]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------ values, gradients


@pytest.mark.parametrize("substeps", [1, 4])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_values_and_gradients_are_the_twins(batch: tuple[int, ...], substeps: int) -> None:
    given = inputs(*batch)
    ours, expected = oscillator(substeps).advance(*given), twin(*given, substeps=substeps)
    assert ours.shape == (*batch, 2) and close(ours, expected)
    back = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).double()
    for a, b in zip(*(torch.autograd.grad(y, given, back) for y in (ours, expected)), strict=True):
        assert a.shape == b.shape and close(a, b)


def test_gradients_are_those_of_differences() -> None:
    """torch's check of every entry of every Jacobian, then Warp's of the kernel and of a tape."""
    assert torch.autograd.gradcheck(oscillator(3).advance, inputs(3))
    arrays = [wp.from_torch(p.detach().clone(), requires_grad=True) for p in inputs(3)]
    after = wp.zeros((3, 2), dtype=wp.float64, requires_grad=True)
    steps = {"inputs": [*arrays, wp.float64(0.1)], "outputs": [after]}
    assert gradcheck(oscillate, dim=3, **steps, show_summary=False)
    with wp.Tape() as tape:
        wp.launch(oscillate, dim=3, **steps)
    assert gradcheck_tape(tape, show_summary=False)


def test_parameters_may_be_one_row_for_all_worlds() -> None:
    state, action, noise, _ = inputs(4)
    shared = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    (ours,), (expected,) = (
        torch.autograd.grad(step(state, action, noise, shared).sum(), shared)
        for step in (oscillator(2).advance, lambda *given: twin(*given, substeps=2))
    )
    assert ours.shape == (1,) and close(ours, expected)


def test_float32_is_as_good_as_its_rounding() -> None:
    given = [part.detach().float().requires_grad_() for part in inputs(5)]
    ours, expected = oscillator(4).advance(*given), twin(*given, substeps=4)
    torch.testing.assert_close(ours, expected)
    for a, b in zip(*(torch.autograd.grad(y.sum(), given) for y in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_inputs_of_any_layout() -> None:
    """Transposed, sliced and broadcast inputs; the gradient has the layout's own shape."""
    drawn = torch.linspace(-1, 1, 12, dtype=torch.float64).sin()
    state = drawn.reshape(2, 6).T[::2].requires_grad_()
    action = drawn[:1].clone().requires_grad_()
    noise = drawn.reshape(3, 4)[:, 1:2].requires_grad_()
    given = state, action, noise, torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    ours, expected = oscillator(2).advance(*given), twin(*given, substeps=2)
    assert close(ours, expected)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), given) for y in (ours, expected)), strict=True
    ):
        assert a.shape == b.shape and close(a, b)


def test_nothing_is_left_of_an_earlier_backward_pass() -> None:
    given = inputs(4)
    after = oscillator(3).advance(*given)
    first, second = (
        torch.autograd.grad(after, given, torch.ones_like(after), retain_graph=True)
        for _ in range(2)
    )
    twice = torch.autograd.grad(after, given, 2 * torch.ones_like(after))
    for a, b, c in zip(first, second, twice, strict=True):
        assert torch.equal(a, b) and close(2 * a, c)
    leaf = given[0].detach().clone().requires_grad_()
    for _ in range(2):  # and torch alone adds up, in its own `.grad`
        oscillator(3).advance(leaf, *given[1:]).sum().backward()
    assert close(leaf.grad, 2 * first[0])


def test_no_copy_is_made() -> None:
    seen: list[int] = []

    def looking(*arrays: Any) -> None:
        seen.extend(array.ptr for array in arrays[:5])
        launch(*arrays)

    given = inputs(4)
    after = oscillator(function=looking).advance(*given)
    assert seen == [part.data_ptr() for part in (*given, after)]


def test_only_what_is_wanted_is_differentiated() -> None:
    seen: list[tuple[bool, ...]] = []

    def looking(*arrays: Any) -> None:
        seen.append(tuple(array.requires_grad for array in arrays[:5]))
        launch(*arrays)

    state, action, noise, parameters = (part.detach() for part in inputs(4))
    after = oscillator(function=looking).advance(state, action.requires_grad_(), noise, parameters)
    after.sum().backward()
    assert seen == [(False,) * 5, (False, True, False, False, True)]


# ------------------------------------------------------------------- what a launch must not do


def test_an_array_that_sub_steps_share_or_that_has_no_gradient_is_found() -> None:
    """Each sub-step has a tape, but an array that outlives them holds the last sub-step's value
    when the first one is differentiated."""
    middle = wp.zeros((3, 2), dtype=wp.float64, requires_grad=True)

    def reused(s: Any, a: Any, w: Any, p: Any, after: Any, dt: float) -> None:
        launch(s, a, w, p, middle, dt / 2)
        launch(middle, a, w, p, after, dt / 2)

    def fresh(s: Any, a: Any, w: Any, p: Any, after: Any, dt: float) -> None:
        between = wp.zeros(s.shape, dtype=s.dtype, requires_grad=True)
        launch(s, a, w, p, between, dt / 2)
        launch(between, a, w, p, after, dt / 2)

    def deaf(s: Any, a: Any, w: Any, p: Any, after: Any, dt: float) -> None:
        between = wp.zeros(s.shape, dtype=s.dtype)
        launch(s, a, w, p, between, dt / 2)
        launch(between, a, w, p, after, dt / 2)

    state, action, noise, _ = (part.detach() for part in inputs(3))
    check_step(oscillator(2, fresh), state, action, noise)
    with pytest.raises(BadValue, match="gradient by state .* not that of its differences"):
        check_step(oscillator(2, deaf), state, action, noise)
    with pytest.raises(
        BadValue, match=r"gradient by state .* another when asked again|differences"
    ):
        check_step(oscillator(2, reused), state, action, noise)


@wp.kernel(module="unique")
def neighbour(state: wp.array2d(dtype=Any), after: wp.array2d(dtype=Any)):
    i = wp.tid()
    after[i, 0] = state[(i + 1) % state.shape[0], 0]
    after[i, 1] = state[i, 1]


@wp.kernel(module="unique")
def over_itself(state: wp.array2d(dtype=Any), after: wp.array2d(dtype=Any)):
    i = wp.tid()
    after[i, 0] = state[i, 0]
    after[i, 1] = state[i, 1]
    state[i, 0] = state[i, 0] + state[i, 1]


@pytest.mark.parametrize(
    ("kernel", "said"), [(neighbour, "world 0 .* alone"), (over_itself, "writes to its state")]
)
def test_other_mistakes_are_found(kernel: Any, said: str) -> None:
    def wrong(s: Any, a: Any, w: Any, p: Any, after: Any, dt: float) -> None:
        wp.launch(kernel, dim=after.shape[0], inputs=[s], outputs=[after])

    state, action, noise, _ = (part.detach() for part in inputs(3))
    with pytest.raises(BadValue, match=said):
        check_step(oscillator(function=wrong), state, action, noise)


# ------------------------------------------------------------------------------ engines of gradlab


def test_it_is_a_simulator() -> None:
    simulator = oscillator()
    assert isinstance(simulator, Simulator) and isinstance(simulator, Timed)
    again = pickle.loads(pickle.dumps(simulator))
    assert again == simulator and hash(again) == hash(simulator) and again.key == simulator.key


def test_transforms_of_functions() -> None:
    state, action, noise, parameters = (part.detach() for part in inputs(4))
    ours = oscillator(2).advance

    def back(step: Any, s: Tensor, a: Tensor, w: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda *x: step(*x, parameters[0]).square().sum()))(
            s, a, w
        )

    def expected(*given: Tensor) -> Tensor:
        return twin(*given, substeps=2)

    assert close(back(ours, state, action, noise), back(expected, state, action, noise))
    mapped = torch.func.vmap(ours, in_dims=(0, 0, None, None))(
        state, action, noise[0], parameters[0]
    )
    assert close(mapped, expected(state, action, noise[0], parameters[0]))
    deep = torch.func.vmap(torch.func.jacrev(ours))(state, action, noise, parameters)
    assert close(
        deep, torch.func.vmap(torch.func.jacrev(expected))(state, action, noise, parameters)
    )
    # two batches, one within the other, along other dimensions than the first
    nested = torch.func.vmap(
        torch.func.vmap(ours, in_dims=(0, None, None, None)), in_dims=(1, 0, 0, 0)
    )
    assert close(
        nested(state.expand(3, 4, 2), action, noise, parameters),
        expected(
            *(part.unsqueeze(1).expand(4, 3, -1) for part in (state, action, noise, parameters))
        ),
    )


def test_compiled_code_holds_the_operators() -> None:
    """Without a break in the graph, forward and backward."""
    given = inputs(4)
    torch._dynamo.reset()
    compiled = torch.compile(oscillator(2).advance, backend="aot_eager", fullgraph=True)
    ours, expected = compiled(*given), twin(*given, substeps=2)
    assert close(ours, expected)
    for a, b in zip(*(torch.autograd.grad(y.sum(), given) for y in (ours, expected)), strict=True):
        assert close(a, b)
    rows = (oscillator(2).key, 2, *given)
    assert set(torch.library.opcheck(torch.ops.gradlab.bridged_step.default, rows).values()) == {
        "SUCCESS"
    }


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.jacfwd(f)(x),
        lambda f, x: torch.func.hessian(f)(x),
        lambda f, x: torch.func.jacrev(torch.func.grad(f))(x),
        lambda f, x: torch.autograd.functional.hessian(f, x),
        lambda f, x: _dual(f, x),
    ],
    ids=["jvp", "jacfwd", "hessian", "twice", "double backward", "dual"],
)
def test_what_warp_has_not_is_refused(derivative: Any) -> None:
    _, action, noise, parameters = (part.detach() for part in inputs())

    def value(state: Tensor) -> Tensor:
        return oscillator().advance(state, action, noise, parameters).square().sum()

    with pytest.raises(Unavailable, match="reverse mode only"):
        derivative(value, torch.ones(2, dtype=torch.float64))


def _dual(f: Any, x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        return f(torch.autograd.forward_ad.make_dual(x, x))


def test_wrong_arguments_are_refused_in_one_line() -> None:
    state, action, noise, _ = (part.detach() for part in inputs(2))
    with pytest.raises(BadValue, match=r"launch is written for torch.float32, got torch.float64"):
        oscillator(dtypes=(torch.float32,)).step(state, action, noise)
    with pytest.raises(BadShape, match="expected 1 numbers of action .* got 2"):
        oscillator().step(state, state, noise)
    # to Warp itself they would be a kernel that does not compile, now or at any later launch
    with pytest.raises(
        BadValue, match=r"action for .* should be torch.float64, .* got torch.float32"
    ):
        oscillator().step(state, action.float(), noise)
    assert oscillator().step(state, action, noise).isfinite().all()
    with pytest.raises(BadValue, match="substeps should be a whole number"):
        oscillator(0)
    with pytest.raises(BadValue, match="dt .* must be positive"):
        warp_simulator(launch, state_dim=2, action_dim=1, dt=0.0)


def test_without_warp_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module.warp.cache_clear()
    monkeypatch.setitem(sys.modules, "warp", None)  # as if it were not installed
    with pytest.raises(Missing, match=r"pip install 'gradlab\[warp\]'"):
        oscillator()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("capture", [False, True])
def test_on_a_gpu(capture: bool) -> None:
    """On torch's stream, and recorded as a graph: three calls, as the first one records."""
    simulator = oscillator(4, capture=capture)
    for seed in range(3):
        given = [part.detach().cuda().requires_grad_() for part in inputs(64, seed=seed)]
        ours, expected = simulator.advance(*given), twin(*given, substeps=4)
        assert close(ours, expected)
        for a, b in zip(
            *(torch.autograd.grad(y.sum(), given) for y in (ours, expected)), strict=True
        ):
            assert close(a, b)
