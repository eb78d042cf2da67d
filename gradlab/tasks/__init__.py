"""Observations, rewards and events. Read `base.py` first: what a task is; then the one you need."""

from gradlab.tasks.base import Memoryless, Task, Transition
from gradlab.tasks.gate import Gate, TerminalGate
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.lq import Regulation
from gradlab.tasks.racing import Racing
from gradlab.tasks.smoothing import Heaviside, Quadratic, SoftHeaviside
from gradlab.tasks.static import Decision
from gradlab.tasks.steering import OpenLoop, Rally
from gradlab.tasks.toys import BallWithWall, MomentumTransfer
from gradlab.tasks.tracking import Tracking

__all__ = [
    "BallWithWall",
    "Decision",
    "Gate",
    "Heaviside",
    "Hovering",
    "Landing",
    "Memoryless",
    "MomentumTransfer",
    "OpenLoop",
    "Quadratic",
    "Racing",
    "Rally",
    "Regulation",
    "SoftHeaviside",
    "Task",
    "TerminalGate",
    "Tracking",
    "Transition",
]
