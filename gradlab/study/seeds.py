"""Seeds that depend on names and never on order."""

from __future__ import annotations

import hashlib
import json


def seed_for(study_seed: int, *names: str | float) -> int:
    """A seed in [0, 2^63) for whatever `names` names, e.g. `seed_for(config.seed, "landing",
    "noise")`.

    The same on every machine and Python; other names or another order of names give an unrelated
    seed. Two parts of one study that must be independent (an oracle and what it judges) use
    different names.
    """
    text = json.dumps([study_seed, *names], separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
