"""Any `torch.nn.Module` as a policy's network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from gradlab.foundation.arguments import got
from gradlab.foundation.checkpoints import Saved, content_checksum
from gradlab.foundation.errors import BadValue
from gradlab.policies.composed import NetworkPolicy
from gradlab.policies.identity import module_identity
from gradlab.policies.networks import Buffers, Network, Params
from gradlab.policies.normalised import Normalised

ROWS = 3  # observations of the trial run


def ModulePolicy(
    module: nn.Module,
    *,
    squash: bool = True,
    std: Literal["state", "global"] | float = "global",
    initial_std: float = 0.3,
    log_std_range: tuple[float, float] = (-5.0, 1.0),
    normalise: bool = False,
) -> NetworkPolicy:
    """A Gaussian policy whose mean is a module's output at a batch of observations [B, no].

    The module gives one number per action, with `std="state"` two: the means, and the log stds
    behind them. The other options are those of `GaussianPolicy`. It is copied as it is, in its mode
    (`eval()` for dropout). Parameters that require a gradient are the policy's; `problem.init`
    draws them anew by every part's `reset_parameters` (one that no such method draws begins as it
    is in the module), and `dict(module.named_parameters())` are those that it has. Everything else
    is a buffer.

    Raises `BadValue` for a module that mixes samples (BatchNorm), draws random numbers, changes its
    buffers or observations, cannot be copied, has no parameters yet, or cannot be mapped over
    samples (torch's own recurrent cells).
    """
    network: Network = ModuleNetwork(_usable(module))
    if normalise:
        network = Normalised(network)
    return NetworkPolicy(
        network, squash=squash, std=std, initial_std=initial_std, log_std_range=log_std_range
    )


@dataclass(frozen=True)
class ModuleNetwork:
    """A module as a pure function of parameters, buffers and observations; see `ModulePolicy`."""

    module: nn.Module
    observation_dim: int = 0  # 0: that of the problem which the policy is given to
    output_dim: int = 0

    @property
    def carry_dim(self) -> int:
        """It remembers nothing."""
        return 0

    def sized(self, observation_dim: int, output_dim: int) -> ModuleNetwork:
        """The same for these sizes, after a trial run. Raises `BadValue` if it does not fit."""
        sized = replace(self, observation_dim=observation_dim, output_dim=output_dim)
        _try(sized)
        return sized

    def settings(self) -> dict[str, Any]:
        """What it is, as JSON values by name: classes, shapes, and hashes of the code of every
        part, of its attributes, and of all tensors that are not drawn by `init`."""
        parts = {
            name or "module": type(part).__name__ for name, part in self.module.named_modules()
        }
        shapes = {name: list(value.shape) for name, value in self._parts[0].items()}
        return {
            "kind": "module",
            "parts": parts,
            "parameters": shapes,
            "code": module_identity(self.module),
            "constants": content_checksum(Saved(self._constants())),
        }

    def _constants(self) -> dict[str, Tensor]:
        """The tensors that every initialisation has."""
        cast = {"dtype": torch.float64, "device": "cpu"}
        one, two = (self.init(torch.Generator().manual_seed(seed), **cast) for seed in (0, 1))
        fixed = {name: value for name, value in one.items() if torch.equal(value, two[name])}
        return {**fixed, **self._parts[1]}

    @cached_property
    def _parts(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is learned and what is not, as the module has it."""
        every = dict(self.module.named_parameters())
        learned = {name: value.detach() for name, value in every.items() if value.requires_grad}
        held = {name: value.detach() for name, value in every.items() if name not in learned}
        return learned, {**held, **dict(self.module.named_buffers())}

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str
    ) -> Params:
        """Drawn by every part's `reset_parameters`, in the module's dtype on the CPU, then cast."""
        seed = int(torch.randint(2**62, (), generator=generator))
        fresh = copy.deepcopy(self.module)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            fresh.apply(_reset)  # parts before the whole: what the whole does to them stays
        drawn = dict(fresh.named_parameters())
        return {name: _cast(drawn[name].detach(), dtype, device) for name in self._parts[0]}

    def buffers(self, *, dtype: torch.dtype, device: torch.device | str) -> Buffers:
        """The module's buffers, and the parameters that require no gradient."""
        return {name: _cast(value, dtype, device) for name, value in self._parts[1].items()}

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Tensor | None,
    ) -> tuple[Float[Tensor, "*batch nh"], Tensor | None]:
        """The module's output; it sees one batch dimension, whatever the shape is."""
        learned, held = self._parts
        tensors = {name: params[name] for name in learned} | {name: buffers[name] for name in held}
        flat = obs.reshape(-1, obs.shape[-1])
        output = torch.func.functional_call(self.module, tensors, (flat,))
        return output.reshape(*obs.shape[:-1], output.shape[-1]), carry


def _cast(value: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None).clone()


