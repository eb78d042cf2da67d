"""Articulated rigid bodies that agree with MuJoCo, differentiable,
with contact from soft to hard.
"""

from gradlab.simulators.articulated.brax_like import BraxLike
from gradlab.simulators.articulated.contact import Compliant, ContactModel, Smoothed
from gradlab.simulators.articulated.convex import Convex
from gradlab.simulators.articulated.mjcf import from_file, from_mujoco, from_string, gymnasium_asset
from gradlab.simulators.articulated.model import Model
from gradlab.simulators.articulated.simulator import Articulated

__all__ = [
    "Articulated",
    "BraxLike",
    "Compliant",
    "ContactModel",
    "Convex",
    "Model",
    "Smoothed",
    "from_file",
    "from_mujoco",
    "from_string",
    "gymnasium_asset",
]
