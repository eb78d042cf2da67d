"""What can be wrong with a bridged step, found by calling it: `check_step`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import constant
from gradlab.simulators.bridge import Bridged, Worlds

# step of the central difference, and how far off a slope may be, relative to the largest one
DIFFERENCE = {torch.float64: (1e-6, 1e-6), torch.float32: (1e-2, 1e-2)}


def check_step(
    simulator: Bridged,
    state: Float[Tensor, "N ns"],
    action: Float[Tensor, "N nu"],
    noise: Float[Tensor, "N nw"],
) -> None:
    """Raise `BadValue` for what a bridged step must not do, seen at these N worlds.

    It must give the same numbers when it is called again, write to nothing that it is given, let no
    world depend on another, and have the gradients of its own finite differences, by each of its
    inputs along a random direction. Take states that are not at a kink, several of them, and
    float64 where the engine has it: differences in float32 see errors above 1 % only.
    """
    given = Worlds(
        state, action, noise, constant(simulator.parameters, state).expand(len(state), -1)
    )
    given = Worlds(*(part.detach().clone() for part in given))
    kept = [part.clone() for part in given]
    generator = torch.Generator().manual_seed(0)
    first = simulator.advance(*given)
    back = torch.randn(first.shape, generator=generator, dtype=torch.float64).to(first)
    slopes = _gradients(simulator, given, back)
    for part, before, kind in zip(given, kept, Worlds._fields, strict=True):
        if not torch.equal(part, before):
            raise BadValue(f"{simulator.name} writes to its {kind}; write to the next state alone")
    again = _gradients(simulator, given, back)
    if not torch.equal(first, simulator.advance(*given)):
        raise BadValue(
            f"{simulator.name} gives other numbers for the same inputs when it is called again; "
            "keep no array between calls, and draw nothing: noise is an argument"
        )
    _check_worlds(simulator, given, first)
    for kind, part, grad, other in zip(Worlds._fields, given, slopes, again, strict=True):
        if not torch.equal(grad, other):
            raise BadValue(
                f"the gradient by {kind} of {simulator.name} is another when asked again"
            )
        if part.numel():
            way = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
            _check_slope(simulator, given, kind, way, (grad * way).sum(-1), back)


def _gradients(simulator: Bridged, given: Worlds, back: Tensor) -> tuple[Tensor, ...]:
    leaves = [part.detach().requires_grad_() for part in given]
    return torch.autograd.grad(simulator.advance(*leaves), leaves, back, materialize_grads=True)


def _check_worlds(simulator: Bridged, given: Worlds, whole: Tensor) -> None:
    """Every world by itself goes where it went among the others."""
    for i in range(len(whole)):
        alone = simulator.advance(*(part[i : i + 1] for part in given))
        if not torch.allclose(alone[0], whole[i], rtol=1e-5, atol=1e-7):
            raise BadValue(
                f"world {i} of {simulator.name} goes elsewhere when it is alone; let world i read "
                "row i of each input, and nothing of the others"
            )


def _check_slope(
    simulator: Bridged, given: Worlds, kind: str, way: Tensor, slope: Tensor, back: Tensor
) -> None:
    step, tolerance = DIFFERENCE[given.state.dtype]
    part = getattr(given, kind)
    ends = [
        simulator.advance(*given._replace(**{kind: part + sign * step * way})) for sign in (1, -1)
    ]
    difference = ((ends[0] - ends[1]) * back).sum(-1) / (2 * step)
    size = float(torch.maximum(difference.abs().max(), slope.abs().max()))
    # what rounding of the states alone does to a difference
    noise = torch.finfo(part.dtype).eps * float(ends[0].abs().max() * back.abs().max()) / step
    off = float((difference - slope).abs().max())
    if not off <= tolerance * size + 10 * noise:
        world = int((difference - slope).abs().argmax())
        raise BadValue(
            f"the gradient by {kind} of {simulator.name} is not that of its differences: "
            f"{float(slope[world]):.6g} against {float(difference[world]):.6g} in world {world}; "
            "is an array written twice in a sub-step, or kept between calls, or is a value in "
            "between without requires_grad=True?"
        )