def _reset(part: nn.Module) -> None:
    for name in ("reset_parameters", "_reset_parameters"):  # the other one is of attention layers
        reset = getattr(part, name, None)
        if callable(reset):
            reset()


def _usable(module: nn.Module) -> nn.Module:
    """A copy of the module, if none of its parts is known not to work."""
    if not isinstance(module, nn.Module):
        raise BadValue(
            f"ModulePolicy takes a torch.nn.Module, got {got(module)}; "
            "try gradlab.NetworkPolicy for a network of another kind"
        )
    for name, part in module.named_modules():
        where = f"{name or 'the module'} ({type(part).__name__})"
        if isinstance(part, _BatchNorm):
            raise BadValue(
                f"{where} mixes samples, so that no sample has a gradient of its own; try "
                "nn.LayerNorm, or normalise=True for observations"
            )
        if isinstance(part, nn.RNNBase | nn.RNNCellBase):
            raise BadValue(
                f"{where} cannot be mapped over samples (torch's recurrent cells fail under vmap) "
                "and hides its state; try gradlab.RecurrentPolicy"
            )
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise BadValue(
                f"{where} draws random numbers that are no part of an episode's noise; try "
                "module.eval(), where it does nothing"
            )
        if any(is_lazy(value) for value in part.parameters(recurse=False)):
            raise BadValue(
                f"{where} has no parameters yet; call the module once on observations [B, no], "
                "then give it to ModulePolicy"
            )
    try:
        return copy.deepcopy(module)
    except Exception as error:  # such as the old torch.nn.utils.weight_norm
        raise BadValue(
            f"{type(module).__name__} cannot be copied ({_line(error)}); try "
            "torch.nn.utils.parametrizations for a norm of weights"
        ) from error


def _try(network: ModuleNetwork) -> None:
    """Raise `BadValue` unless the module is a pure function of each observation by itself."""
    module, rows = network.module, (ROWS, network.observation_dim)
    learned, held = network._parts
    if "log_std" in learned:
        raise BadValue(
            "the module has a parameter called log_std, which is the head's name for its own; "
            "rename it, or leave the std to the policy (std='global')"
        )
    like = next((value for value in (learned | held).values() if value.is_floating_point()), None)
    if like is None or not learned:
        raise BadValue("the module has no parameter that requires a gradient: nothing to learn")
    obs = torch.randn(rows, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    kept = {name: value.clone() for name, value in held.items()}
    kind = type(module).__name__
    given = obs.clone()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        try:
            output, again = module(given), module(obs)
            alone = module(obs[1:2])
        except Exception as error:
            raise BadValue(
                f"{kind} fails at observations of shape {list(rows)}: {_line(error)}"
            ) from error
        drew = not torch.equal(before, torch.get_rng_state())
    _check_output(kind, output, network.output_dim)
    if not torch.equal(given, obs):
        raise BadValue(f"{kind} writes to the observations that it is given; try a copy of them")
    if drew:
        raise BadValue(
            f"{kind} draws random numbers that are no part of an episode's noise; try "
            "module.eval(), or a module without them"
        )
    if any(not torch.equal(value, kept[name]) for name, value in held.items()):
        raise BadValue(f"{kind} changes its buffers as it runs; try module.eval()")
    if not torch.allclose(output, again, rtol=0, atol=0, equal_nan=True):
        raise BadValue(
            f"{kind} gives another output at the same observations when it is called again: it draws "
            "numbers that are no part of an episode's noise, or remembers; try a module that does not"
        )
    scale = float(output.abs().nan_to_num(0.0, 0.0, 0.0).max())
    if not torch.allclose(output[1:2], alone, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
        raise BadValue(
            f"{kind} mixes samples: its output at one observation depends on the others in the "
            "batch; try nn.LayerNorm, which looks at one sample"
        )
    _check_mapped(network, obs, learned, held)


def _check_output(kind: str, output: Any, output_dim: int) -> None:
    expected = (ROWS, output_dim)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        came = f"[B, {output.shape[-1]}]" if isinstance(output, Tensor) and output.ndim else None
        twice = isinstance(output, Tensor) and output.shape[-1:] == (2 * output_dim,)
        raise BadValue(
            f"{kind} should return [B, {output_dim}] at observations [B, no], got "
            f"{came or got(output)}; "
            + ("try std='state' for a log std per action" if twice else "give it that many outputs")
        )


def _check_mapped(network: ModuleNetwork, obs: Tensor, learned: Params, held: Buffers) -> None:
    def one(row: Tensor) -> Params:
        def total(params: Params) -> Tensor:
            return network.apply(params, held, row, None)[0].sum()

        return torch.func.grad(total)(learned)

    try:
        torch.func.vmap(one)(obs)
    except Exception as error:
        raise BadValue(
            f"{type(network.module).__name__} cannot be mapped over samples by torch.func.vmap: "
            f"{_line(error)}; try torch.where for what depends on values"
        ) from error


def _line(error: Exception) -> str:
    """The first line of a message."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
