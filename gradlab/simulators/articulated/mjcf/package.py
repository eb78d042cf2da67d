"""The `mujoco` package, imported when it is first needed: importing gradlab must not cost it."""

from __future__ import annotations

from typing import Any


def mujoco_package() -> Any:
    """The `mujoco` package, imported when it is first needed."""
    import mujoco

    return mujoco


def disabled(m: Any, flag: str) -> bool:
    """Whether an option flag of a compiled model is disabled, by MuJoCo's name:
    "GRAVITY", "LIMIT", ...
    """
    bit = getattr(mujoco_package().mjtDisableBit, f"mjDSBL_{flag}")
    return bool(int(m.opt.disableflags) & int(bit))
