"""What flows back through a rollout: doors at each step's state, policy output and action.

A relay gives the value on as it is and decides what its gradient becomes on the way back. It
stands at s_t as step t takes it (`before`, and the observation), at the policy's output z_t =
(mean, log std) as the latent takes it, or at a_t as the simulator and the rewards take it. So its
incoming gradient, the *message*, is that of everything from step t on; the rewards of step t − 1
reach s_t beside it. A message at z_t is about the law of the action, whatever was drawn from it.

    class Halving:
        nodes = ("state",)

        def __call__(self, step, node, value):
            return Mixed.apply(value, torch.zeros_like(value), torch.full_like(value, 0.5))

    path = rollout(problem, policy, noise, relay=Halving())

A relay works for a batch of episodes, for one, and under `torch.func.vmap`: whatever it knows of an
episode has to come with it (the `given` of a `TwoPassEstimator`). Messages of a first pass, by one
batched backward pass, are those of a `Recorder`.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadShape, BadValue

Node = Literal["state", "output", "action"]
NODES: tuple[str, ...] = get_args(Node)


@runtime_checkable
class Relay(Protocol):
    """Decides what flows back at the nodes where it stands; the value is the same."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Where it stands: any of "state", "output" and "action"."""
        ...

    def __call__(
        self, step: int, node: Node, value: Float[Tensor, "*batch n"]
    ) -> Float[Tensor, "*batch n"]:
        """The same value with another way back; `step` counts from the start of the rollout."""
        ...


def mixed(back: Tensor, message: Tensor, weight: Tensor) -> Tensor:
    """weight·message + (1 − weight)·back, with nothing of a part whose weight is 0."""
    both = weight * message + (1 - weight) * back
    return torch.where(weight == 1, message, torch.where(weight == 0, back, both))


class Mixed(torch.autograd.Function):
    """The value, whose gradient g becomes w·message + (1 − w)·g: `Mixed.apply(value, message, w)`.

    Message and weight are constants of the value's shape, or broadcast to it. With w = 1 nothing of
    g is left, and with w = 0 nothing of the message, be they finite or not.
    """

    generate_vmap_rule = True  # both are inputs: all engines agree

    @staticmethod
    def forward(value: Tensor, message: Tensor, weight: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return mixed(grads[0], *ctx.saved_tensors), None, None


class Recorder:
    """A relay that changes nothing, and tells the messages that came back at its nodes.

    For a first pass with a frozen policy, under `torch.enable_grad()`.
    """

    def __init__(self, *nodes: Node) -> None:
        self.nodes: tuple[Node, ...] = nodes or ("state", "action")
        self._passed: dict[Node, list[Tensor]] = {node: [] for node in self.nodes}

    def __call__(self, step: int, node: Node, value: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            raise BadValue("a Recorder needs gradients; run its rollout under torch.enable_grad()")
        passed = value.clone() if value.requires_grad else value.detach().requires_grad_()
        self._passed[node].append(passed)
        return passed

    def messages(self, values: Float[Tensor, " N"]) -> dict[Node, Float[Tensor, "N T n"]]:
        """∂values_i/∂node_it of every episode, step and node, as constants: one backward pass.

        0 where an episode has ended.
        """
        nodes = [part for parts in self._passed.values() for part in parts]
        grads = iter(
            torch.autograd.grad(values.sum(), nodes, allow_unused=True, materialize_grads=True)
        )
        return {
            node: torch.stack([next(grads) for _ in parts], dim=-2)
            for node, parts in self._passed.items()
        }


def check_relay(relay: object) -> None:
    """Raise `BadValue` for what is no relay, or stands nowhere that there is."""
    if isinstance(relay, type) or not isinstance(relay, Relay):
        raise BadValue(
            f"relay should be a Relay, got {got(relay)}; give it `nodes`, such as ('state',), and "
            "a __call__(step, node, value)"
        )
    if not relay.nodes or any(node not in NODES for node in relay.nodes):
        raise BadValue(f"nodes of a relay should be among {NODES}, got {relay.nodes}")


def passed_on(relay: Relay, step: int, node: Node, value: Tensor) -> Tensor:
    """The value that a relay gives. Raises `BadShape` if it is of another kind than it got."""
    passed = relay(step, node, value)
    if not isinstance(passed, Tensor):
        raise BadValue(
            f"a relay should give the value on, at the {node} of step {step} got {got(passed)}; "
            "is its `return` missing?"
        )
    if passed.shape != value.shape or passed.dtype != value.dtype:
        raise BadShape(
            f"a relay should give the value on as it is, {list(value.shape)} of {value.dtype} at "
            f"the {node} of step {step}, got {list(passed.shape)} of {passed.dtype}"
        )
    return passed
