"""What a simulator may offer to be drawn; each is optional, and none is needed to simulate."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class HasShapes(Protocol):
    """A body made of capsules and spheres, in three dimensions, z up."""

    def shapes(
        self, state: Float[Tensor, "*batch ns"]
    ) -> tuple[Float[Tensor, "*batch shapes 2 3"], Float[Tensor, " shapes"]]:
        """The two ends of every capsule's axis in the world [m], and the radii [m].

        The ends of a sphere are the same point.
        """
        ...


@runtime_checkable
class HasMujocoModel(Protocol):
    """A body that MuJoCo can draw; the state begins with MuJoCo's `qpos`."""

    def mjcf_model(self) -> Any:
        """The compiled `mujoco.MjModel`. It is not written to."""
        ...
