"""Differentiable dynamics. Read `base.py` first: what a simulator is; then the one you need."""

from gradlab.simulators.base import Simulator
from gradlab.simulators.drones import DRONES, Drone
from gradlab.simulators.point_mass import PointMass
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.simulators.static import Static

__all__ = ["DRONES", "Drone", "PointMass", "Quadrotor", "Simulator", "Static"]
