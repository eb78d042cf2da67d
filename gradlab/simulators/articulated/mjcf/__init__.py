"""Reads MJCF, compiled by the `mujoco` package, into a `Model`; refuses what is outside the subset.

The subset is in `subset`; `links`, `joints` and `shapes` read what is inside;
`load` has the entry points.
"""

from gradlab.simulators.articulated.mjcf.load import (
    from_file,
    from_mujoco,
    from_string,
    gymnasium_asset,
)
from gradlab.simulators.articulated.mjcf.package import mujoco_package

__all__ = ["from_file", "from_mujoco", "from_string", "gymnasium_asset", "mujoco_package"]
