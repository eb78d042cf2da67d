"""Differentiable dynamics. Read `base.py` first: what a simulator is; then the one you need."""

from gradlab.simulators.base import Deterministic, Simulator
from gradlab.simulators.drones import DRONES, Drone
from gradlab.simulators.point_mass import PointMass
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.simulators.static import Static
from gradlab.simulators.toys import Dragging, Paddle, Pushing

__all__ = [
    "DRONES",
    "Deterministic",
    "Dragging",
    "Drone",
    "Paddle",
    "PointMass",
    "Pushing",
    "Quadrotor",
    "Simulator",
    "Static",
]
