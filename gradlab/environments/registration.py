"""Every problem that `gradlab.make` knows, by a gymnasium id."""

from __future__ import annotations

import gymnasium

from gradlab.problems import registry

NAMESPACE, VERSION = "gradlab", 0


def environment_id(name: str) -> str:
    """The gymnasium id of a problem: "half_cheetah" is "gradlab/HalfCheetah-v0"."""
    words = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return f"{NAMESPACE}/{words}-v{VERSION}"


def register_environments() -> None:
    """Make every name of `gradlab.names()` known to gymnasium; again for names added later."""
    for name in registry.names():
        if environment_id(name) in gymnasium.registry:
            continue
        gymnasium.register(
            environment_id(name),
            entry_point="gradlab.environments:ProblemEnv",
            vector_entry_point="gradlab.environments:ProblemVectorEnv",
            kwargs={"problem": name},
        )
