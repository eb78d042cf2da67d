"""A problem: simulator, task, policy and objective, and everything an estimator may ask of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import STEPS, Hard, Step, last_margin
from gradlab.foundation import placement
from gradlab.foundation.arguments import (
    check_compile,
    check_device,
    check_dtype,
    check_generator,
    number,
    whole,
)
from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadShape, BadValue, Missing, UnknownName
from gradlab.foundation.memo import Memo
from gradlab.foundation.modes import ordinary
from gradlab.foundation.moment import Moment, beginning
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import Matrix, Vector, shared
from gradlab.policies.factors import Call
from gradlab.policies.normalised import standardisation
from gradlab.policies.policy import BoundPolicy, Policy
from gradlab.problems.checking import can_run, check_buffers, check_part, check_parts, check_policy
from gradlab.problems.critic import Critic, View
from gradlab.problems.drawing import check_noise, drawn
from gradlab.problems.segment import Segment, Widths, check_moment, check_time, packed
from gradlab.simulators.base import Simulator, Timed
from gradlab.tasks.base import Task

# how a problem gets a critic: the code in the message runs as it is
FIT = (
    "fit one with fitted = gradlab.fit_critic(problem, params, kind='{kind}') and bind it "
    "with problem = problem.replace(critic=fitted.critic(problem))"
)


@dataclass(frozen=True, repr=False)
class Problem(Shown):
    """J(θ) = E[ Σ_{t<T} γ^t alive_t r_t ] of a policy on a task in a simulator.

    Immutable: `replace` returns a copy. `dtype` is that of rollouts; statistics are float64.
    `compile` and `checkpoint` change time and memory, not numbers; the vmap engine does without.
    `compile="graph"` captures whole chunks on a GPU (`gradients/captured.py`).
    """

    name: str
    simulator: Simulator
    task: Task
    policy: Policy
    horizon: int
    discount: float = 0.99
    critic: Critic | None = None
    event_step: Step = field(default_factory=Hard)
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    noise: str | None = None  # "cpu" or "device", where it is drawn; None: "device" on a GPU
    compile: bool | str = False
    checkpoint: bool = False  # keep only states, and run each step again in the backward pass
    skewed: tuple[tuple[str, Vector | Matrix], ...] = ()  # a policy to start from: `reference`
    buffers: dict[str, Tensor] | None = field(default=None, compare=False)  # of the policy
    segment: Segment | None = None  # of longer episodes: `from_moments`

    def __post_init__(self) -> None:
        horizon = whole("horizon", self.horizon, hint="try horizon=32")
        object.__setattr__(self, "horizon", horizon)
        if not 0 < number("discount", self.discount) <= 1:
            raise BadValue(f"discount must lie in (0, 1], got {self.discount}")
        check_dtype(self.dtype)
        check_device(self.device)
        placement.check_noise(self.noise)
        check_compile(self.compile)
        if not isinstance(self.critic, Critic | None):
            raise BadValue(
                f"critic should be a Critic, got {type(self.critic).__name__}; a fitted one is bound "
                "with problem.replace(critic=fitted.critic(problem))"
            )
        check_part("simulator", self.simulator)
        check_part("task", self.task)
        self._check_clock()
        check_policy(self.policy)
        sizes = self.task.observation_dim, self.simulator.action_dim
        object.__setattr__(self, "policy", self.policy.sized(*sizes))
        pairs = {
            "observation": (self.policy.observation_dim, self.task.observation_dim),
            "action": (self.policy.action_dim, self.simulator.action_dim),
        }
        for what, (came, expected) in pairs.items():
            if came != expected:
                raise BadShape(
                    f"the policy's {what}_dim should be {expected} for {self.name}, got {came}; "
                    f"build it with {what}_dim={expected}"
                )
        if self.buffers is not None:
            fitting = check_buffers(self.buffers, self._first_buffers, self.name)
            object.__setattr__(self, "buffers", fitting)

    @cached_property
    def _first_buffers(self) -> dict[str, Tensor]:
        # as in `foundation.tensors`: what a transform or a mode makes must not outlive it
        with torch.inference_mode(False):
            first = self.policy.buffers(dtype=self.dtype, device=self.device)
            return {name: torch.func.debug_unwrap(value) for name, value in first.items()}

    @property
    def _buffers(self) -> dict[str, Tensor]:
        return self._first_buffers if self.buffers is None else self.buffers

    @property
    def standardisation(self) -> str:
        """By which statistics the policy standardises observations, in words; "" if it does not."""
        return standardisation(self._buffers)

    def facts(self) -> Facts:
        return {
            "name": self.name,
            "simulator": type(self.simulator).__name__,
            "task": type(self.task).__name__,
            "policy": ", ".join(filter(None, (self.policy.summary, self.standardisation))),
            "horizon": f"{self.horizon} steps",
            "discount": f"{self.discount:g}",
            "critic": "none" if self.critic is None else self.critic.name,
            **({} if self.segment is None else {"segment": self.segment.summary}),
            "events": "hard" if self.hard else repr(self.event_step),
            "dtype": f"{str(self.dtype).removeprefix('torch.')} on {self.device}",
            **({} if self.noise is None else {"noise": f"of the {self.noise}"}),
            "compile": "graph" if self.compile == "graph" else "yes" if self.compile else "no",
        }

    def _dry_run(self) -> None:
        """Check the methods of the parts, once: every use draws, outside of transforms."""
        if "sound" in vars(self) or not can_run(self.device):
            return
        check_parts(self.simulator, self.task, self.dtype, self.device)
        vars(self)["sound"] = True

    def _check_clock(self) -> None:
        """A task that counts time must count the simulator's."""
        if not (isinstance(self.task, Timed) and isinstance(self.simulator, Timed)):
            return
        if not math.isclose(self.task.dt, self.simulator.dt, rel_tol=1e-9):
            raise BadValue(
                f"the task of {self.name} counts steps of {self.task.dt:g} s and its simulator takes steps "
                f"of {self.simulator.dt:g} s; give both the same, such as "
                "task=dataclasses.replace(problem.task, dt=simulator.dt)"
            )

    def replace(self, **changes: object) -> Problem:
        """A copy with some fields changed. Raises `UnknownName` for what is no field of it."""
        known = [part.name for part in dataclasses.fields(self)]
        for option in changes:
            if option not in known:
                raise UnknownName(f"option of {self.name}:", option, known)
        return dataclasses.replace(self, **changes)

    def from_moments(
        self,
        length: int,
        moments: Moment | None = None,
        *,
        bootstrap: bool = True,
        discount_from: Literal["segment", "episode"] = "segment",
    ) -> Problem:
        """The problem of `length` steps from given moments of these episodes, for any estimator.

        Its return is that of the segment, plus γ^length V(s) of the critic where an episode is
        alive after the last step (`bootstrap`). γ counts from the beginning of the segment, or as
        the moments say that it has counted (`discount_from="episode"`). `noise_from` draws for
        given moments, and `draw` chooses among `moments`, with replacement.

        Raises `BadValue` for moments with less than `length` steps to go, `Missing` for a bootstrap
        without a V critic.
        """
        if bootstrap:
            self.require_v(f"the end of a segment (or bootstrap=False) of {self.name}")
        length = whole("length", length)
        segment = Segment(self.episode, bool(bootstrap), discount_from, moments)
        if moments is not None:
            check_moment(moments, self.widths, None, self.dtype, self.name)
            check_time(moments, length, self.episode, self.name)
        return self.replace(horizon=length, segment=segment)

    def require_whole(self, who: str) -> None:
        """Raise `BadValue` if this is a segment of longer episodes, which `who` does not know."""
        if self.segment is not None:
            raise BadValue(
                f"{who} is for whole episodes, got a segment of {self.horizon} steps of "
                f"{self.name}'s {self.episode}; give it the problem that from_moments was called on"
            )

    def relaxed(self, width: float, step: str = "sigmoid") -> Problem:
        """A copy in which every event is relaxed; `width` is a fraction of each margin's scale."""
        if step not in STEPS:
            raise BadValue(f"step must be one of {sorted(STEPS)}, got {step!r}")
        return self.replace(event_step=STEPS[step](width))

    @property
    def eager(self) -> Problem:
        """A copy that `torch.func` transforms can go through: neither compiled nor checkpointed."""
        return self.replace(compile=False, checkpoint=False)

    @property
    def hard(self) -> bool:
        """Whether events are unrelaxed (their gradient is zero)."""
        return isinstance(self.event_step, Hard)

    @property
    def unrelaxed(self) -> Problem:
        """A copy whose events are hard."""
        return self.replace(event_step=Hard())

    @property
    def last_margin(self) -> float:
        """The largest margin of an ending event at which an episode counts: `gradlab.events`."""
        return last_margin(self.event_step, self.dtype)

    @property
    def episode(self) -> int:
        """Steps of a whole episode: the horizon, unless the problem is a segment of longer ones."""
        return self.horizon if self.segment is None else self.segment.episode

    @property
    def initial_dim(self) -> int:
        """How many numbers `noise.initial` has: those of the task, or of a moment."""
        return self.task.initial_dim if self.segment is None else sum(self.widths.parts.values())

    @property
    def widths(self) -> Widths:
        """How many numbers a `Moment` of this problem has."""
        simulator, task = self.simulator, self.task
        own = simulator.state_dim, task.memory_dim, self.policy.carry_dim, len(task.events)
        return Widths(*own, simulator.noise_dim, simulator.action_dim)

    @property
    def steps(self) -> Float[Tensor, " T_plus_1"]:
        """0, 1, ..., T in the problem's dtype; one tensor for all, never written to."""
        return _steps(self.horizon, dtype=self.dtype, device=self.device)

    @property
    def discounts(self) -> Float[Tensor, " T_plus_1"]:
        """γ^0 ... γ^T, computed in float64; one tensor for all, never written to.

        Of a segment up to the end of the whole episode, where γ may have begun to count before it.
        """
        key = self.episode, float(self.discount)
        return _discounts(*key, dtype=self.dtype, device=self.device)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh parameters of the policy in the problem's dtype and on its device.

        Every dtype and device starts from the same numbers. Raises `BadValue` without a generator.
        """
        return self.policy.init(generator, dtype=self.dtype, device=self.device)

    def bind(
        self,
        params: dict[str, Tensor],
        tape: list[Call] | None = None,
        memo: Memo | None = None,
    ) -> BoundPolicy:
        """The policy with these parameters, as a surrogate or a rollout takes it.

        With a `tape` its calls are recorded there (the pullback engine), with a `memo` its rollouts
        are remembered.
        """
        return BoundPolicy(self.policy, params, ordinary(self._buffers), tape, memo)

    @property
    def reference(self) -> dict[str, Tensor]:
        """The skewed policy that a known-answer problem comes with, in its dtype, on its device.

        Raises `Missing` where there is none, `BadShape` if the problem has got another policy.
        """
        if not self.skewed:
            raise Missing(f"{self.name} has no reference policy; try problem.init(generator)")
        cast = {"dtype": self.dtype, "device": self.device}
        params = {name: torch.tensor(values, **cast) for name, values in self.skewed}
        self.policy.check(params)
        return params

    def draw(self, count: int, generator: torch.Generator) -> Noise:
        """All the randomness of `count` episodes.

        In float64 and then cast; on the CPU, so that every device sees the same, or on the device,
        but for what episodes begin with (`noise`). The first draw takes the parts through a step
        (`problems.checking`): raises `BadValue` or `BadShape` for a method with a mistake.
        """
        return self.draw_blocks(count, [generator])

    def draw_blocks(self, count: int, generators: Sequence[torch.Generator]) -> Noise:
        """What `draw` gives of each generator, one after another, in one go on the device."""
        count = whole("the number of episodes to draw", count)
        return self._drawn(lambda generator: self._beginning(count, generator), generators)

    def _beginning(self, count: int, generator: torch.Generator) -> Tensor:
        if self.segment is None:
            return self.task.draw_initial(count, generator)
        pool = self.segment.moments
        if pool is None:
            raise Missing(
                f"{self.name} is a segment without moments to begin at; try "
                "problem.noise_from(moments, generator), or from_moments(length, moments)"
            )
        chosen = torch.randint(len(pool.step), (count,), generator=generator)
        return packed(pool.take(chosen.to(pool.step.device)))

    def noise_from(self, moments: Moment, generator: torch.Generator) -> Noise:
        """All the randomness of one segment from each of these moments [N], and the moments.

        Raises `BadValue` where the problem is no segment or an episode has not enough steps left.
        """
        if self.segment is None:
            raise BadValue(
                f"{self.name} begins at its initial states; for a problem that begins at moments "
                "try problem.from_moments(length)"
            )
        check_moment(moments, self.widths, None, self.dtype, self.name)
        check_time(moments, self.horizon, self.episode, self.name)
        return self._drawn(lambda _: packed(moments), [generator])

    def _drawn(
        self, begin: Callable[[torch.Generator], Tensor], generators: Sequence[torch.Generator]
    ) -> Noise:
        for generator in generators:
            check_generator(generator)
        self._dry_run()
        sizes = self.horizon, self.simulator.action_dim, self.simulator.noise_dim
        counted = placement.drawn_there(self.noise, self.device)
        return drawn(begin, generators, sizes, self.dtype, self.device, counted=counted)

    def check_noise(self, noise: Noise) -> None:
        """Raise `BadShape` unless the noise was drawn for this, `BadValue` if it is empty."""
        shapes = {
            "initial": (self.initial_dim,),
            "action": (self.horizon, self.simulator.action_dim),
            "process": (self.horizon, self.simulator.noise_dim),
        }
        check_noise(noise, shapes, self.name, self.dtype, self.device)

    def start(self, noise: Noise) -> Moment:
        """The first moment of every episode, or where `noise_from` says that its segment begins."""
        if self.segment is not None:
            return self.segment.unpacked(noise.initial, self.widths)
        coordinates, memory = self.task.initial(noise.initial)
        return beginning(
            self.simulator.start(coordinates),
            memory,
            events=len(self.task.events),
            noise_dim=self.simulator.noise_dim,
            action_dim=self.simulator.action_dim,
            carry_dim=self.policy.carry_dim,
        )

    def require_q(self, who: str) -> Callable[[View, Tensor], Float[Tensor, "*batch"]]:
        """The critic's q(view, action) [*batch], for `who` needs it;
        raises `Missing` without one.
        """
        if self.critic is None or self.critic.q is None:
            raise Missing(
                f"{who} needs a Q critic and {self.name} has none; {FIT.format(kind='q')}"
            )
        return self.critic.q

    def require_v(self, who: str) -> Callable[[View], Float[Tensor, "*batch"]]:
        """The critic's v(view) [*batch], for `who` needs it; raises `Missing` without one."""
        if self.critic is None or self.critic.v is None:
            raise Missing(
                f"{who} needs a V critic and {self.name} has none; {FIT.format(kind='v')}"
            )
        return self.critic.v


@shared
def _steps(horizon: int, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.arange(horizon + 1, dtype=dtype, device=device)


@shared
def _discounts(
    horizon: int, discount: float, *, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    powers = discount ** torch.arange(horizon + 1, dtype=torch.float64, device="cpu")
    return powers.to(dtype=dtype, device=device)
